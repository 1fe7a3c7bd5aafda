"""LeNet-5 on MNIST in TensorFlow: the canary that shows what a new TensorFlow does to training.

A training run goes from left to right through the modules `recipe`, `data`, `model`, `training`,
`evaluation`, `plots`, `run_directory` and `cli`; importing the package itself imports none of them.
"""

__version__ = "0.1.0"
