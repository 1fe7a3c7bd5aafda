"""Pure functions from records to what is measured next."""
