"""What administrations pay by, and what their usage comes to: reads the catalogue, the ledger and carbon."""
