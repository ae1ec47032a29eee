"""Gateways that need no change: what they serve is held, followed and told from outside."""
