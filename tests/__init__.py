"""Tests of the packages `lenet5` and `bench`."""
