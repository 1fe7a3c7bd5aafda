"""Early stopping by Keras's own callback, for both engines."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lenet5.errors import InputError
from lenet5.history import Checkpoint
from lenet5.recipe import Recipe
from lenet5.runtime import restores_best_weights_at_the_end


def build_early_stopping(recipe: Recipe) -> Any:
    """Builds `EarlyStopping` on the validation loss; it keeps the weights of the best epoch.

    Without patience in the recipe, the patience is all epochs: the best weights are kept as well.
    """
    return tf.keras.callbacks.EarlyStopping(
        monitor="val_loss",
        mode="min",
        patience=recipe.epochs if recipe.patience is None else recipe.patience,
        restore_best_weights=True,
    )


def replay(callback: Any, model: tf.keras.Model, checkpoint: Checkpoint) -> None:
    """Brings the callback to the state after a checkpoint's epochs, by their validation losses.

    The callback keeps its state in other attributes in each Keras. The model then has the
    checkpoint's best weights.

    Args:
        callback: callback from `build_early_stopping`, after its `on_train_begin`.
        model: the callback's model.
        checkpoint: finished epochs and best weights.

    Raises:
        InputError: the weights do not fit the model.
    """
    shapes = [
        [weight.shape for weight in ws] for ws in (model.get_weights(), checkpoint.best_weights)
    ]
    if shapes[0] != shapes[1]:
        raise InputError("the checkpoint is damaged, or of another model")
    model.set_weights(list(checkpoint.best_weights))
    for index, epoch in enumerate(checkpoint.epochs):
        callback.on_epoch_end(index, {"val_loss": epoch.validation_loss})


def restore_best_weights(
    callback: Any, model: tf.keras.Model, *, interrupted: bool, averaged: bool = False
) -> int:
    """Restores the best weights where Keras does not.

    Keras does not restore them after an interruption. Keras 2 restores them if patience runs out,
    but not after the last epoch. Its `fit` then overwrites them with the optimiser's weight
    averages.

    Args:
        callback: callback from `build_early_stopping`, after training.
        model: trained model.
        interrupted: whether training was interrupted before Keras finished it.
        averaged: whether `fit` ended with weight averages.

    Returns:
        Number of the best epoch, from 1; 0 without a finished epoch.
    """
    if callback.best_weights is None:
        return 0
    restored = restores_best_weights_at_the_end() or (callback.stopped_epoch > 0 and not averaged)
    if interrupted or not restored:
        model.set_weights(callback.best_weights)
    return int(callback.best_epoch) + 1
