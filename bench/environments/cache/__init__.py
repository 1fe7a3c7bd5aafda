"""The folder of built environments: its files, what a build costs, and what is removed."""
