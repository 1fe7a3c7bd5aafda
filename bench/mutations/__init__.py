"""Broken copies of this project, and Keras and TensorFlow broken under it."""
