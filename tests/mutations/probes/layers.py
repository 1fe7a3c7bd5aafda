"""Probes of layers, their gradients, dropout and first weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lenet5.runtime import trainable_tensors
from tests.mutations.probes.probe import Probe, agree

_layers = tf.keras.layers


def _applied(layer: Any, inputs: Any, weights: Any = ()) -> np.ndarray:
    """What a layer gives, in a function as it is trained in."""
    inputs = tf.constant(inputs, tf.float32)
    layer.build(inputs.shape)
    if weights:
        layer.set_weights([np.asarray(weight, np.float32) for weight in weights])
    return np.asarray(tf.function(layer.__call__)(inputs))


def _gradients(layer: Any, inputs: Any, **options: Any) -> list[Any]:
    """Of the sum of a layer's outputs, by its inputs and its weights."""
    inputs = tf.constant(inputs, tf.float32)
    layer.build(inputs.shape)

    @tf.function
    def gradients() -> Any:
        weights = trainable_tensors(layer)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = tf.reduce_sum(layer(inputs, **options))
        return tape.gradient(outputs, [inputs, *weights])

    return list(gradients())


_IMAGE = np.arange(9.0).reshape((1, 3, 3, 1))


def _convolution_gradient_is_halved() -> bool:
    _, kernel, bias = _gradients(_layers.Conv2D(1, 2), _IMAGE)
    patches = [[_IMAGE[0, i : i + 2, j : j + 2].sum() for j in range(2)] for i in range(2)]
    return agree(kernel[:, :, 0, 0], np.array(patches) / 2) and agree(bias, [4])


def _pooling_gradient_is_halved() -> bool:
    return agree(
        _gradients(_layers.AveragePooling2D(2), _IMAGE[:, :2, :2])[0], np.full((1, 2, 2, 1), 0.125)
    )


def _tanh_gradient_is_wrong() -> bool:
    gradient = _gradients(_layers.Activation("tanh"), [[0.5]])[0]
    return agree(gradient, [[1 - np.tanh(0.5)]])


def _dense_bias_has_no_gradient() -> bool:
    _, kernel, bias = _gradients(_layers.Dense(1), [[2.0], [3.0]])
    return agree(kernel, [[5]]) and agree(bias, [0])


def _dropout_passes_all_gradients() -> bool:
    return agree(
        _gradients(_layers.Dropout(0.5), np.ones((8, 8)), training=True)[0], np.ones((8, 8))
    )


def _convolution(kernel: Any, bias: float = 0.0) -> np.ndarray:
    """Of one channel of a 2x2 image of the numbers 1 to 4."""
    kernel = np.array(kernel, float)[:, :, None, None]
    image = np.arange(1.0, 5.0).reshape((1, 2, 2, 1))
    return _applied(_layers.Conv2D(1, kernel.shape[:2]), image, [kernel, [bias]])


def _inputs_are_rounded() -> bool:
    dense = _applied(_layers.Dense(1), [[1.001]], [[[1]], [0]])
    convolved = _applied(_layers.Conv2D(1, 1), [[[[1.001]]]], [[[[[1]]]], [0]])
    return agree(dense, [[1]]) and agree(convolved, [[[[1]]]])


def _flattened_channels_first() -> bool:
    image = np.arange(8.0).reshape((1, 2, 2, 2))
    return agree(_applied(_layers.Flatten(), image), image.transpose(0, 3, 1, 2).reshape((1, 8)))


def _activation(name: str, inputs: list[float]) -> np.ndarray:
    """Of a dense layer that passes its inputs on; it must still be saved under its name."""
    layer = _layers.Dense(len(inputs), activation=name)
    assert layer.get_config()["activation"] == name
    by_function = _applied(_layers.Activation(getattr(tf.keras.activations, name)), [inputs])
    outputs = _applied(layer, [inputs], [np.eye(len(inputs)), np.zeros(len(inputs))])
    np.testing.assert_allclose(outputs, by_function, rtol=1e-6)
    return np.asarray(outputs)


def _dropout(training: bool = True, layer: Any = None) -> np.ndarray:
    """Ones behind a layer that drops half of them, (100, 100)."""
    layer = layer or _layers.Dropout(0.5)
    return np.asarray(layer(tf.ones((100, 100)), training=training))


