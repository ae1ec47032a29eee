"""The catalogue: who may use the platform. Everybody reads it; only this package writes it."""
