"""Tests of `bench.fronts`."""
