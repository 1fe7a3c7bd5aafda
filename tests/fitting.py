"""Problems for tests of `fit`, with their solutions in NumPy float64.

The models are LeNet-5, with `bench.verdicts.numpy_lenet5` as its solution, and a softmax
regression, with its solution below. The regression is small enough to test every option.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from bench.verdicts import numpy_lenet5
from bench.verdicts.numpy_lenet5 import Weights
from lenet5.data import Subset
from lenet5.keras_engine import EpochCounter, batches, compile_model
from lenet5.model import build_for
from lenet5.recipe import Recipe
from lenet5.recipes import RECIPES
from lenet5.runtime import keras_version

Batch = tuple[np.ndarray, np.ndarray]  # inputs and one-hot targets, of any float type
Gradients = Callable[[Weights, np.ndarray, np.ndarray], Weights]

FEATURES, CLASSES = 6, 4  # of the softmax regression


def draw_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws images of uneven brightness and contrast, and labels.

    Returns:
        float32 array (n, 28, 28, 1) and int32 array (n,).
    """
    random = np.random.RandomState(seed)
    coarse = random.rand(count, 7, 7, 1).repeat(4, axis=1).repeat(4, axis=2)
    images = (0.6 * coarse + 0.4 * random.rand(count, 28, 28, 1)) ** 2
    return images.astype(np.float32), random.randint(0, 10, count).astype(np.int32)


def draw_weights(seed: int, scale: float = 1.0) -> Weights:
    """Draws float32 weights of LeNet-5: Glorot's spread times `scale`, nonzero biases."""
    random = np.random.RandomState(seed)
    shapes = ((5, 5, 1, 6), (6,), (5, 5, 6, 16), (16,), (256, 120), (120,))
    weights = []
    for shape in (*shapes, (120, 84), (84,), (84, 10), (10,)):
        spread = 0.2
        if len(shape) > 1:
            field = np.prod(shape[:-2])
            spread = scale * np.sqrt(2 / (field * (shape[-1] + shape[-2])))
        weights.append((spread * random.randn(*shape)).astype(np.float32))
    return weights


