"""Benchmarks: each measures its own limit beside it, in the same run, and prints the ratio."""