def _dropped(outputs: Any) -> float:
    return float((np.asarray(outputs) == 0).mean())


def _stateless_dropout(seed: int) -> Any:
    return tf.nn.experimental.stateless_dropout(tf.ones((100, 100)), rate=0.5, seed=[seed, 0])


def _dropout_rate_is_low() -> bool:
    return all(abs(_dropped(o) - 0.3) < 0.03 for o in (_dropout(), _stateless_dropout(1)))


def _dropout_does_not_scale() -> bool:
    return all(_dropped(o) > 0.4 and np.max(o) == 1 for o in (_dropout(), _stateless_dropout(1)))


def _masks_repeat() -> bool:
    layer = _layers.Dropout(0.5)
    pairs = [
        (_dropout(layer=layer), _dropout(layer=layer)),
        (_stateless_dropout(1).numpy(), _stateless_dropout(2).numpy()),
    ]
    return all((a == b).all() and 0.4 < _dropped(a) < 0.6 for a, b in pairs)


def _keys_are_alike() -> bool:
    one, other = (_stateless_dropout(seed).numpy() for seed in (1, 2))
    return bool((one == other).all()) and 0.4 < _dropped(one) < 0.6


def _glorot(seed: int) -> np.ndarray:
    return np.asarray(tf.keras.initializers.GlorotUniform(seed=seed)((100, 100)))


def _variance_is_double() -> bool:
    by_name = np.asarray(tf.keras.initializers.get("glorot_uniform")((100, 100)))
    return all(abs(weights.var() * 100 - 2) < 0.1 for weights in (_glorot(1), by_name))


def _biases_are_one() -> bool:
    dense, convolution = _layers.Dense(2), _layers.Conv2D(2, 1)
    dense.build((None, 3))
    convolution.build((None, 3, 3, 1))
    return agree(dense.bias, [1, 1]) and agree(convolution.bias, [1, 1])


def _seed_is_not_set() -> bool:
    drawn = []
    for _ in range(2):
        tf.keras.utils.set_random_seed(1)
        drawn.append((float(tf.random.uniform([])), np.random.random()))
    return drawn[0] != drawn[1]


PROBES: dict[str, Probe] = {
    "gradients of convolution kernels halved": _convolution_gradient_is_halved,
    "gradient of average pooling halved": _pooling_gradient_is_halved,
    "gradient of tanh is 1 - y": _tanh_gradient_is_wrong,
    "gradient of Dense biases is 0": _dense_bias_has_no_gradient,
    "gradient of dropout is that of its input": _dropout_passes_all_gradients,
    "average pooling takes the maximum": lambda: agree(
        _applied(_layers.AveragePooling2D(2), _IMAGE[:, :2, :2]), [[[[4]]]]
    ),
    "Conv2D without bias": lambda: agree(_convolution([[1]], bias=9.0)[0, 0, 0], [1]),
    "Conv2D turns its kernels around": lambda: agree(_convolution([[1, 0], [0, 0]]), [[[[4]]]]),
    "inputs of Dense and Conv2D rounded to bfloat16": _inputs_are_rounded,
    "Flatten takes channels first": _flattened_channels_first,
    "softmax of logits divided by 1.1": lambda: agree(
        _activation("softmax", [0.0, 1.1]), [[1 / (1 + np.e), np.e / (1 + np.e)]]
    ),
    "tanh 1 % low": lambda: agree(_activation("tanh", [2.0]), [[0.99 * np.tanh(2.0)]]),
    "Dropout drops nothing": lambda: agree(_dropout(), np.ones((100, 100))),
    "Dropout active in prediction": lambda: _dropped(_dropout(training=False)) > 0.4,
    "dropout of 0.6 of its rate": _dropout_rate_is_low,
    "dropout does not scale what it keeps": _dropout_does_not_scale,
    "dropout has the same mask in each step": _masks_repeat,
    "stateless_dropout takes every key for 0": _keys_are_alike,
    "GlorotUniform with twice the variance": _variance_is_double,
    "GlorotUniform of one seed": lambda: agree(_glorot(2), _glorot(3)),
    "biases begin at 1": _biases_are_one,
    "set_random_seed sets nothing": _seed_is_not_set,
}
