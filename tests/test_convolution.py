"""A convolution with its pooling as a matrix product is what the two layers give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lenet5.convolution import convolve_and_pool, is_fusible
from lenet5.model import build_model

layers = tf.keras.layers


@pytest.mark.parametrize(
    ("shape", "filters"), [((28, 28, 1), 6), ((12, 12, 6), 16)], ids=["C1", "C3"]
)
@pytest.mark.parametrize("activation", ["tanh", "relu", "linear"])
@pytest.mark.parametrize("images", [1, 5])
def test_outputs_and_gradients_are_those_of_the_layers(
    shape: tuple[int, ...], filters: int, activation: str, images: int
) -> None:
    """Within float32's rounding, of every weight and of the images."""
    random = np.random.RandomState(3)
    inputs = tf.constant(random.randn(images, *shape).astype(np.float32))
    convolution = layers.Conv2D(filters, 5, activation=activation)
    pooling = layers.AveragePooling2D(2)
    convolution(inputs)
    convolution.set_weights([random.randn(*w.shape) for w in convolution.get_weights()])
    weighting = random.randn(*pooling(convolution(inputs)).shape)

    def outputs_and_gradients(as_product: bool) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            if as_product:
                outputs = convolve_and_pool(inputs, convolution)
            else:
                outputs = pooling(convolution(inputs))
            total = tf.reduce_sum(outputs * weighting)
        gradients = tape.gradient(total, [inputs, convolution.kernel, convolution.bias])
        return [np.asarray(value) for value in (outputs, *gradients)]

    for ours, theirs in zip(*map(outputs_and_gradients, (True, False)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_a_kernel_of_one_pixel_shifts_the_image() -> None:
    """By hand: the pixel two down and three right of each place, averaged over 2 x 2."""
    inputs = np.arange(28.0 * 28).reshape(1, 28, 28, 1).astype(np.float32)
    convolution = layers.Conv2D(1, 5)
    convolution(inputs)
    kernel = np.zeros((5, 5, 1, 1))
    kernel[2, 3] = 1
    convolution.set_weights([kernel, np.array([0.5])])
    moved = inputs[:, 2:26, 3:27]
    expected = moved.reshape(1, 12, 2, 12, 2, 1).mean(axis=(2, 4)) + 0.5
    np.testing.assert_array_equal(convolve_and_pool(tf.constant(inputs), convolution), expected)


def test_both_convolutions_of_the_model_are_fusible() -> None:
    kinds = [layer for layer in build_model().layers if not isinstance(layer, layers.InputLayer)]
    assert is_fusible(*kinds[0:2])
    assert is_fusible(*kinds[2:4])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (layers.Conv2D(6, 3), layers.AveragePooling2D(2)),
        (layers.Conv2D(6, 5, strides=2), layers.AveragePooling2D(2)),
        (layers.Conv2D(6, 5, padding="same"), layers.AveragePooling2D(2)),
        (layers.Conv2D(6, 5, dilation_rate=2), layers.AveragePooling2D(2)),
        (layers.Conv2D(6, 5, use_bias=False), layers.AveragePooling2D(2)),
        (layers.Conv2D(6, 5), layers.AveragePooling2D(3)),
        (layers.Conv2D(6, 5), layers.AveragePooling2D(2, strides=1)),
        (layers.Conv2D(6, 5), layers.AveragePooling2D(2, padding="same")),
        (layers.Conv2D(6, 5), layers.MaxPooling2D(2)),
        (layers.Dense(6), layers.AveragePooling2D(2)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_it_does_not_compute_is_left_to_the_layers(first: Any, second: Any) -> None:
    assert not is_fusible(first, second)
