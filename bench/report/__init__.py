"""Decisions and records as text, HTML and plots."""
