"""Reports: reads of the ledger, and the pages that show them."""
