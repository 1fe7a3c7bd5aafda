"""Executors: they start workers and return records."""
