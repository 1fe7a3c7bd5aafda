"""Which changes between two environments move a value."""
