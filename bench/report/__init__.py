"""Decisions and records as text, HTML and pictures."""
