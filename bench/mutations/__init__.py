"""Mutations of this project and breakages of Keras and TensorFlow."""
