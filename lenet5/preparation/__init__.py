"""Preparation of MNIST: files, download, TensorFlow Datasets."""
