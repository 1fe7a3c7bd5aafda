"""One step of `fit` by gradient descent at rate 1 moves every weight by its gradient.

NumPy float64 gives the expected gradients; tolerances suit float32 arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench.verdicts import numpy_lenet5
from bench.verdicts.numpy_lenet5 import Weights
from lenet5.data import Subset, normalise
from lenet5.keras_engine import targets
from lenet5.model import build_for
from tests.fitting import (
    build_regression,
    draw_features,
    draw_images,
    draw_weights,
    fit_batches,
    lenet5_gradients,
    lenet5_recipe,
    one_hot,
    regression_gradients,
)

_L2 = 0.5  # large: the penalty's gradient is as large as the cross-entropy's


@pytest.fixture(scope="module")
def sparse() -> tf.keras.Model:
    """LeNet-5 with L2 and integer labels; each test sets its weights."""
    return _compiled(l2=_L2, loss="sparse_categorical_crossentropy")


@pytest.fixture(scope="module")
def smooth() -> tf.keras.Model:
    """LeNet-5 without L2 and with smoothed labels; each test sets its weights."""
    return _compiled(l2=0.0, loss=tf.keras.losses.CategoricalCrossentropy(label_smoothing=0.2))


@pytest.mark.parametrize("scale", [0.5, 1.5, 4.0])
def test_a_step_moves_every_weight_by_its_gradient(smooth: tf.keras.Model, scale: float) -> None:
    """From almost linear to saturated tanh, with smoothed labels and without L2."""
    images, labels = draw_images(24, seed=3)
    weights = draw_weights(4, scale)
    moved = _step(smooth, weights, images, one_hot(labels, 10).astype(np.float32))
    exact = lenet5_gradients(0.0)(weights, images, one_hot(labels, 10, 0.2))
    _assert_gradients(moved, exact, weights)


def test_a_step_moves_every_kernel_by_the_gradient_of_loss_and_penalty(
    sparse: tf.keras.Model,
) -> None:
    """The penalty covers all kernels except the output layer's, and no bias."""
    images, labels = draw_images(24, seed=5)
    weights = draw_weights(6)
    moved = _step(sparse, weights, images, labels)
    exact = lenet5_gradients(_L2)(weights, images, one_hot(labels, 10))
    _assert_gradients(moved, exact, weights)


def test_the_gradient_is_the_mean_over_the_images(sparse: tf.keras.Model) -> None:
    """Duplicate images do not change the step, and the step is the mean over single images."""
    images, labels = draw_images(3, seed=7)
    weights = draw_weights(8)
    once = _step(sparse, weights, images, labels)
    twice = _step(sparse, weights, np.tile(images, (2, 1, 1, 1)), np.tile(labels, 2))
    alone = [_step(sparse, weights, images[[i]], labels[[i]]) for i in range(3)]
    means = [np.mean(moves, axis=0) for moves in zip(*alone, strict=True)]
    for ours, again, mean in zip(once, twice, means, strict=True):
        bound = 1e-5 * np.abs(ours).max()
        np.testing.assert_allclose(ours, again, rtol=0, atol=bound)
        np.testing.assert_allclose(ours, mean, rtol=0, atol=bound)


def test_the_penalty_adds_its_gradient_for_every_kernel(sparse: tf.keras.Model) -> None:
    """A step with L2, minus the exact gradient without it, is 2 * l2 * kernel."""
    images, labels = draw_images(16, seed=9)
    weights = draw_weights(10)
    moved = _step(sparse, weights, images, labels)
    plain = lenet5_gradients(0.0)(weights, images, one_hot(labels, 10))
    for place, (ours, exact) in enumerate(zip(moved, plain, strict=True)):
        share = 2 * _L2 if place in numpy_lenet5.L2_KERNELS else 0.0
        bound = 5e-5 * max(np.abs(ours).max(), np.abs(exact).max())
        np.testing.assert_allclose(ours - exact, share * weights[place], rtol=0, atol=bound)


