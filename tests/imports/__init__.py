"""Tests of taking over other gateways."""
