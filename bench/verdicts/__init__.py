"""Pure functions from records to decisions."""
