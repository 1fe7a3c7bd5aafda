"""Training by either engine, from recipe, data and seed to model and history."""

from __future__ import annotations

import time
from collections.abc import Callable

import tensorflow as tf

from lenet5 import graph_engine, keras_engine
from lenet5.data import Subset
from lenet5.early_stopping import build_early_stopping, replay
from lenet5.history import Checkpoint, Epoch, History, Progress
from lenet5.model import build_for
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
    on_checkpoint: Callable[[Checkpoint], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
    resume: Checkpoint | None = None,
) -> tuple[tf.keras.Model, History]:
    """Trains LeNet-5 from new weights, or continues from a checkpoint.

    The same recipe, data, seed, engine, thread count, TensorFlow, Keras and machine give
    bit-identical weights, with any pauses.

    Args:
        recipe: settings of the training.
        training: training images, each used once per epoch.
        validation: images for early stopping and the choice of the best epoch.
        seed: seed of weights, order and dropout, 0 to `recipe.MAX_SEED`.
        engine: training engine, `keras` or `graph`.
        on_progress: called several times per second.
        on_epoch: called after each epoch.
        on_checkpoint: called with the state after each epoch.
        clock: monotonic clock, in seconds.
        resume: checkpoint of the same training, to continue from.

    Returns:
        The model with the weights of its best epoch, not compiled, and the history. If the recipe
        averages weights, the model has the averages, and these also decide about the best epoch.

    Raises:
        InputError: the engine is unknown, or the checkpoint is of another model.
        DivergenceError: the loss is not finite.
        TrainingInterrupted: Ctrl-C.
    """
    check_engine(engine)
    if resume is not None and resume.ended:
        return _ended(recipe, seed, resume)
    model, history = _TRAIN[engine](
        recipe,
        training,
        validation,
        seed,
        on_progress=on_progress,
        on_epoch=on_epoch,
        on_checkpoint=on_checkpoint,
        clock=clock,
        resume=resume,
    )
    weights = tuple(model.get_weights())
    on_checkpoint(Checkpoint(history.epochs, history.train_seconds, weights, variables=()))
    return model, history


def _ended(recipe: Recipe, seed: int, checkpoint: Checkpoint) -> tuple[tf.keras.Model, History]:
    """Returns model and history of a training that ended before its process did."""
    model = build_for(recipe, seed)
    early_stopping = build_early_stopping(recipe)
    early_stopping.set_model(model)
    early_stopping.on_train_begin()
    replay(early_stopping, model, checkpoint)
    return model, History(
        checkpoint.epochs,
        best_epoch=int(early_stopping.best_epoch) + 1,
        train_seconds=checkpoint.train_seconds,
        stopped_early=len(checkpoint.epochs) < recipe.epochs,
    )
