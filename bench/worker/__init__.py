"""What runs inside a measured environment: NumPy, TensorFlow and lenet5's left half alone."""
