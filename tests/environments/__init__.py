"""Tests of `bench.environments.builds`."""
