"""Tests of the commands `pytest bench` and `python -m bench`."""
