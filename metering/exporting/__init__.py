"""Exports that are made while nobody waits: asked for, made by the worker, fetched later."""
