"""Training: a recipe, data and a seed in, a trained model and its history out."""

from __future__ import annotations

import time
from collections.abc import Callable

import tensorflow as tf

from lenet5 import graph_engine, keras_engine
from lenet5.data import Subset
from lenet5.history import Epoch, History, Progress
from lenet5.recipe import DEFAULT_ENGINE, Recipe, check_engine

_TRAIN = {"keras": keras_engine.train, "graph": graph_engine.train}


def train(
    recipe: Recipe,
    training: Subset,
    validation: Subset,
    seed: int,
    *,
    engine: str = DEFAULT_ENGINE,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[tf.keras.Model, History]:
    """Trains LeNet-5 from fresh weights.

    The same recipe, data, seed, engine, thread count, TensorFlow, Keras and machine give
    bit-identical weights.

    Args:
        recipe: how.
        training: images that the weights are fitted to, each once an epoch.
        validation: images that early stopping and the choice of the best epoch see.
        seed: of weights, order and dropout, 0 to `recipe.MAX_SEED`.
        engine: `keras` or `graph`: what trains.
        on_progress: called several times a second.
        on_epoch: called after each epoch.
        clock: seconds, monotonic.

    Returns:
        The model with the weights of its best epoch (their moving average, if the recipe has
        one, by which epochs are judged too), not compiled, and the history.

    Raises:
        InputError: there is no such engine.
        DivergenceError: the loss is not finite.
        TrainingInterrupted: Ctrl-C.
    """
    check_engine(engine)
    return _TRAIN[engine](
        recipe,
        training,
        validation,
        seed,
        on_progress=on_progress,
        on_epoch=on_epoch,
        clock=clock,
    )
