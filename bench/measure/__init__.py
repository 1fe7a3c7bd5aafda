"""Executors: they start workers and give back records."""
