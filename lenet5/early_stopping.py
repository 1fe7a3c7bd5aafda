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


def restore_best_weights(callback: Any, model: tf.keras.Model, *, interrupted: bool) -> int:
    """Makes up for what Keras does not restore: an interrupted run, and on Keras 2 a whole one.

    Keras 2 restores the best weights only where patience ran out, not where the epochs did.

    Args:
        callback: made by `build_early_stopping`, after training.
        model: that was trained.
        interrupted: whether training was cut off, so that Keras never ended it.

    Returns:
        The best epoch, counted from 1; 0: none was finished.
    """
    if callback.best_weights is None:
        return 0
    if interrupted or not (callback.stopped_epoch > 0 or restores_best_weights_at_the_end()):
        model.set_weights(callback.best_weights)
    return int(callback.best_epoch) + 1
