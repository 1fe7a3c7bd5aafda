"""What is timed: each function makes a call that does its work and waits until it is done.

Warm-up is the caller's business: the first call of each traces its graph and fills its caches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from lenet5.data import Subset, normalise
from lenet5.model import build_for
from lenet5.recipe import find_recipe
from lenet5.steps import build_step_loop, epoch_order

_SEED = 0


def train_loop(subset: Subset, batch_size: int) -> Callable[[], None]:
    """One epoch over the subset in this project's loop inside the graph, in one call."""
    recipe = find_recipe("original").with_overrides({"batch_size": batch_size})
    model = build_for(recipe, _SEED)
    images, labels = normalise(subset.images), subset.labels.astype(np.int32)
    run_steps = build_step_loop(model, recipe, images, labels, _SEED)
    steps = math.ceil(len(labels) / batch_size)
    order = epoch_order(len(labels), _SEED, epoch=1)
    rates = recipe.learning_rates(steps)

    def epoch() -> None:
        losses, _ = run_steps(order, rates, 0, steps)
        _check_finite(losses.mean())

    return epoch


def train_fit(subset: Subset, batch_size: int) -> Callable[[], None]:
    """One epoch over the subset in Keras's `fit`, given arrays."""
    model = _compiled()
    images, labels = normalise(subset.images), subset.labels.astype(np.int64)

    def epoch() -> None:
        history = model.fit(images, labels, batch_size=batch_size, epochs=1, verbose=0)
        _check_finite(history.history["loss"][0])

    return epoch


def train_original(subset: Subset, batch_size: int) -> Callable[[], None]:
    """One epoch over the subset as the original project trains: its tf.data chain into `fit`.

    map, cache, shuffle over all images, batch, prefetch; the first call fills the cache.
    """
    model = _compiled()
    images = tf.data.Dataset.from_tensor_slices((subset.images, subset.labels.astype(np.int64)))

    def normalise_image(image: Any, label: Any) -> tuple[Any, Any]:
        return tf.cast(image, tf.float32) / 255.0, label

    pipeline = (
        images.map(normalise_image, num_parallel_calls=tf.data.AUTOTUNE)
        .cache()
        .shuffle(len(subset.labels))
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )

    def epoch() -> None:
        history = model.fit(pipeline, epochs=1, verbose=0, shuffle=False)  # the chain shuffles
        _check_finite(history.history["loss"][0])

    return epoch


def predict(subset: Subset, batch_size: int, calls: int) -> Callable[[], None]:
    """Calls of `model.predict`, each on an equal share of the subset's images."""
    model = build_for(find_recipe("original"), _SEED)
    shares = np.split(normalise(subset.images), calls)

    def answer() -> None:
        for share in shares:
            probabilities = model.predict(share, batch_size=batch_size, verbose=0)
            _check_finite(probabilities.sum())

    return answer


def first_images(subset: Subset, count: int) -> Subset:
    """The first `count` images of a subset."""
    return Subset(subset.images[:count], subset.labels[:count])


def _compiled() -> tf.keras.Model:
    recipe = find_recipe("original")
    model = build_for(recipe, _SEED)
    optimizer = tf.keras.optimizers.Adam(recipe.learning_rate)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _check_finite(value: float) -> None:
    """A fast step that computes nonsense is no measurement."""
    if not math.isfinite(value):
        raise ArithmeticError(f"the timed work gave {value}")
