"""LeNet-5 as a plain Keras model, after LeCun et al. 1998, section II.B.

layer                      output     parameters
input                      28x28x1
C1  convolution 5x5, tanh  24x24x6           156    (paper: 156)
S2  average pooling 2x2    12x12x6             0    (paper:  12, trainable scale and bias)
C3  convolution 5x5, tanh   8x8x16         2,416    (paper: 1,516, maps only partly connected)
S4  average pooling 2x2     4x4x16             0    (paper:  32)
    flatten                    256             0
C5  dense, tanh                120        30,840    (paper: 48,120 from 5x5x16, padded input)
    dropout                    120             0    (paper: none)
F6  dense, tanh                 84        10,164    (paper: 10,164)
    dropout                     84             0    (paper: none)
    dense, softmax              10           850    (paper: radial basis functions)
total                                     44,426
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from lenet5.recipe import DROPOUT_STREAM, STREAMS_PER_SEED, Recipe, check_seed


@dataclass(frozen=True)
class LayerSummary:
    """Properties of a layer that define its function, independent of Keras's other settings.

    Attributes:
        kind: class name.
        output_shape: shape without the batch dimension.
        activation: name of the activation function, `linear` for none.
        parameters: number of weights, trainable or not.
        l2: strength of the kernel's L2 penalty, 0 for none.
        rate: dropout rate, 0 for other layers.
    """

    kind: str
    output_shape: tuple[int, ...]
    activation: str
    parameters: int
    l2: float
    rate: float


def build_model(*, l2: float = 1e-3, dropout: float = 0.5, seed: int = 0) -> tf.keras.Model:
    """Builds LeNet-5 with new random weights.

    Maps float32 images of shape (n, 28, 28, 1) in [0, 1] to probabilities (n, 10).

    Args:
        l2: strength of the L2 penalty, l2 * sum(kernel ** 2), of every kernel except the output's.
        dropout: rate of both dropout layers.
        seed: seed of the initial weights (Glorot uniform; biases 0) and of the dropout layers, 0 to
            `recipe.MAX_SEED`.

    Returns:
        The model, not compiled.

    Raises:
        InputError: the seed is out of range.
    """
    check_seed(seed)
    layers = tf.keras.layers

    def kernel(stream: int) -> Any:
        return tf.keras.initializers.GlorotUniform(seed=seed * STREAMS_PER_SEED + stream)

    def regularizer() -> Any:
        return tf.keras.regularizers.L2(l2)

    def convolution(filters: int, stream: int) -> Any:
        return layers.Conv2D(
            filters,
            kernel_size=5,
            activation="tanh",
            kernel_initializer=kernel(stream),
            kernel_regularizer=regularizer(),
        )

    def dense(units: int, stream: int) -> Any:
        return layers.Dense(
            units,
            activation="tanh",
            kernel_initializer=kernel(stream),
            kernel_regularizer=regularizer(),
        )

    def drop(stream: int) -> Any:
        return layers.Dropout(dropout, seed=seed * STREAMS_PER_SEED + stream)

    return tf.keras.Sequential(
        [
            tf.keras.Input((28, 28, 1)),
            convolution(6, stream=0),
            layers.AveragePooling2D(pool_size=2),
            convolution(16, stream=1),
            layers.AveragePooling2D(pool_size=2),
            layers.Flatten(),
            dense(120, stream=2),
            drop(stream=DROPOUT_STREAM),
            dense(84, stream=3),
            drop(stream=DROPOUT_STREAM + 1),
            layers.Dense(10, activation="softmax", kernel_initializer=kernel(stream=4)),
        ],
        name="lenet5",
    )


def build_for(recipe: Recipe, seed: int) -> tf.keras.Model:
    """Builds the model of a recipe."""
    return build_model(l2=recipe.l2, dropout=recipe.dropout, seed=seed)


def summarise(model: tf.keras.Model) -> list[LayerSummary]:
    """Returns one summary per layer, in order, without the input layer."""
    return [
        LayerSummary(
            kind=type(layer).__name__,
            output_shape=tuple(int(side) for side in layer.output.shape[1:]),
            activation=getattr(getattr(layer, "activation", None), "__name__", "linear"),
            parameters=int(layer.count_params()),
            l2=round(float(getattr(getattr(layer, "kernel_regularizer", None), "l2", 0.0)), 9),
            rate=float(getattr(layer, "rate", 0.0)),
        )
        for layer in model.layers
        if type(layer).__name__ != "InputLayer"
    ]
