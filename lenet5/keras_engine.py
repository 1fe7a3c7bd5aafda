"""The engine `keras`: `compile` and `fit`, as most TensorFlow users train.

Optimiser, loss, metrics, dropout, regularisers, early stopping, schedules and weight averages are
Keras's own. A `tf.data` pipeline shuffles the indices of the images. With arrays, `fit` of Keras 3
repeats one image order in every epoch once a seed is set (findings/keras_fit_repeats_its_order.sh).

Images per second by the input of `fit`. Conditions: 2 cores of an AMD EPYC with AVX-512, one
thread, 19,200 images per epoch, median of 3 epochs, no other TensorFlow process, 2026-11-27.
Columns: batch 32 and 128, for TensorFlow 2.21.0 with Keras 3.15.1 and for TensorFlow 2.15.1. Single
epochs vary by up to half. The rows are older than the keyed orders of the batches.

steps_per_execution                    1                16                64
2.21.0 arrays              13,606 18,352     14,984 21,501     17,474 21,471
2.21.0 images by tf.data   12,550 20,791     18,786 23,854     20,169 26,672
2.21.0 indices by tf.data  10,029 19,190     18,002 24,229     18,365 26,445
2.15.1 arrays              14,547 19,137     17,644 24,787     18,130 13,654
2.15.1 images by tf.data   17,099 15,185     15,171 15,180     15,182 15,183
2.15.1 indices by tf.data  16,644 22,816     19,930 27,256     22,299 26,910
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from lenet5.augmentation import augment
from lenet5.data import CLASSES, Subset, normalise
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
from lenet5.runtime import (
    random_states,
    read_values,
    restorable_dropout,
    restore,
    steps_per_execution,
    weight_averages_callback,
)

_STEPS_PER_CALL = 16  # bounds the delay of Ctrl-C and of the progress bar
_VALIDATION_BATCH = 1000
_EPOCHS_PER_SEED = 1001  # keys of the order; longer runs share some with the next seed


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
    """Trains LeNet-5 by `fit`; arguments, result and errors as in `training.train`.

    Sets the seeds of Python, NumPy and TensorFlow, like `tf.keras.utils.set_random_seed`.
    """
    # Not 0: `Dataset.shuffle` then rejects a tensor as its seed
    # (findings/tf_data_tensor_seed_needs_a_global_seed.sh).
    tf.keras.utils.set_random_seed(seed + 1)
    steps_per_epoch = math.ceil(len(training.labels) / recipe.batch_size)
    steps = recipe.epochs * steps_per_epoch
    with restorable_dropout():
        model = build_for(recipe, seed)
    compile_model(model, recipe, steps, steps_per_call=_STEPS_PER_CALL)
    rate = learning_rate(recipe, steps)
    early_stopping = build_early_stopping(recipe)
    recorder = _Recorder(
        recipe.epochs,
        len(training.labels),
        recipe.batch_size,
        steps_per_execution(_STEPS_PER_CALL),
        lambda epoch: float(rate if isinstance(rate, float) else rate(epoch * steps_per_epoch - 1)),
        on_progress,
        on_epoch,
        clock,
    )
    if resume is not None:
        recorder.epochs.extend(resume.epochs)
    earlier_seconds = 0.0 if resume is None else resume.train_seconds
    checkpoints = _Checkpoints(
        early_stopping,
        resume,
        lambda: on_checkpoint(
            Checkpoint(
                tuple(recorder.epochs),
                earlier_seconds + clock() - started,
                tuple(early_stopping.best_weights),
                read_values(_variables(model)),
            )
        ),
    )
    epoch = tf.Variable(len(recorder.epochs), dtype=tf.int64, trainable=False)
    averages = [weight_averages_callback()] if recipe.average_decay > 0 else []
    started = clock()
    interrupted = False
    try:
        model.fit(
            batches(recipe, training, seed, epoch),
            epochs=recipe.epochs,
            initial_epoch=len(recorder.epochs),
            validation_data=(normalise(validation.images), targets(recipe, validation.labels)),
            validation_batch_size=_VALIDATION_BATCH,
            # Averages come first, so that early stopping keeps them, and checkpoints the trained
            # weights. The recorder comes last, so that an epoch is kept before Ctrl-C can interrupt
            # its report.
            callbacks=[EpochCounter(epoch), *averages, early_stopping, checkpoints, recorder],
            shuffle=False,  # the batches are shuffled already
            verbose=0,
        )
    except KeyboardInterrupt:
        if resume is not None and early_stopping.best_weights is None:
            raise  # before the checkpoint was restored: there is nothing new
        interrupted = True
    train_seconds = earlier_seconds + clock() - started
    epochs = tuple(recorder.epochs)
    history = History(
        epochs=epochs,
        best_epoch=restore_best_weights(
            early_stopping, model, interrupted=interrupted, averaged=bool(averages)
        ),
        train_seconds=train_seconds,
        stopped_early=early_stopping.stopped_epoch > 0 and len(epochs) < recipe.epochs,
        interrupted=interrupted,
    )
    # Without the optimiser: other Keras installations do not know its schedule class.
    plain = build_for(recipe, seed)
    plain.set_weights(model.get_weights())
    if interrupted:
        raise TrainingInterrupted(plain, history)
    return plain, history


def compile_model(
    model: tf.keras.Model, recipe: Recipe, steps: int, *, steps_per_call: int = 1
) -> None:
    """Compiles a model for training with a recipe.

    Args:
        model: model from `build_for`.
        recipe: gives Adam's settings, schedule, label smoothing and weight averages.
        steps: steps of the whole run, the length of the schedule.
        steps_per_call: steps per call into the graph.
    """
    average = {"use_ema": True, "ema_momentum": recipe.average_decay}
    model.compile(
        optimizer=tf.keras.optimizers.Adam(
            learning_rate=learning_rate(recipe, steps),
            beta_1=recipe.adam_beta_1,
            beta_2=recipe.adam_beta_2,
            epsilon=recipe.adam_epsilon,
            **(average if recipe.average_decay > 0 else {}),
        ),
        loss=(
            tf.keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
            if recipe.label_smoothing > 0
            else tf.keras.losses.SparseCategoricalCrossentropy()
        ),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution(steps_per_call),
    )


def learning_rate(recipe: Recipe, steps: int) -> Any:
    """Returns the recipe's learning rate for Keras: a number, or a schedule over all steps.

    The rates equal `Recipe.learning_rates`; the warm-up is an ascending `PolynomialDecay`.
    """
    schedules = tf.keras.optimizers.schedules
    peak = recipe.learning_rate
    if recipe.schedule == "constant":
        return float(peak)
    warmup = round(recipe.warmup_fraction * steps)
    if recipe.schedule == "cosine":
        decay = schedules.CosineDecay(peak, decay_steps=steps - warmup)
    else:
        decay = schedules.PolynomialDecay(peak, steps - warmup, end_learning_rate=0.0)
    if warmup == 0:
        return decay
    rise = schedules.PolynomialDecay(peak / warmup, max(warmup - 1, 1), end_learning_rate=peak)
    return WarmUp(rise, warmup, decay)


class WarmUp(tf.keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """One schedule for the first steps, then another schedule from its beginning.

    The warm-up of `CosineDecay`, available since Keras 2.12, starts at a rate of 0;
    `PolynomialDecay` has none.
    """

    def __init__(self, first: Any, steps: int, then: Any) -> None:
        super().__init__()
        self.first = first
        self.steps = steps
        self.then = then

    def __call__(self, step: Any) -> Any:
        """Returns the rate of a step, counted from 0: float32 scalar tensor."""
        step = tf.cast(step, tf.float32)
        after = tf.maximum(step - float(self.steps), 0.0)
        return tf.where(step < float(self.steps), self.first(step), self.then(after))

    def get_config(self) -> dict[str, Any]:
        """Returns the parts of the schedule; a model with it is never saved."""
        return {"first": self.first, "steps": self.steps, "then": self.then}


def batches(recipe: Recipe, subset: Subset, seed: int, epoch: tf.Variable) -> tf.data.Dataset:
    """Returns a subset's images in batches, each once per epoch, shuffled and distorted anew.

    Seed and epoch key the order, seed and step the distortions. Both are independent of the number
    of iterators: some versions of Keras make two per epoch.

    Args:
        recipe: gives the batch size and the distortions.
        subset: images and labels.
        seed: seed of the run.
        epoch: int64 scalar, number of the epoch from 0; read at the beginning of each iteration.

    Returns:
        Batches of float32 images (n, 28, 28, 1) in [0, 1] and targets; the last one may be smaller.
    """
    # Tensors outside the map: constants inside it would be copied into its graph.
    images = tf.convert_to_tensor(normalise(subset.images))
    labels = tf.convert_to_tensor(targets(recipe, subset.labels))
    count = len(subset.labels)
    steps = math.ceil(count / recipe.batch_size)

    def order_of_epoch(_: Any) -> Any:
        this = epoch.read_value()
        order = tf.data.Dataset.range(count).shuffle(count, seed=seed * _EPOCHS_PER_SEED + this)
        return order.batch(recipe.batch_size).enumerate(this * steps)

    def take(step: Any, batch: Any) -> tuple[Any, Any]:
        taken = augment(tf.gather(images, batch), recipe, seed, step)
        return taken, tf.gather(labels, batch)

    order = tf.data.Dataset.range(1).flat_map(order_of_epoch)
    known = order.apply(tf.data.experimental.assert_cardinality(steps))
    return known.map(take).prefetch(1)


class EpochCounter(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Sets the epoch of `batches` at the beginning of each epoch."""

    def __init__(self, epoch: tf.Variable) -> None:
        super().__init__()
        self._epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's names
        """Sets the epoch, counted from 0."""
        self._epoch.assign(epoch)


