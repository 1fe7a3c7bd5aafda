"""Tests of `bench.report.session`."""
