"""A line of words turned into an interpreter that imports TensorFlow."""
