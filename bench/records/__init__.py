"""Records: measurements as data classes and as files."""
