"""Environments: requests, builds and labels."""
