"""The engine `graph`: steps inside the graph, with the same batches in every version.

Keras's own `EarlyStopping` is called at the end of each epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from lenet5.data import Subset, normalise
from lenet5.early_stopping import build_early_stopping, replay, restore_best_weights
from lenet5.history import (
    Checkpoint,
    DivergenceError,
    Epoch,
    History,
    Progress,
    TrainingInterrupted,
)
from lenet5.model import build_for
from lenet5.recipe import Recipe
from lenet5.runtime import read_values, restore
from lenet5.steps import build_evaluation, build_step_loop, epoch_order

_SECONDS_PER_CALL = 0.25  # bounds the delay of Ctrl-C and of the progress bar


def train(
    recipe: Recipe,
    training: Subset,
    validation: Subset,
    seed: int,
    *,
    on_progress: Callable[[Progress], None],
    on_epoch: Callable[[Epoch], None],
    on_checkpoint: Callable[[Checkpoint], None],
    clock: Callable[[], float] = time.perf_counter,
    resume: Checkpoint | None = None,
) -> tuple[tf.keras.Model, History]:
    """Trains LeNet-5 in the graph; arguments, result and errors as in `training.train`."""
    trained = model = build_for(recipe, seed)
    if recipe.average_decay > 0:
        model = build_for(recipe, seed)
    images, labels = normalise(training.images), training.labels.astype(np.int32)
    average = None if model is trained else model
    run_steps = build_step_loop(trained, recipe, images, labels, seed, average)
    evaluate = build_evaluation(model, validation, recipe.label_smoothing)
    steps_per_epoch = math.ceil(len(labels) / recipe.batch_size)
    rates = recipe.learning_rates(recipe.epochs * steps_per_epoch)
    run_steps(np.zeros(0, np.int32), rates, 0, 0)  # traces outside the first epoch's time
    evaluate()
    if resume is not None:
        restore(run_steps.variables, resume.variables)

    def train_epoch(epoch: int) -> tuple[float, float]:
        order = epoch_order(len(labels), seed, epoch)
        first = (epoch - 1) * steps_per_epoch
        sizes = np.full(steps_per_epoch, recipe.batch_size)
        sizes[-1] = len(labels) - recipe.batch_size * (steps_per_epoch - 1)
        losses = np.zeros(steps_per_epoch)
        correct = done = 0
        steps = 1
        while done < steps_per_epoch:
            steps = min(steps, steps_per_epoch - done)
            start = clock()
            chunk = order[done * recipe.batch_size : (done + steps) * recipe.batch_size]
            losses[done : done + steps], right = run_steps(chunk, rates, first + done, steps)
            correct += right
            done += steps
            seen = int(sizes[:done].sum())
            loss = float(losses[:done] @ sizes[:done]) / seen
            if not math.isfinite(loss):
                raise DivergenceError(f"the loss is {loss} in epoch {epoch}, step {done}")
            on_progress(Progress(epoch, recipe.epochs, seen, len(labels), loss, correct / seen))
            seconds_per_step = max(clock() - start, 1e-9) / steps
            steps = max(1, min(2 * steps, int(_SECONDS_PER_CALL / seconds_per_step)))
        return loss, correct / len(labels)

    early_stopping = build_early_stopping(recipe)
    history = run_epochs(
        model,
        early_stopping,
        epochs=recipe.epochs,
        train_epoch=train_epoch,
        validate=evaluate,
        learning_rate=lambda epoch: float(rates[epoch * steps_per_epoch - 1]),
        on_epoch=on_epoch,
        on_history=lambda history: on_checkpoint(
            Checkpoint(
                history.epochs,
                history.train_seconds,
                tuple(early_stopping.best_weights),
                read_values(run_steps.variables),
            )
        ),
        clock=clock,
        resume=resume,
    )
    return model, history


def run_epochs(
    model: Any,
    early_stopping: Any,
    *,
    epochs: int,
    train_epoch: Callable[[int], tuple[float, float]],
    validate: Callable[[], tuple[float, float]],
    learning_rate: Callable[[int], float] = lambda _: math.nan,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_history: Callable[[History], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
    resume: Checkpoint | None = None,
) -> History:
    """Trains until the epochs run out or Keras's early stopping ends training.

    Args:
        model: provides `get_weights`, `set_weights` and `stop_training` for the callback.
        early_stopping: callback from `build_early_stopping`.
        epochs: maximum number of epochs.
        train_epoch: trains the epoch with the given number, from 1; returns its loss and accuracy.
        validate: returns validation loss and accuracy of the current model.
        learning_rate: returns the rate of an epoch's last step, for the history.
        on_epoch: called after each epoch.
        on_history: called with the history so far after each epoch but the last.
        clock: monotonic clock, in seconds.
        resume: checkpoint to continue from; the model's other variables have its state already.

    Returns:
        The history; the model has the weights of the best epoch.

    Raises:
        DivergenceError: the validation loss is not finite, or `train_epoch` diverged.
        TrainingInterrupted: Ctrl-C; the model has the best weights of the finished epochs.
    """
    history = History()
    model.stop_training = False
    early_stopping.set_model(model)
    early_stopping.on_train_begin()
    if resume is not None:
        history = History(resume.epochs, train_seconds=resume.train_seconds)
        weights = model.get_weights()
        replay(early_stopping, model, resume)
        model.set_weights(weights)
    started = clock() - history.train_seconds
    try:
        for epoch in range(len(history.epochs) + 1, epochs + 1):
            epoch_started = clock()
            training_loss, training_accuracy = train_epoch(epoch)
            train_seconds = clock() - epoch_started
            loss, accuracy = validate()
            if not math.isfinite(loss):
                raise DivergenceError(f"the validation loss is {loss} after epoch {epoch}")
            record = Epoch(
                epoch,
                training_loss,
                training_accuracy,
                loss,
                accuracy,
                learning_rate(epoch),
                train_seconds,
            )
            early_stopping.on_epoch_end(epoch - 1, {"val_loss": loss})
            seconds = clock() - started
            history = replace(history, epochs=(*history.epochs, record), train_seconds=seconds)
            on_epoch(record)
            if model.stop_training:
                break
            if epoch < epochs:
                on_history(history)
        early_stopping.on_train_end()
    except KeyboardInterrupt:
        history = replace(
            history,
            best_epoch=restore_best_weights(early_stopping, model, interrupted=True),
            train_seconds=clock() - started,
            interrupted=True,
        )
        raise TrainingInterrupted(model, history) from None
    return replace(
        history,
        best_epoch=restore_best_weights(early_stopping, model, interrupted=False),
        stopped_early=bool(model.stop_training) and len(history.epochs) < epochs,
    )