def test_the_engines_batches_give_the_same_step(smooth: tf.keras.Model) -> None:
    """With all images in one batch, the step is the exact gradient in any order."""
    random = np.random.RandomState(11)
    subset = Subset(random.randint(0, 256, (20, 28, 28, 1)).astype(np.uint8), np.arange(20) % 10)
    recipe = lenet5_recipe(batch_size=20, label_smoothing=0.2)
    weights = draw_weights(12)
    smooth.set_weights(weights)
    fit_batches(smooth, recipe, subset, seed=5, epochs=1)
    moved = [old - new for old, new in zip(weights, smooth.get_weights(), strict=True)]
    assert targets(recipe, subset.labels).tolist() == one_hot(subset.labels, 10).tolist()
    exact = lenet5_gradients(0.0)(
        weights, normalise(subset.images), one_hot(subset.labels, 10, 0.2)
    )
    _assert_gradients(moved, exact, weights)


@pytest.mark.parametrize(("strides", "padding"), [(1, "valid"), (1, "same"), (2, "valid")])
def test_convolution_gradients_agree_with_numpy(strides: int, padding: str) -> None:
    """Two convolutions without activation; the first one's gradient passes the second.

    The outputs are linear in either kernel. The outputs for each kernel entry alone therefore give
    the gradient of the mean squared error without differentiation.
    """
    random = np.random.RandomState(13)
    images = random.randn(5, 7, 9, 2)
    model = tf.keras.Sequential(
        [
            tf.keras.Input((7, 9, 2)),
            tf.keras.layers.Conv2D(3, 3, strides=strides, padding=padding),
            tf.keras.layers.Conv2D(2, 3, padding=padding),
        ]
    )
    weights = [random.randn(*weight.shape).astype(np.float32) for weight in model.get_weights()]
    aim = random.randn(*model.compute_output_shape((5, 7, 9, 2)))
    model.compile(optimizer=tf.keras.optimizers.SGD(1.0), loss="mse")
    moved = _step(model, weights, images.astype(np.float32), aim.astype(np.float32))

    def outputs(trial: Weights) -> np.ndarray:
        return _convolve_twice(images.astype(np.float32), trial, strides, padding)

    exact_weights = [weight.astype(np.float64) for weight in weights]
    now = outputs(exact_weights)
    error = 2 * (now - aim.astype(np.float32)) / aim.size
    exact = []
    for place, weight in enumerate(exact_weights):
        gradient = np.zeros_like(weight)
        for at in np.ndindex(weight.shape):
            bumped = [other.copy() for other in exact_weights]
            bumped[place][at] += 1.0
            gradient[at] = (error * (outputs(bumped) - now)).sum()
        exact.append(gradient)
    _assert_gradients(moved, exact, weights)


@pytest.mark.parametrize("pool", [2, 3])
def test_pooling_spreads_its_gradient_evenly(pool: int) -> None:
    """A learned shift of every pixel moves by its window's share of the gradient."""
    random = np.random.RandomState(15)
    images = random.randn(4, 6, 6, 2).astype(np.float32)
    shift = random.randn(6 * 6 * 2).astype(np.float32)

    class Shift(tf.keras.layers.Layer):  # type: ignore[misc]  # TensorFlow has no types
        def build(self, input_shape: Any) -> None:
            self.shift = self.add_weight(shape=input_shape[1:], initializer="zeros", name="shift")
            super().build(input_shape)

        def call(self, inputs: Any) -> Any:
            return inputs + self.shift

    layers = [tf.keras.Input((6, 6, 2)), Shift(), tf.keras.layers.AveragePooling2D(pool)]
    model = tf.keras.Sequential(layers)
    weights = [shift.reshape(6, 6, 2)]
    aim = random.randn(*model.compute_output_shape(images.shape)).astype(np.float32)
    model.compile(optimizer=tf.keras.optimizers.SGD(1.0), loss="mse")
    moved = _step(model, weights, images, aim)
    shifted = images.astype(np.float64) + weights[0]
    side = 6 // pool
    pooled = shifted.reshape(4, side, pool, side, pool, 2).mean(axis=(2, 4))
    error = 2 * (pooled - aim).sum(axis=0) / aim.size
    exact = error.repeat(pool, axis=0).repeat(pool, axis=1) / pool**2
    _assert_gradients(moved, [exact], weights)


