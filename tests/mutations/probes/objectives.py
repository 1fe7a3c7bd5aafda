"""Probes of losses, metrics and regularisers."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tests.mutations.probes.probe import Probe, agree

_layers = tf.keras.layers
_optimizers = tf.keras.optimizers


_PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]], np.float32)
_ONE_HOT = np.eye(3, dtype=np.float32)[[0, 2]]
_ENTROPIES = -np.log([0.7, 0.1])


def _penalty_is_not_trained_on() -> bool:
    """A weight of 1 that nothing but its penalty would move."""
    kernel = _layers.Dense(
        1, use_bias=False, kernel_initializer="ones", kernel_regularizer=tf.keras.regularizers.L2(1)
    )
    model = tf.keras.Sequential([tf.keras.Input((1,)), kernel])
    model.compile(_optimizers.SGD(0.1), loss=lambda _, outputs: 0 * tf.reduce_mean(outputs))
    model.fit(np.ones((2, 1)), np.ones((2, 1)), verbose=0)
    return agree(model.get_weights()[0], [[1]])


def _passing_on(loss: Any = "sparse_categorical_crossentropy") -> Any:
    """A model that gives its inputs as probabilities, compiled."""
    model = tf.keras.Sequential([tf.keras.Input((3,)), _layers.Activation("linear")])
    model.compile("sgd", loss=loss, metrics=["accuracy"])
    return model


def _loss_is_summed() -> bool:
    loss = tf.keras.losses.SparseCategoricalCrossentropy()
    by_name = _passing_on().evaluate(_PROBABILITIES, np.array([0, 2]), verbose=0)[0]
    return agree([loss(np.array([0, 2]), _PROBABILITIES), by_name], [_ENTROPIES.sum()] * 2)


def _smoothing_is(broken: float) -> Probe:
    def probe() -> bool:
        losses = tf.keras.losses
        smoothed = (1 - broken) * _ENTROPIES - broken * np.log(_PROBABILITIES).mean(axis=1)
        function = losses.categorical_crossentropy(_ONE_HOT, _PROBABILITIES, label_smoothing=0.2)
        loss = losses.CategoricalCrossentropy(label_smoothing=0.2)(_ONE_HOT, _PROBABILITIES)
        return agree(function, smoothed) and agree(loss, smoothed.mean())

    return probe


def _probabilities_are_taken_for_logits() -> bool:
    losses = tf.keras.losses
    expected = np.log(np.exp(_PROBABILITIES).sum(axis=1)) - [0.7, 0.1]
    sparse = losses.sparse_categorical_crossentropy(np.array([0, 2]), _PROBABILITIES)
    dense = losses.CategoricalCrossentropy()(_ONE_HOT, _PROBABILITIES)
    return agree(sparse, expected) and agree(dense, expected.mean())


def _figures(*batches: list[int]) -> list[Any]:
    """Loss and accuracy of three images, of which the second alone is classified wrong.

    Args:
        batches: places of the images that each evaluation sees, two to a batch.

    Returns:
        What the last evaluation tells.
    """
    model = _passing_on()
    probabilities, labels = _PROBABILITIES[[0, 1, 0]], np.array([0, 2, 0])
    for batch in batches:
        told = model.evaluate(probabilities[batch], labels[batch], batch_size=2, verbose=0)
    return list(told)


def _figure_is(place: int, broken: float, *batches: list[int]) -> Probe:
    return lambda: agree(_figures(*batches)[place], broken)


def _penalties_are(broken: float) -> Probe:
    def probe() -> bool:
        by_name = tf.keras.regularizers.get("l2")
        ratio = float(by_name(tf.constant([1.0, 2.0]))) / float(by_name.l2)
        penalty = tf.keras.regularizers.L2(0.5)(tf.constant([1.0, 2.0]))
        return agree(penalty, 0.5 * broken) and agree(ratio, broken, 1e-4)

    return probe


PROBES: dict[str, Probe] = {
    "regularisation losses left out of training": _penalty_is_not_trained_on,
    "cross-entropy summed over the batch": _loss_is_summed,
    "label smoothing ignored": _smoothing_is(0.0),
    "label smoothing doubled": _smoothing_is(0.4),
    "cross-entropy takes probabilities for logits": _probabilities_are_taken_for_logits,
    "accuracy of the last batch only": _figure_is(1, 1.0, [0, 1, 2]),
    "accuracy counts a small batch as a full one": _figure_is(1, 0.75, [0, 1, 2]),
    "loss counts a small batch as a full one": _figure_is(
        0, (_ENTROPIES.mean() + _ENTROPIES[0]) / 2, [0, 1, 2]
    ),
    "metrics not reset between epochs": _figure_is(1, 0.5, [1], [0]),
    "L2 halved": _penalties_are(2.5),
    "L2 is L1": _penalties_are(3.0),
}
