"""Early stopping: Keras's own callback, which both engines drive."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lenet5.recipe import Recipe
from lenet5.runtime import restores_best_weights_at_the_end


def build_early_stopping(recipe: Recipe) -> Any:
    """`EarlyStopping` on the validation loss, which keeps the weights of the best epoch.

    A recipe without patience gets one that never runs out: its best weights are wanted as well.
    """
    return tf.keras.callbacks.EarlyStopping(
        monitor="val_loss",
        mode="min",
        patience=recipe.epochs if recipe.patience is None else recipe.patience,
        restore_best_weights=True,
    )


def restore_best_weights(
    callback: Any, model: tf.keras.Model, *, interrupted: bool, averaged: bool = False
) -> int:
    """Makes up for what Keras does not restore: an interrupted run, and on Keras 2 a whole one.

    Keras 2 restores the best weights where patience runs out, and not where the epochs do; and
    `fit` then writes the optimiser's weight averages over them.

    Args:
        callback: made by `build_early_stopping`, after training.
        model: that was trained.
        interrupted: whether training was cut off, so that Keras never ended it.
        averaged: whether `fit` ended with weight averages.

    Returns:
        The best epoch, counted from 1; 0: none was finished.
    """
    if callback.best_weights is None:
        return 0
    restored = restores_best_weights_at_the_end() or (callback.stopped_epoch > 0 and not averaged)
    if interrupted or not restored:
        model.set_weights(callback.best_weights)
    return int(callback.best_epoch) + 1