@pytest.mark.parametrize("labels_are", ["integers", "one-hot"])
@pytest.mark.parametrize("outputs", ["probabilities", "logits"])
def test_softmax_regression_gradients_agree_with_numpy(labels_are: str, outputs: str) -> None:
    features, labels = draw_features(30, seed=17)
    logits = outputs == "logits"
    losses = tf.keras.losses
    kind = losses.SparseCategoricalCrossentropy if labels_are == "integers" else None
    kind = kind or losses.CategoricalCrossentropy
    model = build_regression(l2=0.3, activation="linear" if logits else "softmax")
    model.compile(optimizer=tf.keras.optimizers.SGD(1.0), loss=kind(from_logits=logits))
    truth = one_hot(labels, 4)
    weights = model.get_weights()
    given = labels if labels_are == "integers" else truth.astype(np.float32)
    moved = _step(model, weights, features, given)
    _assert_gradients(moved, regression_gradients(0.3)(weights, features, truth), weights)


def test_sample_weights_scale_the_gradient() -> None:
    """The batch mean divides by the number of images; a weight of 0 removes an image."""
    features, labels = draw_features(20, seed=19)
    shares = np.linspace(0, 2, 20).astype(np.float32)
    model = build_regression()
    weights = model.get_weights()
    model.compile(optimizer=tf.keras.optimizers.SGD(1.0), loss="sparse_categorical_crossentropy")
    moved = _step(model, weights, features, labels, sample_weight=shares)
    alone = [
        regression_gradients(0.0)(weights, features[[i]], one_hot(labels[[i]], 4))
        for i in range(20)
    ]
    exact = [np.tensordot(shares, np.array(grads), 1) / 20 for grads in zip(*alone, strict=True)]
    _assert_gradients(moved, exact, weights)


def _compiled(*, l2: float, loss: Any) -> tf.keras.Model:
    model = build_for(lenet5_recipe(l2=l2), seed=0)
    model.compile(optimizer=tf.keras.optimizers.SGD(learning_rate=1.0), loss=loss)
    return model


def _step(
    model: tf.keras.Model, weights: Weights, inputs: np.ndarray, aims: np.ndarray, **options: Any
) -> list[np.ndarray]:
    """Returns the decrease of every weight by one step of `fit` on one batch."""
    model.set_weights(weights)
    model.fit(inputs, aims, batch_size=len(inputs), epochs=1, verbose=0, **options)
    pairs = zip(weights, model.get_weights(), strict=True)
    return [np.asarray(old, np.float64) - np.asarray(new, np.float64) for old, new in pairs]


def _assert_gradients(moved: list[np.ndarray], exact: Weights, weights: Weights) -> None:
    """Asserts an error within 4e-5 of the largest gradient, plus the rounding of the weights."""
    for place, (ours, truth) in enumerate(zip(moved, exact, strict=True)):
        largest = np.abs(truth).max()
        bound = 4e-5 * largest + 1.2e-7 * np.abs(weights[place]).max()
        error = np.abs(ours - truth).max()
        assert error <= bound, f"weight {place}: off by {error}, largest gradient {largest}"


def _convolve_twice(images: np.ndarray, weights: Weights, strides: int, padding: str) -> np.ndarray:
    def convolve(maps: np.ndarray, kernel: np.ndarray, bias: np.ndarray, step: int) -> np.ndarray:
        if padding == "same":  # only with a stride of 1
            maps = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return np.asarray(numpy_lenet5.convolve(maps, kernel)[:, ::step, ::step] + bias)

    first = convolve(np.asarray(images, np.float64), weights[0], weights[1], strides)
    return convolve(first, weights[2], weights[3], 1)
