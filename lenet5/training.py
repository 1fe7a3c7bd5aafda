"""Training by either engine, from recipe, data and seed to model and history."""

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
    """Trains LeNet-5 from new weights.

    The same recipe, data, seed, engine, thread count, TensorFlow, Keras and machine give
    bit-identical weights.

    Args:
        recipe: settings of the training.
        training: training images, each used once per epoch.
        validation: images for early stopping and the choice of the best epoch.
        seed: seed of weights, order and dropout, 0 to `recipe.MAX_SEED`.
        engine: training engine, `keras` or `graph`.
        on_progress: called several times per second.
        on_epoch: called after each epoch.
        clock: monotonic clock, in seconds.

    Returns:
        The model with the weights of its best epoch, not compiled, and the history. If the recipe
        averages weights, the model has the averages, and these also decide about the best epoch.

    Raises:
        InputError: the engine is unknown.
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
