"""Envoy's rate limit service: gateways built on Envoy ask as they always do, and Jauge answers."""
