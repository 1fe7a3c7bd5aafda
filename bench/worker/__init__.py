"""Code inside a measured environment: only NumPy, TensorFlow and lenet5's left half."""
