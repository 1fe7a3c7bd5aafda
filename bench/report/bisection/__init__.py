"""A bisection as text, page and pictures."""
