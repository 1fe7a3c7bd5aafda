"""Tests of `bench.mutations`."""
