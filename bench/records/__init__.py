"""What was measured, as data and as files."""
