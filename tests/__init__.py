"""The suite of the package and of the machinery in `bench`."""
