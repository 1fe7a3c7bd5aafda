"""The check of a GPU: everything that needs one, in one command."""
