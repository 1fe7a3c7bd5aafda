"""Tests of `bench.worker`."""
