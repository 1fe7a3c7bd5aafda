"""Series of results over many runs: points, chained baselines, change points, steps."""
