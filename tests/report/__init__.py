"""Tests of `bench.report`."""
