"""Jauge: usage ledger of a sovereign AI platform."""
