"""The suite of the machinery in `bench`."""
