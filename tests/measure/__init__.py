"""Tests of `bench.measure`."""
