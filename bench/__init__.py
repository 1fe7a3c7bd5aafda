"""Measuring LeNet-5: benchmarks, their results and the report on them."""
