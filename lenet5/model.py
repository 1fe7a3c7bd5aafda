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
in all                                    44,426
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import tensorflow as tf

from lenet5.errors import InputError
from lenet5.recipe import STREAMS_PER_SEED, Recipe, check_seed
from lenet5.runtime import keras_version

# What a model file may consist of: anything else could run code of its own when it is loaded.
_LOADABLE = frozenset(
    [
        *("Sequential", "InputLayer", "DTypePolicy"),
        *("Conv2D", "AveragePooling2D", "Flatten", "Dense", "Dropout"),
        *("GlorotUniform", "Zeros", "L2"),
    ]
)


@dataclass(frozen=True)
class LayerSummary:
    """What of a layer decides which function it computes, whatever Keras calls the rest.

    Attributes:
        kind: class name.
        output_shape: without the batch dimension.
        activation: name of the activation function, `linear` if the layer has none.
        parameters: number of weights, trainable or not.
        l2: strength of the kernel's L2 penalty, 0 if it has none.
        rate: dropout rate, 0 for other layers.
    """

    kind: str
    output_shape: tuple[int, ...]
    activation: str
    parameters: int
    l2: float
    rate: float


def build_model(*, l2: float = 1e-3, dropout: float = 0.5, seed: int = 0) -> tf.keras.Model:
    """LeNet-5 with freshly drawn weights.

    Takes float32 images of shape (n, 28, 28, 1) in [0, 1], gives probabilities (n, 10).

    Args:
        l2: strength of the L2 penalty, l2 * sum(kernel ** 2), of every kernel but the output's.
        dropout: rate of both dropout layers.
        seed: of the initial weights (Glorot uniform; biases 0), 0 to `recipe.MAX_SEED`.

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

    return tf.keras.Sequential(
        [
            tf.keras.Input((28, 28, 1)),
            convolution(6, stream=0),
            layers.AveragePooling2D(pool_size=2),
            convolution(16, stream=1),
            layers.AveragePooling2D(pool_size=2),
            layers.Flatten(),
            dense(120, stream=2),
            layers.Dropout(dropout),
            dense(84, stream=3),
            layers.Dropout(dropout),
            layers.Dense(10, activation="softmax", kernel_initializer=kernel(stream=4)),
        ],
        name="lenet5",
    )


def build_for(recipe: Recipe, seed: int) -> tf.keras.Model:
    """The model that a recipe trains."""
    return build_model(l2=recipe.l2, dropout=recipe.dropout, seed=seed)


def summarise(model: tf.keras.Model) -> list[LayerSummary]:
    """One summary per layer, in order, without the input layer."""
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


def load_model(path: Path, recipe: Recipe) -> tf.keras.Model:
    """Reads a saved model without running any code from the file.

    Args:
        path: a `.keras` file.
        recipe: that it was trained with.

    Returns:
        The model, not compiled.

    Raises:
        InputError: the file is missing, damaged, from a Keras that this one cannot read, holds
            anything but layers of LeNet-5, or is not the model that the recipe describes.
    """
    written_by = _check_archive(path)
    try:
        model = tf.keras.models.load_model(str(path), compile=False, safe_mode=True)
    except Exception as error:
        if written_by != keras_version():
            raise InputError(
                f"{path}: written by Keras {written_by}, which Keras {keras_version()} cannot read"
            ) from error
        raise InputError(f"{path}: the model is damaged: {type(error).__name__}") from error
    if summarise(model) != summarise(build_for(recipe, seed=0)):
        raise InputError(f"{path}: not the model that its recipe {recipe.name!r} describes")
    return model


def _check_archive(path: Path) -> str:
    """Looks into a `.keras` file before Keras does, and returns the version that wrote it."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    with file:
        # HDF5 under this name is read by Keras 2 as a format that has no safe mode.
        if file.read(4) == b"\x89HDF":
            raise InputError(
                f"{path}: HDF5, which Keras before 2.13 writes; "
                f"Keras {keras_version()} here reads only the zip format"
            )
        try:
            written_by, names = _read_archive(file)
        except Exception:  # zipfile, zlib and json raise a dozen kinds
            raise InputError(f"{path}: not a whole Keras model file") from None
    for name in names:
        if name not in _LOADABLE:
            raise InputError(f"{path}: refused, a LeNet-5 has no {name!r}")
    return written_by


def _read_archive(file: IO[bytes]) -> tuple[str, list[str]]:
    """The version that wrote a `.keras` file, and the classes that it names."""
    with zipfile.ZipFile(file) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile
        config = json.loads(archive.read("config.json"))
        metadata = json.loads(archive.read("metadata.json"))
    return str(metadata["keras_version"]), _objects_named(config)


def _objects_named(config: Any) -> list[str]:
    """The classes that a Keras configuration would make, at any depth."""
    if isinstance(config, list):
        return [name for item in config for name in _objects_named(item)]
    if not isinstance(config, dict):
        return []
    names = [str(config["class_name"])] if "class_name" in config else []
    # Keras imports what `module` names, whatever the class is called.
    module = config.get("module") or "keras"
    if str(module).split(".")[0] not in ("keras", "builtins", "tf_keras"):
        names.append(str(module))
    return names + [name for value in config.values() for name in _objects_named(value)]
