"""Pure functions from records to the next tasks."""
