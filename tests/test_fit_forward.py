"""Outputs of a model and its layers agree with NumPy float64.

Tolerances suit float32 arithmetic, with outputs of the order of 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench.verdicts import numpy_lenet5
from tests.fitting import build_lenet5, draw_images, draw_weights, lenet5_recipe

_IMAGES, _BATCH = 21, 8


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return draw_images(_IMAGES, seed=51)[0]


@pytest.fixture(scope="module")
def lenet5() -> tf.keras.Model:
    """LeNet-5 with some saturated tanh, nonzero biases, and dropout."""
    return build_lenet5(lenet5_recipe(dropout=0.5), 10, draw_weights(52, scale=3.0))


@pytest.fixture(scope="module")
def exact(lenet5: tf.keras.Model, images: np.ndarray) -> numpy_lenet5.Activations:
    return numpy_lenet5.forward(lenet5.get_weights(), images)


def test_each_layer_gives_what_numpy_gives(
    lenet5: tf.keras.Model, images: np.ndarray, exact: numpy_lenet5.Activations
) -> None:
    """One submodel gives all outputs; dropout layers return their input."""
    layers = [layer for layer in lenet5.layers if type(layer).__name__ != "InputLayer"]
    every = tf.keras.Model(lenet5.inputs, [layer.output for layer in layers])
    outputs = every.predict(images, batch_size=_BATCH, verbose=0)
    expected = [
        *(exact.conv1, exact.pool1, exact.conv2, exact.flat.reshape(_IMAGES, 4, 4, 16)),
        *(exact.flat, exact.dense1, exact.dense1, exact.dense2, exact.dense2),
        exact.probabilities,
    ]
    assert len(outputs) == len(expected) == 10
    assert np.abs(exact.conv2).max() > 0.99
    assert exact.probabilities.max() > 0.5
    for layer, computed, truth in zip(layers, outputs, expected, strict=True):
        assert computed.dtype == np.float32
        np.testing.assert_allclose(computed, truth, rtol=0, atol=1e-5, err_msg=layer.name)


def test_predict_returns_the_outputs_in_order(
    lenet5: tf.keras.Model, images: np.ndarray, exact: numpy_lenet5.Activations
) -> None:
    """Input: batches of any size, arrays, datasets, single images, and a last batch of one."""
    assert np.abs(np.diff(exact.probabilities, axis=0)).max(axis=1).min() > 1e-3
    for size in (_BATCH, 20, _IMAGES, 1000):
        told = lenet5.predict(images, batch_size=size, verbose=0)
        np.testing.assert_allclose(told, exact.probabilities, rtol=0, atol=1e-5)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(_BATCH)
    by_dataset = lenet5.predict(dataset, verbose=0)
    np.testing.assert_allclose(by_dataset, exact.probabilities, rtol=0, atol=1e-5)
    for place in (0, _IMAGES - 1):
        alone = lenet5.predict(images[[place]], verbose=0)
        np.testing.assert_allclose(alone, exact.probabilities[[place]], rtol=0, atol=1e-5)
    by_batch = lenet5.predict_on_batch(images)
    np.testing.assert_allclose(by_batch, exact.probabilities, rtol=0, atol=1e-5)


def test_a_call_of_the_model_agrees_with_predict(
    lenet5: tf.keras.Model, images: np.ndarray, exact: numpy_lenet5.Activations
) -> None:
    """The call is without training, also inside a graph with unknown batch size."""
    graph = tf.function(
        lambda batch: lenet5(batch, training=False),
        input_signature=[tf.TensorSpec([None, 28, 28, 1], tf.float32)],
    )
    for told in (lenet5(images), lenet5(images, training=False), graph(images)):
        np.testing.assert_allclose(told.numpy(), exact.probabilities, rtol=0, atol=1e-5)


def test_an_images_output_does_not_depend_on_its_batch(
    lenet5: tf.keras.Model, images: np.ndarray
) -> None:
    """An image among others, or in another order, has the same output to a few units of float32."""
    whole = lenet5.predict(images, batch_size=_IMAGES, verbose=0)
    backwards = lenet5.predict(images[::-1], batch_size=_IMAGES, verbose=0)[::-1]
    np.testing.assert_allclose(backwards, whole, rtol=0, atol=1e-6)
    with_nothing = np.concatenate([images[:1], np.zeros_like(images[:3])])
    among = lenet5.predict(with_nothing, verbose=0)[0]
    np.testing.assert_allclose(among, whole[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "strides", "dilation"), [(3, 1, 1), (5, 2, 1), (2, 1, 2)])
def test_convolution_agrees_with_numpy(
    padding: str, size: int, strides: int, dilation: int
) -> None:
    """Cross-correlation, channels last; `same` pads with zeros, more at the end if uneven."""
    random = np.random.RandomState(53)
    maps = random.randn(3, 9, 12, 4).astype(np.float32)
    layer = tf.keras.layers.Conv2D(
        *(5, size), strides=strides, padding=padding, dilation_rate=dilation
    )
    layer.build(maps.shape)
    kernel = (random.randn(size, size, 4, 5) / (2 * size)).astype(np.float32)
    bias = random.randn(5).astype(np.float32)
    layer.set_weights([kernel, bias])
    expected = _convolve(maps, kernel, bias, strides, padding, dilation)
    np.testing.assert_allclose(layer(maps).numpy(), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize(("pool", "strides", "padding"), [(2, 2, "valid"), (3, 2, "same")])
def test_pooling_agrees_with_numpy(pool: int, strides: int, padding: str) -> None:
    """Mean and maximum of each window; only `same` pools a partial window, without zeros."""
    maps = np.random.RandomState(54).randn(2, 7, 9, 3).astype(np.float32)
    means, largest = (np.zeros((2, *_pooled(maps, strides, padding), 3)) for _ in range(2))
    lacks = [_lack(side, pool, strides) if padding == "same" else 0 for side in (7, 9)]
    for row, column in np.ndindex(means.shape[1:3]):
        first, left = row * strides - lacks[0] // 2, column * strides - lacks[1] // 2
        square = maps[:, max(first, 0) : first + pool, max(left, 0) : left + pool]
        means[:, row, column] = square.astype(np.float64).mean(axis=(1, 2))
        largest[:, row, column] = square.max(axis=(1, 2))
    layers = tf.keras.layers
    for kind, expected in ((layers.AveragePooling2D, means), (layers.MaxPooling2D, largest)):
        told = kind(pool, strides=strides, padding=padding)(maps)
        np.testing.assert_allclose(told.numpy(), expected, rtol=0, atol=1e-6)


def test_dense_agrees_with_numpy() -> None:
    """Inputs times kernel plus bias, for vectors and for the last axis of larger arrays."""
    random = np.random.RandomState(55)
    inputs = random.randn(4, 3, 30).astype(np.float32)
    kernel, bias = (random.randn(30, 7) / 5).astype(np.float32), random.randn(7)
    layer = tf.keras.layers.Dense(7)
    layer.build((None, 30))
    layer.set_weights([kernel, bias])
    bias = bias.astype(np.float32)
    expected = inputs.astype(np.float64) @ kernel.astype(np.float64) + bias
    np.testing.assert_allclose(layer(inputs[0]).numpy(), expected[0], rtol=0, atol=2e-6)
    wide = tf.keras.layers.Dense(7)
    wide.build((None, 3, 30))
    wide.set_weights([kernel, bias])
    np.testing.assert_allclose(wide(inputs).numpy(), expected, rtol=0, atol=2e-6)


def test_flatten_keeps_the_order_of_rows_columns_and_channels() -> None:
    maps = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    told = tf.keras.layers.Flatten()(maps).numpy()
    assert told.tolist() == np.arange(120, dtype=np.float32).reshape(2, 60).tolist()


@pytest.mark.parametrize("how", ["layer", "function", "activation of a layer"])
def test_softmax_agrees_with_numpy(how: str) -> None:
    """This includes large and distant logits, for which a plain exponential overflows."""
    random = np.random.RandomState(56)
    logits = (random.randn(6, 5) * np.array([[0.01], [1], [5], [30], [1], [1]])).astype(np.float32)
    logits[4] += 5000
    logits[5] -= 5000
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    expected = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    told = _activate("softmax", how, logits)
    np.testing.assert_allclose(told, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(told.sum(axis=1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["layer", "function", "activation of a layer"])
def test_tanh(how: str) -> None:
    """Small arguments have a small relative error, large ones give 1; tanh is odd."""
    sizes = np.concatenate([[0], np.logspace(-6, 1, 60), [20, 100, 1e10]])
    arguments = np.concatenate([-sizes, sizes]).astype(np.float32).reshape(2, 64)
    told = _activate("tanh", how, arguments)
    np.testing.assert_allclose(told, np.tanh(arguments.astype(np.float64)), rtol=2e-6, atol=0)
    assert told[0].tolist() == (-told[1]).tolist()


@pytest.mark.parametrize("how", ["layer", "function", "activation of a layer"])
def test_relu_and_sigmoid_agree_with_numpy(how: str) -> None:
    arguments = np.concatenate([-np.logspace(-3, 2, 30), [0], np.logspace(-3, 2, 30)])
    arguments = arguments.astype(np.float32)[np.newaxis]
    told = _activate("relu", how, arguments)
    assert told.tolist() == np.maximum(arguments, 0).tolist()
    expected = 1 / (1 + np.exp(-arguments.astype(np.float64)))
    told = _activate("sigmoid", how, arguments)
    np.testing.assert_allclose(told, expected, rtol=0, atol=1e-6)


def _activate(name: str, how: str, arguments: np.ndarray) -> np.ndarray:
    """Applies an activation by `Activation`, by its function, or by an identity Dense layer."""
    if how == "layer":
        call: Any = tf.keras.layers.Activation(name)
    elif how == "function":
        call = getattr(tf.keras.activations, name)
    else:
        call = tf.keras.layers.Dense(
            arguments.shape[-1], activation=name, kernel_initializer="identity"
        )
    return np.asarray(call(tf.constant(arguments)))


def _pooled(maps: np.ndarray, strides: int, padding: str) -> tuple[int, int]:
    """Returns rows and columns after pooling by 2 without padding, or with padding."""
    height, width = maps.shape[1:3]
    if padding == "same":
        return -(-height // strides), -(-width // strides)
    return height // strides, width // strides


def _lack(side: int, size: int, strides: int) -> int:
    """Returns the total padding of a side with `same`; half of it, rounded down, comes first."""
    return max((-(-side // strides) - 1) * strides + size - side, 0)


def _convolve(
    maps: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray,
    strides: int,
    padding: str,
    dilation: int,
) -> np.ndarray:
    """Computes a convolution by its definition: a sum over the kernel's positions."""
    reach = (len(kernel) - 1) * dilation + 1
    maps = maps.astype(np.float64)
    if padding == "same":
        lacks = [_lack(side, reach, strides) for side in maps.shape[1:3]]
        maps = np.pad(maps, ((0, 0), *((lack // 2, lack - lack // 2) for lack in lacks), (0, 0)))
    rows, columns = (side - reach + 1 for side in maps.shape[1:3])
    total = np.zeros((len(maps), rows, columns, kernel.shape[-1]))
    for row, column in np.ndindex(kernel.shape[:2]):
        first, left = row * dilation, column * dilation
        shifted = maps[:, first : first + rows, left : left + columns]
        total += shifted @ kernel[row, column].astype(np.float64)
    return np.asarray(total[:, ::strides, ::strides] + bias)
