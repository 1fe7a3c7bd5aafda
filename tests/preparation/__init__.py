"""Tests of `lenet5.preparation`."""
