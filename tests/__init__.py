"""The suite of the package, and in `bench` that of the measuring machinery."""
