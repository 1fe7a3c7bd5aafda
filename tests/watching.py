"""A layer that tells from within what `fit` does, and a model's weights as a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


class Watch(tf.keras.layers.Layer):  # type: ignore[misc]  # TensorFlow has no types
    """Hands on what it is given, and tells of every batch when it goes through the graph.

    It tells whether the batch is trained on, and its values.
    """

    def __init__(self, tell: Callable[[bool, np.ndarray], object]) -> None:
        super().__init__()
        self.tell = tell

    def call(self, inputs: Any, training: Any = False) -> Any:
        def told(values: np.ndarray) -> np.ndarray:
            self.tell(bool(training), np.array(values))
            return np.array(0, np.int32)

        with tf.control_dependencies([tf.numpy_function(told, [inputs], tf.int32)]):
            return tf.identity(inputs)


class Tape:
    """What `Watch` layers told.

    Attributes:
        trained: the batches of training, in order.
        tested: those of validation, evaluation and prediction.
    """

    def __init__(self) -> None:
        self.trained: list[np.ndarray] = []
        self.tested: list[np.ndarray] = []

    def layer(self) -> Watch:
        """A new layer that is recorded."""
        return Watch(
            lambda training, rows: (self.trained if training else self.tested).append(rows)
        )

    def clear(self) -> None:
        """Forgets all batches."""
        self.trained.clear()
        self.tested.clear()


def bits(model: tf.keras.Model) -> str:
    """SHA-256 of a model's weights, in order."""
    return hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()
