"""Tests of `bench.worker.main`."""
