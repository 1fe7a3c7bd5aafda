"""Tests of `bench.verdicts.speed`."""
