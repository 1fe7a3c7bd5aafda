"""Probes of Adam, of weight averages and of schedules."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lenet5.runtime import keras_version
from tests.mutations.probes.probe import Probe, agree

_layers = tf.keras.layers
_optimizers = tf.keras.optimizers
_schedules = tf.keras.optimizers.schedules
_GRADIENTS = (1e-3, -2e-3, 4e-3)


def _adam(gradients: tuple[float, ...] = _GRADIENTS) -> np.ndarray:
    """By how much steps of Adam move a kernel of ones."""
    optimiser = _optimizers.Adam(0.1)
    kernel = tf.Variable([[1.0]])
    moved = [1.0]
    for gradient in gradients:
        optimiser.apply_gradients([(tf.constant([[gradient]]), kernel)])
        moved.append(float(kernel[0, 0]))
    return np.diff(moved)


def _numpy_adam(
    rate: float = 0.1,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    corrects: bool = True,
) -> np.ndarray:
    mean = square = 0.0
    moved = []
    for step, gradient in enumerate(_GRADIENTS, start=1):
        mean += (1 - beta_1) * (gradient - mean)
        square += (1 - beta_2) * (gradient**2 - square)
        correction = np.sqrt(1 - beta_2**step) / (1 - beta_1**step) if corrects else 1.0
        moved.append(-rate * correction * mean / (np.sqrt(square) + epsilon))
    return np.array(moved)


def _adam_moves(**broken: Any) -> Probe:
    return lambda: agree(_adam(), _numpy_adam(**broken), 1e-4)


def _large_gradients_are_clipped() -> bool:
    return agree(_adam((1000.0, 5.0)), _adam((10.0, 5.0)), 1e-4)


def _bias_stays() -> bool:
    optimiser = _optimizers.Adam(0.1)
    bias = tf.Variable([1.0, 1.0])
    optimiser.apply_gradients([(tf.constant([1.0, 2.0]), bias)])
    return agree(bias, [1, 1])


def _fused_adam_is_slow() -> bool:
    weight, mean, square = (tf.Variable(value) for value in (1.0, 0.0, 0.0))
    tf.raw_ops.ResourceApplyAdam(
        var=weight.handle,
        m=mean.handle,
        v=square.handle,
        beta1_power=0.9,
        beta2_power=0.999,
        lr=0.1,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-7,
        grad=tf.constant(1.0),
    )
    return agree(weight, 0.99)


def _averages_with(broken: float) -> Probe:
    """Of the weights 9, 7, 4 that follow on 10, with a momentum of 0.95 that is broken."""

    def probe() -> bool:
        optimiser = _optimizers.SGD(1.0, use_ema=True, ema_momentum=0.95)
        weight = tf.Variable([10.0])
        for gradient in (1.0, 2.0, 3.0):
            optimiser.apply_gradients([(tf.constant([gradient]), weight)])
        optimiser.finalize_variable_values([weight])
        # Keras 2 begins with the first weights, Keras 3 with those of the first step.
        expected = 10.0 if keras_version().startswith("2.") else 9.0
        for value in (9.0, 7.0, 4.0):
            expected = broken * expected + (1 - broken) * value
        return agree(weight, [expected])

    return probe


def _rates(schedule: Any) -> np.ndarray:
    """Learning rates of three steps."""
    optimiser = _optimizers.SGD(schedule)
    weight = tf.Variable(0.0)
    values = [0.0]
    for _ in range(3):
        optimiser.apply_gradients([(tf.constant(1.0), weight)])
        values.append(float(weight))
    return -np.diff(values)


def _rates_are(*broken: float) -> Probe:
    """Of a schedule that falls by a tenth of the first rate a step."""
    return lambda: agree(_rates(_schedules.PolynomialDecay(1.0, 10, 0.0)), broken)


def _rate_falls_once_an_epoch() -> bool:
    """Two epochs of two steps, each with a gradient of 1."""
    model = tf.keras.Sequential(
        [tf.keras.Input((1,)), _layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    model.compile(
        _optimizers.SGD(_schedules.PolynomialDecay(1.0, 10, 0.0)),
        loss=lambda _, predicted: tf.reduce_mean(predicted),
    )
    model.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=2, epochs=2, verbose=0)
    return agree(model.get_weights()[0], [[-(1.0 + 1.0 + 0.8 + 0.8)]])


def _cosine_is_slow() -> bool:
    expected = [0.5 * (1 + np.cos(np.pi * step / 20)) for step in range(3)]
    return agree(_rates(_schedules.CosineDecay(1.0, 10)), expected)


PROBES: dict[str, Probe] = {
    "Adam with a tenth of its rate": _adam_moves(rate=0.01),
    "Adam without bias correction": _adam_moves(corrects=False),
    "Adam with epsilon 1e-3": _adam_moves(epsilon=1e-3),
    "Adam with beta_2 0.9": _adam_moves(beta_2=0.9),
    "Adam without momentum": _adam_moves(beta_1=0.0),
    "Adam skips biases": _bias_stays,
    "Adam clips gradients at a norm of 10": _large_gradients_are_clipped,
    "fused Adam with a tenth of its rate": _fused_adam_is_slow,
    "weights not averaged": _averages_with(0.0),
    "weights averaged over a tenth of the steps": _averages_with(0.5),
    "schedules one step late": _rates_are(1.0, 1.0, 0.9),
    "schedules stay at their first rate": _rates_are(1.0, 1.0, 1.0),
    "schedules read once an epoch": _rate_falls_once_an_epoch,
    "PolynomialDecay takes twice its steps": _rates_are(1.0, 0.95, 0.9),
    "CosineDecay takes twice its steps": _cosine_is_slow,
}
