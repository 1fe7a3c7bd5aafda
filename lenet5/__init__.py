"""LeNet-5 on MNIST in TensorFlow: a canary for regressions of accuracy and training speed.

A training run uses the modules `recipe`, `data`, `model`, `training`, `evaluation`, `plots`,
`run_directory` and `cli`, in this order. Importing the package imports none of them.
"""

__version__ = "0.1.0"
