"""Training: epochs of steps, early stopping, and the history of both."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lenet5.data import Subset, normalise
from lenet5.model import build_for
from lenet5.recipe import Recipe
from lenet5.steps import build_evaluation, build_step_loop, epoch_order

_SECONDS_PER_CALL = 0.25  # Ctrl-C and the progress bar wait for the end of a call into the graph


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        epoch: counted from 1.
        training_loss: mean over the epoch's images of cross-entropy with dropout, plus L2.
        training_accuracy: share in [0, 1] of training images right, with dropout.
        validation_loss: mean cross-entropy without dropout after the epoch, plus L2.
        validation_accuracy: share in [0, 1] of validation images right after the epoch.
        learning_rate: of the epoch's last step.
        train_seconds: wall time of the epoch's steps, without validation.
    """

    epoch: int
    training_loss: float
    training_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    train_seconds: float


@dataclass(frozen=True)
class History:
    """The epochs of a run.

    Attributes:
        epochs: in order.
        best_epoch: the one of the lowest validation loss, whose weights the model has; 0: none.
        train_seconds: wall time of the run, with validation, without tracing the graph.
        stopped_early: whether patience ran out before the epochs did.
        interrupted: whether training was cut off; the epochs are those that were finished.
    """

    epochs: tuple[Epoch, ...] = ()
    best_epoch: int = 0
    train_seconds: float = 0.0
    stopped_early: bool = False
    interrupted: bool = False


@dataclass(frozen=True)
class Progress:
    """How far an epoch is: images trained of all, loss and accuracy over those images."""

    epoch: int
    epochs: int
    images: int
    images_in_epoch: int
    loss: float
    accuracy: float


class DivergenceError(Exception):
    """The loss became NaN or infinite."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training; carries what was finished.

    Attributes:
        model: with the weights of the best epoch that was finished.
        history: of the finished epochs.
        directory: where a run has kept them, if it has.
    """

    def __init__(self, model: tf.keras.Model, history: History) -> None:
        super().__init__("training was interrupted")
        self.model = model
        self.history = history
        self.directory: Path | None = None


def train(
    recipe: Recipe,
    training: Subset,
    validation: Subset,
    seed: int,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[tf.keras.Model, History]:
    """Trains LeNet-5 from fresh weights.

    The same recipe, data, seed, thread count, TensorFlow and machine give bit-identical weights.

    Args:
        recipe: how.
        training: images that the weights are fitted to, each once an epoch.
        validation: images that early stopping and the choice of the best epoch see.
        seed: of weights, order and dropout, 0 to `recipe.MAX_SEED`.
        on_progress: called several times a second.
        on_epoch: called after each epoch.
        clock: seconds, monotonic.

    Returns:
        The model with the weights of its best epoch (their moving average, if the recipe has
        one, by which epochs are judged too), and the history.

    Raises:
        DivergenceError: the loss is not finite.
        TrainingInterrupted: Ctrl-C.
    """
    trained = model = build_for(recipe, seed)
    if recipe.average_decay > 0:
        model = build_for(recipe, seed)
    images, labels = normalise(training.images), training.labels.astype(np.int32)
    average = None if model is trained else model
    run_steps = build_step_loop(trained, recipe, images, labels, seed, average)
    evaluate = build_evaluation(model, validation)
    steps_per_epoch = math.ceil(len(labels) / recipe.batch_size)
    rates = recipe.learning_rates(recipe.epochs * steps_per_epoch)
    run_steps(np.zeros(0, np.int32), rates, 0, 0)  # trace now: not part of the first epoch's time
    evaluate()

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

    history = run_epochs(
        model,
        epochs=recipe.epochs,
        patience=recipe.patience,
        train_epoch=train_epoch,
        validate=evaluate,
        learning_rate=lambda epoch: float(rates[epoch * steps_per_epoch - 1]),
        on_epoch=on_epoch,
        clock=clock,
    )
    return model, history


def run_epochs(
    model: Any,
    *,
    epochs: int,
    patience: int | None,
    train_epoch: Callable[[int], tuple[float, float]],
    validate: Callable[[], tuple[float, float]],
    learning_rate: Callable[[int], float] = lambda _: math.nan,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> History:
    """Trains epoch by epoch, with early stopping on the validation loss.

    As Keras's `EarlyStopping(patience=...)`: only a lower loss is an improvement, and `patience`
    epochs in a row without one end training. The best epoch's weights are restored however
    training ends.

    Args:
        model: whose `get_weights` and `set_weights` are used.
        epochs: most epochs.
        patience: epochs without improvement, or None for no early stopping.
        train_epoch: trains the epoch of that number (from 1), returns its loss and accuracy.
        validate: returns validation loss and accuracy of the model as it is.
        learning_rate: of an epoch's last step, for the history.
        on_epoch: called after each epoch.
        clock: seconds, monotonic.

    Returns:
        The history.

    Raises:
        DivergenceError: the validation loss is not finite, or `train_epoch` raised it.
        TrainingInterrupted: Ctrl-C; the model has the best weights of the finished epochs.
    """
    history = History()
    best_loss, best_weights = math.inf, None
    started = clock()
    try:
        for epoch in range(1, epochs + 1):
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
            best_epoch = history.best_epoch
            if loss < best_loss:
                best_loss, best_weights, best_epoch = loss, model.get_weights(), epoch
            waited = epoch - best_epoch
            history = replace(
                history,
                epochs=(*history.epochs, record),
                best_epoch=best_epoch,
                train_seconds=clock() - started,
                stopped_early=patience is not None and waited >= patience and epoch < epochs,
            )
            on_epoch(record)
            if history.stopped_early:
                break
    except KeyboardInterrupt:
        history = replace(history, interrupted=True, train_seconds=clock() - started)
        raise TrainingInterrupted(model, history) from None
    finally:
        if best_weights is not None:
            model.set_weights(best_weights)
    return history
