"""Loading of saved models for scoring, without running code from the file."""

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
_ROUNDING = 1e-2  # tolerance for a sum of probabilities in half precision
_LEAST_SCALE = 1e-2  # for pixels in [0, 1]; 1/255 and 1/127.5 imply pixels up to 255


def load_model(path: Path, recipe: Recipe | None = None) -> tf.keras.Model:
    """Loads a saved model without running code from the file.

    Ignores the compile settings, since they may be arbitrary objects. Ignores activity regularisers
    as well: they matter only in training steps.

    Args:
        path: `.keras` file.
        recipe: recipe of the model; None: unknown, accepts any model of Keras's own layers from
            float32 images (n, 28, 28, 1) to probabilities (n, 10).

    Returns:
        The model, not compiled.

    Raises:
        InputError: the file is missing, damaged, unreadable for this Keras, possibly able to run
            code, or not the recipe's model. Without a recipe: input or output do not fit.
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
    if type(model).__name__ != "Sequential":  # otherwise a summary does not show connections
        return False
    try:
        found = summarise(model)
    except (AttributeError, RuntimeError, TypeError, ValueError):  # no single, fixed output shape
        return False
    return found == summarise(build_for(recipe, seed=0))


def _shape_complaint(model: tf.keras.Model) -> str | None:
    """Returns an error message if the model's inputs or outputs do not fit, else None."""
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
    """Returns an error message if the model's output for noise is invalid, else None."""
    images = np.random.RandomState(0).uniform(size=(8, *_IMAGE)).astype(np.float32)
    try:
        answers = np.asarray(model(images, training=False), dtype=np.float64)
    except Exception as error:  # layers with matching shapes may still fail
        return f"cannot be evaluated: {type(error).__name__}"
    if not np.isfinite(answers).all():
        return "gives NaN or infinity: its weights are damaged, or its training diverged"
    if answers.min() < 0 or abs(answers.sum(axis=1) - 1).max() > _ROUNDING:
        return "gives no probabilities: its answers do not sum to 1, is the softmax missing?"
    return None


def _layers(model: tf.keras.Model) -> Iterator[Any]:
    """Yields every layer, including the layers of nested models."""
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)


def _shapes(model: tf.keras.Model, side: str) -> list[tuple[int | None, ...]]:
    """Returns the shapes of inputs or outputs without batch dimension; empty if never built."""
    try:
        return [tuple(tensor.shape)[1:] for tensor in getattr(model, side) or ()]
    except (AttributeError, ValueError):  # the type depends on the Keras 3 version
        return []


def _fits(shape: tuple[int | None, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        side in (None, expected) for side, expected in zip(shape, wanted, strict=True)
    )


def _named(shapes: list[tuple[int | None, ...]]) -> str:
    return " and ".join(map(str, shapes)) or "unknown"
