"""Tests of `bench.environments`."""
