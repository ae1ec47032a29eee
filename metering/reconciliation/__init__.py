"""Reconciliation: the same usage, counted in several places, must be the same everywhere."""
