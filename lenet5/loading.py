"""A saved model: read without running any code from its file, and one that can be scored."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lenet5.data import CLASSES
from lenet5.errors import InputError
from lenet5.model import build_for, summarise
from lenet5.recipe import Recipe
from lenet5.runtime import keras_version
from lenet5.saved_model import checked_copy

_IMAGE = (28, 28, 1)
_ROUNDING = 1e-2  # of a sum of probabilities, in half precision
_LEAST_SCALE = 1e-2  # of pixels in [0, 1]; 1/255 and 1/127.5 are of those up to 255


def load_model(path: Path, recipe: Recipe | None = None) -> tf.keras.Model:
    """Reads a saved model without running any code from the file.

    What the model was compiled with is left out, since it may be anything. So are penalties of
    activations: they have a value in a training step only.

    Args:
        path: a `.keras` file.
        recipe: that it was trained with; None: not known, any model of Keras's own layers will do
            that takes float32 images (n, 28, 28, 1) and gives probabilities (n, 10).

    Returns:
        The model, not compiled.

    Raises:
        InputError: the file is missing, damaged, from a Keras that this one cannot read, holds
            anything that might run code, or is not the model that the recipe describes; without a
            recipe, the model takes or gives something else.
    """
    with tempfile.TemporaryDirectory(prefix="lenet5-") as folder:
        copy = checked_copy(path, Path(folder))
        try:
            model = tf.keras.models.load_model(str(copy.path), compile=False, safe_mode=True)
        except Exception as error:
            if copy.written_by != keras_version():
                raise InputError(
                    f"{path}: written by Keras {copy.written_by}, "
                    f"which Keras {keras_version()} cannot read"
                ) from error
            raise InputError(f"{path}: the model is damaged: {type(error).__name__}") from error
    if recipe is None:
        complaint = _shape_complaint(model) or _answer_complaint(model)
        if complaint:
            raise InputError(f"{path}: {complaint}")
    elif not _is_model_of(recipe, model):
        raise InputError(f"{path}: not the model that its recipe {recipe.name!r} describes")
    return model


def _is_model_of(recipe: Recipe, model: tf.keras.Model) -> bool:
    if type(model).__name__ != "Sequential":  # a summary does not tell what goes where
        return False
    try:
        found = summarise(model)
    except (AttributeError, RuntimeError, TypeError, ValueError):  # no single, fixed output shape
        return False
    return found == summarise(build_for(recipe, seed=0))


def _shape_complaint(model: tf.keras.Model) -> str | None:
    """Why the model cannot be scored, by what it takes and gives."""
    takes, gives = _shapes(model, "inputs"), _shapes(model, "outputs")
    if len(takes) != 1 or not _fits(takes[0], _IMAGE):
        return f"takes images of shape {_named(takes)}, a LeNet-5 takes {_IMAGE}"
    dtype = tf.as_dtype(model.inputs[0].dtype)
    if not dtype.is_floating:
        return f"takes images as {dtype.name}, a LeNet-5 takes float32 in [0, 1]"
    rescaling = [layer for layer in _layers(model) if type(layer).__name__ == "Rescaling"]
    if any(np.max(np.abs(layer.scale)) < _LEAST_SCALE for layer in rescaling):
        return "takes pixels from 0 to 255, which it rescales; a LeNet-5 takes float32 in [0, 1]"
    if gives != [(CLASSES,)]:
        return f"gives values of shape {_named(gives)}, a LeNet-5 gives ({CLASSES},)"
    return None


def _answer_complaint(model: tf.keras.Model) -> str | None:
    """Why the model cannot be scored, by what it answers to a few images of noise."""
    images = np.random.RandomState(0).uniform(size=(8, *_IMAGE)).astype(np.float32)
    try:
        answers = np.asarray(model(images, training=False), dtype=np.float64)
    except Exception as error:  # layers that fit in shape, but not in what they compute
        return f"cannot be evaluated: {type(error).__name__}"
    if not np.isfinite(answers).all():
        return "gives NaN or infinity: its weights are damaged, or its training diverged"
    if answers.min() < 0 or abs(answers.sum(axis=1) - 1).max() > _ROUNDING:
        return "gives no probabilities: its answers do not sum to 1, is the softmax missing?"
    return None


def _layers(model: tf.keras.Model) -> Iterator[Any]:
    """Every layer, those of a model within the model too."""
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)


def _shapes(model: tf.keras.Model, side: str) -> list[tuple[int | None, ...]]:
    """Of its inputs or outputs, without the batch dimension; none if it was never built."""
    try:
        return [tuple(tensor.shape)[1:] for tensor in getattr(model, side) or ()]
    except (AttributeError, ValueError):  # some Keras 3 raise the one, some the other
        return []


def _fits(shape: tuple[int | None, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        side in (None, expected) for side, expected in zip(shape, wanted, strict=True)
    )


def _named(shapes: list[tuple[int | None, ...]]) -> str:
    return " and ".join(map(str, shapes)) or "unknown"
