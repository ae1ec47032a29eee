"""The ledger: what was used, for ever."""