def targets(recipe: Recipe, labels: np.ndarray) -> np.ndarray:
    """Converts labels to targets of the recipe's loss.

    Returns:
        int32 array (n,), or one-hot float32 (n, 10) with label smoothing.
    """
    if recipe.label_smoothing == 0:
        return labels.astype(np.int32)
    return np.asarray(tf.keras.utils.to_categorical(labels, CLASSES), np.float32)


def _variables(model: tf.keras.Model) -> list[Any]:
    """Returns all variables that training changes, of the compiled model and its optimiser."""
    model.optimizer.build(model.trainable_variables)
    return [*model.weights, *model.optimizer.variables, *random_states(model)]


class _Checkpoints(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Restores a checkpoint, and takes one at the beginning of each further epoch.

    Then, no averages are in place of the trained weights.
    """

    def __init__(
        self, early_stopping: Any, resume: Checkpoint | None, take: Callable[[], None]
    ) -> None:
        super().__init__()
        self._early_stopping = early_stopping
        self._resume = resume
        self._first = 0 if resume is None else len(resume.epochs)
        self._take = take

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras's names
        if self._resume is not None:
            replay(self._early_stopping, self.model, self._resume)
            restore(_variables(self.model), self._resume.variables)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's names
        if epoch > self._first:
            self._take()


class _Recorder(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Reports progress of `fit` like the engine `graph`, and ends a run that diverged."""

    def __init__(
        self,
        epochs: int,
        images: int,
        batch_size: int,
        steps_per_call: int,
        learning_rate: Callable[[int], float],
        on_progress: Callable[[Progress], None],
        on_epoch: Callable[[Epoch], None],
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self.epochs: list[Epoch] = []
        self._blank = Progress(1, epochs, 0, images, math.nan, math.nan)
        self._batch_size = batch_size
        self._steps_per_call = steps_per_call
        self._calls = 0
        self._learning_rate = learning_rate
        self._on_progress = on_progress
        self._on_epoch = on_epoch
        self._clock = clock
        self._started = self._trained = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's names
        self._blank = replace(self._blank, epoch=epoch + 1)
        self._calls = 0
        self._started = self._clock()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
        self._calls += 1  # `batch` is a call's first step in Keras 3.7 to 3.10, otherwise its last
        loss, accuracy = float(logs["loss"]), float(logs["accuracy"])
        images = self._blank.images_in_epoch
        steps = self._calls * self._steps_per_call
        step = min(steps, math.ceil(images / self._batch_size))  # the last call may be shorter
        if not math.isfinite(loss):
            raise DivergenceError(f"the loss is {loss} in epoch {self._blank.epoch}, step {step}")
        seen = min(step * self._batch_size, images)
        self._on_progress(replace(self._blank, images=seen, loss=loss, accuracy=accuracy))

    def on_test_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras's names
        self._trained = self._clock()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        told = {name: float(value) for name, value in logs.items()}
        for name, text in (("loss", "loss"), ("val_loss", "validation loss")):
            if not math.isfinite(told[name]):
                raise DivergenceError(f"the {text} is {told[name]} after epoch {epoch + 1}")
        record = Epoch(
            epoch + 1,
            told["loss"],
            told["accuracy"],
            told["val_loss"],
            told["val_accuracy"],
            self._learning_rate(epoch + 1),
            self._trained - self._started,
        )
        self.epochs.append(record)
        self._on_epoch(record)
