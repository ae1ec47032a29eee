"""Usage events: their form, and their way into the ledger."""
