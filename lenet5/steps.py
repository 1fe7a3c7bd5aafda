"""Steps of the engine `graph`: a loop inside the graph, with Keras's layers and losses.

Seed and step key every random number, so that all versions use the same batches and masks. Two
parts are not Keras's: the keyed dropout masks, and TensorFlow's fused kernel of Adam.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from lenet5.augmentation import augment
from lenet5.data import CLASSES, Subset, normalise
from lenet5.recipe import DROPOUT_STREAM, STREAMS_PER_SEED, Recipe
from lenet5.runtime import trainable_tensors

_EVALUATION_BATCH = 1000

RunSteps = Callable[[np.ndarray, np.ndarray, int, int], tuple[np.ndarray, int]]


@dataclass(frozen=True)
class StepLoop:
    """Trains many steps in one call into the graph.

    Attributes:
        run_steps: function of `build_step_loop`; a call of the loop calls it.
        variables: weights, moments of Adam and averages: all that a step changes.
    """

    run_steps: RunSteps
    variables: tuple[tf.Variable, ...]

    def __call__(
        self, order: np.ndarray, rates: np.ndarray, first_step: int, steps: int
    ) -> tuple[np.ndarray, int]:
        """Trains steps; arguments and result as in `build_step_loop`."""
        return self.run_steps(order, rates, first_step, steps)


def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """Returns an epoch's order of the training images: int32 permutation of 0..images-1."""
    # RandomState's stream is frozen; Generator's may change between NumPy versions (NEP 19).
    return np.random.RandomState([seed, epoch]).permutation(images).astype(np.int32)


def forward(model: tf.keras.Model, images: Any, seed: int, step: Any) -> Any:
    """Returns the model's output in training, with dropout masks keyed by seed and step.

    Keras's Dropout draws from a stream that no checkpoint restores. Here, each Dropout layer's mask
    depends only on seed, step and the layer's index.

    Args:
        model: model from `build_model`.
        images: float32 tensor (n, 28, 28, 1).
        seed: seed of the run.
        step: int64 scalar tensor, step of the run from 0.

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


def total_loss(
    model: tf.keras.Model, labels: Any, probabilities: Any, label_smoothing: float = 0.0
) -> Any:
    """Returns the training loss: scalar, mean cross-entropy plus the model's L2 penalties."""
    losses = _cross_entropies(labels, probabilities, label_smoothing)
    return tf.reduce_mean(losses) + _penalty(model)


def build_step_loop(
    model: tf.keras.Model,
    recipe: Recipe,
    images: np.ndarray,
    labels: np.ndarray,
    seed: int,
    average: tf.keras.Model | None = None,
) -> StepLoop:
    """Builds the loop that trains many steps in one call into the graph.

    Adam is TensorFlow's fused kernel with Keras's formula:
    lr_t = lr * sqrt(1 - beta_2 ** t) / (1 - beta_1 ** t), w -= lr_t * m / (sqrt(v) + epsilon).
    It is one operation per weight, with the same state in Keras 2 and 3.

    Args:
        model: model to train.
        recipe: gives batch size and Adam's settings.
        images: float32 (n, 28, 28, 1) in [0, 1].
        labels: int32 (n,).
        seed: seed of the dropout masks and of the distortions.
        average: model that receives the moving average of the weights, if the recipe has one.

    Returns:
        run_steps(order, rates, first_step, steps): trains `steps` steps in batches of
        `recipe.batch_size`; the last batch may be smaller. `order` (int32) has the indices of the
        images, and `rates` the learning rate of every step of the run. `first_step` counts from 0
        over the whole run. Returns each step's loss, float32 (steps,), and the number of correct
        images.
    """
    weights = trainable_tensors(model)
    means = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in weights]
    squares = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in weights]
    # These tensors are captured; constants would be copied into the graph.
    all_images, all_labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
    batch_size = recipe.batch_size
    averages = tf.train.ExponentialMovingAverage(recipe.average_decay)
    if average is not None:
        averages.apply(weights)  # creates its variables, equal to the weights

    @tf.autograph.experimental.do_not_convert  # 2.12's AutoGraph lacks zip(strict=True)
    def train_step(batch: Any, rate: Any, step: Any) -> tuple[Any, Any]:
        batch_labels = tf.gather(all_labels, batch)
        with tf.GradientTape() as tape:
            batch_images = augment(tf.gather(all_images, batch), recipe, seed, step)
            probabilities = forward(model, batch_images, seed, step)
            loss = total_loss(model, batch_labels, probabilities, recipe.label_smoothing)
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
        if average is not None:
            averages.apply(weights)
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
        if average is not None:
            for own, weight in zip(trainable_tensors(average), weights, strict=True):
                own.assign(averages.average(weight))
        return losses.numpy(), int(correct)

    shadows = [] if average is None else [averages.average(weight) for weight in weights]
    return StepLoop(run_steps, (*weights, *means, *squares, *shadows))


def build_evaluation(
    model: tf.keras.Model, subset: Subset, label_smoothing: float = 0.0
) -> Callable[[], tuple[float, float]]:
    """Builds the function that returns the model's loss (with L2) and accuracy on a subset."""
    images = tf.convert_to_tensor(normalise(subset.images))
    labels = tf.convert_to_tensor(subset.labels.astype(np.int32))
    count = len(subset.labels)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])
    def graph(start: Any) -> tuple[Any, Any]:
        batch_labels = labels[start : start + _EVALUATION_BATCH]
        probabilities = model(images[start : start + _EVALUATION_BATCH], training=False)
        losses = _cross_entropies(batch_labels, probabilities, label_smoothing)
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
    """Counts the rows with the largest probability at the label: int32 scalar tensor."""
    predictions = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
    return tf.reduce_sum(tf.cast(tf.equal(predictions, labels), tf.int32))


def _cross_entropies(labels: Any, probabilities: Any, label_smoothing: float) -> Any:
    """Returns Keras's cross-entropy of each image: float32 tensor (n,)."""
    losses = tf.keras.losses
    if label_smoothing == 0:
        return losses.sparse_categorical_crossentropy(labels, probabilities)
    one_hot = tf.one_hot(labels, CLASSES)
    return losses.categorical_crossentropy(one_hot, probabilities, label_smoothing=label_smoothing)


def _penalty(model: tf.keras.Model) -> Any:
    return tf.add_n(model.losses)
