"""May this request run: counters and holds, checked in one call and settled by the ledger."""