def draw_features(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws inputs of the softmax regression, float32 (n, FEATURES), and labels, int32 (n,)."""
    random = np.random.RandomState(seed)
    features = random.randn(count, FEATURES).astype(np.float32)
    return features, random.randint(0, CLASSES, count).astype(np.int32)


def one_hot(labels: np.ndarray, classes: int, smoothing: float = 0.0) -> np.ndarray:
    """Returns float64 targets (n, classes); smoothing spreads its share evenly over all classes."""
    return np.asarray(np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes)


def split(inputs: np.ndarray, targets: np.ndarray, size: int, epochs: int = 1) -> Iterator[Batch]:
    """Yields batches in order, epoch after epoch; an epoch's last batch may be smaller."""
    for _ in range(epochs):
        for first in range(0, len(inputs), size):
            yield inputs[first : first + size], targets[first : first + size]


def cross_entropies(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the cross-entropy of every image, float64 (n,)."""
    return np.asarray(-(targets * np.log(probabilities)).sum(axis=1))


def lenet5_losses(weights: Weights, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns LeNet-5's cross-entropy of every image, without the penalty."""
    return cross_entropies(numpy_lenet5.forward(weights, images).probabilities, targets)


def lenet5_penalty(weights: Weights, l2: float) -> float:
    """Returns LeNet-5's L2 penalty."""
    kernels = (weights[kernel].astype(np.float64) for kernel in numpy_lenet5.L2_KERNELS)
    return float(l2 * sum((kernel**2).sum() for kernel in kernels))


def lenet5_gradients(l2: float) -> Gradients:
    """Returns the function for LeNet-5's gradients, for any soft targets."""

    def gradients(weights: Weights, images: np.ndarray, targets: np.ndarray) -> Weights:
        labels = targets.argmax(axis=1)
        activations = numpy_lenet5.forward(weights, images)
        # `gradients` subtracts a one-hot label; adding `excess` first gives the soft target
        # instead.
        excess = np.eye(10)[labels] - targets
        moved = replace(activations, probabilities=activations.probabilities + excess)
        return numpy_lenet5.gradients(weights, moved, labels, l2)

    return gradients


def regression_probabilities(weights: Weights, features: np.ndarray) -> np.ndarray:
    """Returns the softmax regression's output, float64 (n, CLASSES)."""
    powers = np.exp(features.astype(np.float64) @ weights[0] + weights[1])
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def regression_gradients(l2: float) -> Gradients:
    """Returns the function for the softmax regression's gradients, with L2 on its kernel."""

    def gradients(weights: Weights, features: np.ndarray, targets: np.ndarray) -> Weights:
        error = (regression_probabilities(weights, features) - targets) / len(targets)
        return [features.T.astype(np.float64) @ error + 2 * l2 * weights[0], error.sum(axis=0)]

    return gradients


def descend(
    weights: Weights, batches: Iterator[Batch], gradients: Gradients, rate: float
) -> Iterator[Weights]:
    """Yields the weights after every step of plain gradient descent."""
    now = [np.asarray(weight, np.float64) for weight in weights]
    for inputs, targets in batches:
        grads = gradients(now, inputs, targets)
        now = [weight - rate * grad for weight, grad in zip(now, grads, strict=True)]
        yield now


def adapt(
    weights: Weights,
    batches: Iterator[Batch],
    gradients: Gradients,
    rates: Sequence[float] | np.ndarray,
    adam: numpy_lenet5.Adam,
) -> Iterator[Weights]:
    """Yields the weights after every step of Adam at the given rates."""
    now = [np.asarray(weight, np.float64) for weight in weights]
    moments = adam.start(now)
    for step, ((inputs, targets), rate) in enumerate(zip(batches, rates, strict=True)):
        grads = gradients(now, inputs, targets)
        now = adam.step(now, grads, moments, step + 1, float(rate))
        yield now


def averages(weights: Weights, steps: Sequence[Weights], momentum: float) -> list[Weights]:
    """Returns an optimiser's moving averages after every step.

    Keras 2's averages start at the initial weights, Keras 3's at the weights after step 1.
    """
    starts_before = keras_version().startswith("2.")
    average = [np.asarray(w, np.float64) for w in (weights if starts_before else steps[0])]
    told = []
    for now in steps:
        pairs = zip(average, now, strict=True)
        average = [momentum * old + (1 - momentum) * new for old, new in pairs]
        told.append(average)
    return told


def lenet5_recipe(**fields: Any) -> Recipe:
    """Returns a recipe with the given fields, otherwise without dropout, schedule and patience."""
    return RECIPES["original"].with_overrides({"dropout": 0.0, "patience": None, **fields})


def build_lenet5(recipe: Recipe, steps: int, weights: Weights) -> tf.keras.Model:
    """Returns LeNet-5 with these weights, compiled by the engine for a run of `steps` steps."""
    model = build_for(recipe, seed=0)
    compile_model(model, recipe, steps)
    model.set_weights(weights)
    return model


def fit_batches(
    model: tf.keras.Model, recipe: Recipe, subset: Subset, *, seed: int, epochs: int, **options: Any
) -> dict[str, list[float]]:
    """Trains a compiled model on the engine's batches; returns Keras's history."""
    epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
    options = {"epochs": epochs, "callbacks": [EpochCounter(epoch)], "verbose": 0, **options}
    shuffled = batches(recipe, subset, seed, epoch)
    history: dict[str, list[float]] = model.fit(shuffled, shuffle=False, **options).history
    return history


def build_regression(
    *, l2: float = 0.0, activation: str = "softmax", seed: int = 1
) -> tf.keras.Model:
    """Returns the softmax regression with nonzero weights, not compiled."""
    layer = tf.keras.layers.Dense(
        CLASSES, activation=activation, kernel_regularizer=tf.keras.regularizers.L2(l2)
    )
    model = tf.keras.Sequential([tf.keras.Input((FEATURES,)), layer])
    random = np.random.RandomState(seed)
    model.set_weights([random.randn(FEATURES, CLASSES), random.randn(CLASSES)])
    return model


def assert_weights(
    computed: Sequence[np.ndarray], exact: Weights, *, largest: float, mean: float
) -> None:
    """Asserts a maximum error of `largest` per weight and a mean error of `mean` per array."""
    for place, (ours, truth) in enumerate(zip(computed, exact, strict=True)):
        error = np.abs(ours - truth)
        assert error.max() <= largest, f"weight {place}: {error.max()}"
        assert error.mean() <= mean, f"weight {place}, mean: {error.mean()}"


class Recorder(tf.keras.callbacks.Callback):  # type: ignore[misc]  # TensorFlow has no types
    """Records weights and logs of `fit` after every step, and logs after every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.step_logs: list[dict[str, float]] = []
        self.step_weights: list[list[np.ndarray]] = []
        self.epoch_logs: list[dict[str, float]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002  # Keras's
        self.step_logs.append({name: float(value) for name, value in logs.items()})
        self.step_weights.append(self.model.get_weights())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002  # Keras's
        self.epoch_logs.append({name: float(value) for name, value in logs.items()})
