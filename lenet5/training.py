"""Training: every step inside the graph, every random number keyed by seed and step.

On one core of an AMD EPYC (TensorFlow 2.21.0, Keras 3.15.1) `pytest bench` measures this loop
against Keras's `fit` and against the original project's pipeline; the README has the figures.
"""

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
from lenet5.recipe import DROPOUT_STREAM, STREAMS_PER_SEED, Recipe
from lenet5.runtime import trainable_tensors

_SECONDS_PER_CALL = 0.25  # Ctrl-C and the progress bar wait for the end of a call into the graph
_EVALUATION_BATCH = 1000


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


RunSteps = Callable[[np.ndarray, np.ndarray, int, int], tuple[np.ndarray, int]]


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
        The model with the weights of its best epoch, and the history.

    Raises:
        DivergenceError: the loss is not finite.
        TrainingInterrupted: Ctrl-C.
    """
    model = build_for(recipe, seed)
    images, labels = normalise(training.images), training.labels.astype(np.int32)
    run_steps = build_step_loop(model, recipe, images, labels, seed)
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


def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits the training images: int32 permutation of 0..images-1."""
    # RandomState's stream is frozen; Generator's may change between NumPy versions (NEP 19).
    return np.random.RandomState([seed, epoch]).permutation(images).astype(np.int32)


def forward(model: tf.keras.Model, images: Any, seed: int, step: Any) -> Any:
    """The model's output in training, with dropout masks keyed by seed and step.

    Keras's Dropout draws from a stream that no checkpoint restores; here each Dropout layer's
    rate is applied with a mask that depends on nothing but (seed, step, which dropout layer).

    Args:
        model: made by `build_model`.
        images: float32 tensor (n, 28, 28, 1).
        seed: of the run.
        step: int64 scalar tensor, the step of the run from 0.

    Returns:
        Probabilities, float32 tensor (n, 10).
    """
    outputs = images
    stream = seed * STREAMS_PER_SEED + DROPOUT_STREAM
    for layer in model.layers:
        if not isinstance(layer, tf.keras.layers.Dropout):
            outputs = layer(outputs, training=True)
        else:
            key = tf.stack([tf.constant(stream, tf.int64), step])
            if layer.rate > 0:
                outputs = tf.nn.experimental.stateless_dropout(
                    outputs, rate=layer.rate, seed=key, rng_alg="philox"
                )
            stream += 1
    return outputs


def total_loss(model: tf.keras.Model, labels: Any, probabilities: Any) -> Any:
    """Mean cross-entropy plus the model's L2 penalties: the scalar that training minimises."""
    losses = tf.keras.losses.sparse_categorical_crossentropy(labels, probabilities)
    return tf.reduce_mean(losses) + _penalty(model)


def build_step_loop(
    model: tf.keras.Model, recipe: Recipe, images: np.ndarray, labels: np.ndarray, seed: int
) -> RunSteps:
    """Makes the function that trains many steps in one call into the graph.

    Adam is TensorFlow's fused kernel with Keras's formula: lr_t = lr * sqrt(1 - beta_2 ** t) /
    (1 - beta_1 ** t), w -= lr_t * m / (sqrt(v) + epsilon); one operation per weight instead of
    Keras's dozen, and the same state under Keras 2 and 3.

    Args:
        model: whose weights the loop changes.
        recipe: batch size and Adam's settings.
        images: float32 (n, 28, 28, 1) in [0, 1].
        labels: int32 (n,).
        seed: of the dropout masks.

    Returns:
        run_steps(order, rates, first_step, steps): trains `steps` steps on the images whose
        indices `order` (int32) holds, in batches of `recipe.batch_size`, the last one as large
        as what is left; `rates` holds the learning rate of every step of the run and
        `first_step` counts from 0 over the whole run. Gives each step's loss, float32 (steps,),
        and the number of images classified right.
    """
    weights = trainable_tensors(model)
    means = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in weights]
    squares = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in weights]
    # Constants would be copied into the graph; these tensors are captured.
    all_images, all_labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
    batch_size = recipe.batch_size

    @tf.autograph.experimental.do_not_convert  # 2.12's AutoGraph has no zip(strict=True)
    def train_step(batch: Any, rate: Any, step: Any) -> tuple[Any, Any]:
        batch_labels = tf.gather(all_labels, batch)
        with tf.GradientTape() as tape:
            probabilities = forward(model, tf.gather(all_images, batch), seed, step)
            loss = total_loss(model, batch_labels, probabilities)
        gradients = tape.gradient(loss, weights)
        power = tf.cast(step + 1, tf.float32)
        for weight, mean, square, gradient in zip(weights, means, squares, gradients, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=weight.handle,
                m=mean.handle,
                v=square.handle,
                beta1_power=recipe.adam_beta_1**power,
                beta2_power=recipe.adam_beta_2**power,
                lr=rate,
                beta1=recipe.adam_beta_1,
                beta2=recipe.adam_beta_2,
                epsilon=recipe.adam_epsilon,
                grad=gradient,
            )
        return loss, count_correct(batch_labels, probabilities)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.float32),
            tf.TensorSpec([], tf.int64),
        ]
    )
    def graph(order: Any, rates: Any, first_step: Any) -> tuple[Any, Any]:
        steps = tf.size(rates)
        losses = tf.TensorArray(tf.float32, size=steps)
        correct = tf.constant(0)
        for index in tf.range(steps):
            batch = order[index * batch_size : (index + 1) * batch_size]
            step = first_step + tf.cast(index, tf.int64)
            loss, right = train_step(batch, rates[index], step)
            losses = losses.write(index, loss)
            correct += right
        return losses.stack(), correct

    def run_steps(
        order: np.ndarray, rates: np.ndarray, first_step: int, steps: int
    ) -> tuple[np.ndarray, int]:
        losses, correct = graph(
            tf.convert_to_tensor(order, tf.int32),
            tf.convert_to_tensor(rates[first_step : first_step + steps], tf.float32),
            tf.constant(first_step, tf.int64),
        )
        return losses.numpy(), int(correct)

    return run_steps


def build_evaluation(model: tf.keras.Model, subset: Subset) -> Callable[[], tuple[float, float]]:
    """Makes the function that gives the model's loss (with L2) and accuracy on a subset."""
    images = tf.convert_to_tensor(normalise(subset.images))
    labels = tf.convert_to_tensor(subset.labels.astype(np.int32))
    count = len(subset.labels)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])
    def graph(start: Any) -> tuple[Any, Any]:
        batch_labels = labels[start : start + _EVALUATION_BATCH]
        probabilities = model(images[start : start + _EVALUATION_BATCH], training=False)
        losses = tf.keras.losses.sparse_categorical_crossentropy(batch_labels, probabilities)
        return tf.reduce_sum(losses), count_correct(batch_labels, probabilities)

    @tf.function
    def penalty() -> Any:
        return _penalty(model)

    def evaluate() -> tuple[float, float]:
        parts = [graph(tf.constant(start)) for start in range(0, count, _EVALUATION_BATCH)]
        loss = sum(float(loss) for loss, _ in parts) / count + float(penalty())
        return loss, sum(int(correct) for _, correct in parts) / count

    return evaluate


def count_correct(labels: Any, probabilities: Any) -> Any:
    """How many rows have their largest probability at the label: int32 scalar tensor."""
    predictions = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
    return tf.reduce_sum(tf.cast(tf.equal(predictions, labels), tf.int32))


def _penalty(model: tf.keras.Model) -> Any:
    return tf.add_n(model.losses)
