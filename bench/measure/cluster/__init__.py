"""Executor on a Dask cluster: blocks and seeds as tasks of its workers."""
