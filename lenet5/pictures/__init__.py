"""Strokes of a digit in a picture of any kind."""
