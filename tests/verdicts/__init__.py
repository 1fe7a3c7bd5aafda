"""Tests of `bench.verdicts`."""
