"""Tests of `bench.records`."""
