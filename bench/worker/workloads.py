"""Timed workloads: each builder returns a call that runs steps and waits for their end.

The first call traces the graph and fills caches; the caller must do the warm-up. A workload's
`check` starts from initial weights common to every version, without dropout. Its figures agree
between correct environments, so a faster but wrong version is detected.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from lenet5.data import Subset, normalise
from lenet5.model import build_for
from lenet5.recipes import find_recipe
from lenet5.runtime import trainable_tensors
from lenet5.steps import build_step_loop, epoch_order, forward, total_loss

CHECK_STEPS = 20
_DEVICES_TOLERANCE = 1e-5  # relative; observed: 6e-8 in TensorFlow 2.12, 2.15, 2.19 and 2.21
_SEED = 0
_RATES = 100_000  # number of prepared learning rates; the step number then restarts at 0

Run = Callable[[int], float]


@dataclass(frozen=True)
class Workload:
    """A timed workload.

    Attributes:
        run: runs a number of steps and returns the loss, or another figure of the result.
        check: returns figures that agree between correct environments, to about 1e-5.
    """

    run: Run
    check: Callable[[], list[float]]


def loop(subset: Subset, batch_size: int) -> Workload:
    """Training steps in a loop inside the graph, as in the engine `graph`."""
    run_steps = _step_loop(subset, batch_size, None)
    take = _Batches(len(subset.labels), batch_size)
    rates = np.full(_RATES, find_recipe("original").learning_rate, np.float32)

    def run(steps: int) -> float:
        first_step, order = take(steps)
        losses, _ = run_steps(order, rates, first_step % (_RATES - steps), steps)
        return _finite(losses.mean())

    def check() -> list[float]:
        order = np.arange(CHECK_STEPS * batch_size, dtype=np.int32) % len(subset.labels)
        losses, _ = _step_loop(subset, batch_size, 0.0)(order, rates, 0, CHECK_STEPS)
        return [float(loss) for loss in losses]

    return Workload(run, check)


def xla(subset: Subset, batch_size: int) -> Workload:
    """The same steps compiled by XLA, one call per step."""

    def make(dropout: float | None) -> Any:
        recipe = find_recipe("original")
        model = build_for(recipe.with_overrides({} if dropout is None else {"dropout": dropout}), 0)
        weights = trainable_tensors(model)
        update = _adam(weights)

        @tf.function(jit_compile=True, autograph=False)
        def step(images: Any, labels: Any, number: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = total_loss(model, labels, forward(model, images, _SEED, number))
            update(tape.gradient(loss, weights), number)
            return loss

        return step

    return _stepwise(subset, batch_size, make)


def raw(subset: Subset, batch_size: int) -> Workload:
    """The same steps with tf.Variable, tf.nn and our own Adam: TensorFlow without Keras."""

    def make(dropout: float | None) -> Any:
        recipe = find_recipe("original")
        weights = [tf.Variable(weight) for weight in build_for(recipe, _SEED).get_weights()]
        rate = recipe.dropout if dropout is None else dropout
        update = _adam(weights)

        @tf.function(autograph=False)
        def step(images: Any, labels: Any, number: Any) -> Any:
            with tf.GradientTape() as tape:
                logits = _raw_forward(weights, images, rate, number)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                kernels = weights[0:8:2]  # all except the output's
                penalty = tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in kernels])
                loss = tf.reduce_mean(losses) + recipe.l2 * penalty
            update(tape.gradient(loss, weights), number)
            return loss

        return step

    return _stepwise(subset, batch_size, make)


def fit(subset: Subset, batch_size: int, *, jit_compile: bool | None = None) -> Workload:
    """Steps in Keras's `fit` on arrays, all in one call.

    Args:
        subset: images; they repeat if a call needs more.
        batch_size: images per step.
        jit_compile: whether XLA compiles the step; None: as Keras decides, which is no on CPUs and,
            in Keras 3, yes on GPUs.
    """
    return _fit(subset, batch_size, contextlib.nullcontext, jit_compile)


def fit_mirrored(subset: Subset, batch_size: int, replicas: int) -> Workload:
    """`fit` under `MirroredStrategy`; the logical CPU devices share each batch.

    The check also computes the losses on one device. A difference is an error of the environment
    itself, so a wrong baseline makes no right candidate fail. Keras 3 before 3.8 counts the
    regularisation once per device: with 3.4.1 the first loss is 2.024 instead of 1.975.
    """
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    if len(devices) < replicas:  # `MirroredStrategy` would wait without end
        raise ValueError(f"{replicas} logical devices are needed, there are {len(devices)}")
    strategy = tf.distribute.MirroredStrategy(devices[:replicas])
    mirrored = _fit(subset, batch_size, strategy.scope)

    def check() -> list[float]:
        found = mirrored.check()
        for ours, alone in zip(found, fit(subset, batch_size).check(), strict=True):
            if not abs(ours - alone) <= _DEVICES_TOLERANCE * abs(alone):  # catches NaN too
                raise ArithmeticError(f"{replicas} devices compute {ours:.6g}, one {alone:.6g}")
        return found

    return Workload(mirrored.run, check)


def _fit(
    subset: Subset,
    batch_size: int,
    scope: Callable[[], Any],
    jit_compile: bool | None = None,
) -> Workload:
    """Returns `fit` with models built in a scope of `tf.distribute`, or in none."""
    first = _Repeated(normalise(subset.images), subset.labels.astype(np.int64))

    def compiled(dropout: float | None = None) -> Any:
        with scope():
            return _compiled(dropout, jit_compile)

    model = compiled()

    def fit_on(model: Any, count: int, **more: Any) -> list[float]:
        arrays = first(count)
        history = model.fit(*arrays, batch_size=batch_size, epochs=1, verbose=0, **more)
        return [_finite(history.history[name][0]) for name in ("loss", "accuracy")]

    def run(steps: int) -> float:
        return fit_on(model, steps * batch_size)[0]

    def check() -> list[float]:
        fresh = compiled(dropout=0.0)
        # The second pass measures the loss of the weights after the first.
        return [
            fit_on(fresh, CHECK_STEPS * batch_size, shuffle=False)[0],
            fit_on(fresh, batch_size, shuffle=False)[0],
        ]

    return Workload(run, check)


def fit_call(subset: Subset, *, jit_compile: bool | None = None) -> Workload:
    """Calls of `fit` with one step each, for the overhead of a call; `jit_compile` as in `fit`."""
    batch_size = 32
    images, labels = normalise(subset.images), subset.labels.astype(np.int64)
    take = _Batches(len(labels), batch_size)
    model = _compiled(jit_compile=jit_compile)

    def fit_batch(model: Any, batch: np.ndarray) -> float:
        history = model.fit(
            images[batch], labels[batch], batch_size=batch_size, epochs=1, verbose=0
        )
        return _finite(history.history["loss"][0])

    def run(steps: int) -> float:
        return float(np.mean([fit_batch(model, take(1)[1]) for _ in range(steps)]))

    def check() -> list[float]:
        fresh = _compiled(dropout=0.0, jit_compile=jit_compile)
        batches = np.arange(CHECK_STEPS * batch_size).reshape(CHECK_STEPS, -1) % len(labels)
        return [fit_batch(fresh, batch) for batch in batches]

    return Workload(run, check)


def original_fit(subset: Subset, batch_size: int = 32) -> Workload:
    """Whole epochs as in the original project: its tf.data pipeline into `fit`.

    The pipeline is map, cache, shuffle over all images, batch, prefetch; the first call fills the
    cache. `steps` is a multiple of an epoch's steps.
    """
    steps_per_pass = math.ceil(len(subset.labels) / batch_size)
    images = tf.data.Dataset.from_tensor_slices((subset.images, subset.labels.astype(np.int64)))

    def normalise_image(image: Any, label: Any) -> tuple[Any, Any]:
        return tf.cast(image, tf.float32) / 255.0, label

    cached = images.map(normalise_image, num_parallel_calls=tf.data.AUTOTUNE).cache()
    shuffled = cached.shuffle(len(subset.labels))

    def fit_on(model: Any, dataset: Any, epochs: int) -> float:
        chain = dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)
        history = model.fit(chain, epochs=epochs, verbose=0, shuffle=False)  # the pipeline shuffles
        return _finite(history.history["loss"][-1])

    model = _compiled()

    def run(steps: int) -> float:
        return fit_on(model, shuffled, steps // steps_per_pass)

    def check() -> list[float]:
        first = cached.take(CHECK_STEPS * batch_size)
        fresh = _compiled(dropout=0.0)
        return [fit_on(fresh, first, 1), fit_on(fresh, first, 1)]

    return Workload(run, check)


def predict(subset: Subset, batch_size: int, *, jit_compile: bool | None = None) -> Workload:
    """Batches in one call of `model.predict`; `jit_compile` as in `fit`."""
    images = normalise(subset.images)
    first = _Repeated(images)

    def run_on(model: Any, steps: int) -> float:
        (some,) = first(steps * batch_size)
        predicted = model.predict(some, batch_size=batch_size, verbose=0)
        return _finite(predicted.max(axis=1).mean())

    return _prediction(run_on, images, jit_compile)


def predict_one(subset: Subset) -> Workload:
    """Calls of `model.predict` with one image each."""
    images = normalise(subset.images)

    def run_on(model: Any, steps: int) -> float:
        sure = [model.predict(images[i : i + 1], verbose=0).max() for i in range(steps)]
        return _finite(np.mean(sure))

    return _prediction(run_on, images)


def first_images(subset: Subset, count: int) -> Subset:
    """Returns the first `count` images of a subset."""
    return Subset(subset.images[:count], subset.labels[:count])


def compiled_with_batch(subset: Subset) -> tuple[Any, np.ndarray, np.ndarray]:
    """Returns a compiled model with images and labels for `fit` and `evaluate`."""
    return _compiled(), normalise(subset.images), subset.labels.astype(np.int64)


class _Repeated:
    """The first rows of arrays, which start again where they end; longer arrays are kept."""

    def __init__(self, *arrays: np.ndarray) -> None:
        self._arrays = arrays

    def __call__(self, count: int) -> tuple[np.ndarray, ...]:
        """Returns `count` rows of each array."""
        if count > len(self._arrays[0]):
            self._arrays = tuple(np.resize(a, (count, *a.shape[1:])) for a in self._arrays)
        return tuple(array[:count] for array in self._arrays)


class _Batches:
    """Indices of successive batches, endlessly; an epoch's last batch may be smaller.

    More steps at once than an epoch has take the images in the same order again.
    """

    def __init__(self, images: int, batch_size: int) -> None:
        self._order = epoch_order(images, _SEED, epoch=1)
        self._batch_size = batch_size
        self._position = 0
        self._steps_done = 0

    def __call__(self, steps: int) -> tuple[int, np.ndarray]:
        """Returns the number of earlier steps, and the int32 indices of `steps` batches."""
        if (steps - 1) * self._batch_size >= len(self._order):  # a last batch would be empty
            self._order = np.resize(self._order, steps * self._batch_size)
        left = math.ceil((len(self._order) - self._position) / self._batch_size)
        start = self._position if steps <= left else 0
        self._position = start + steps * self._batch_size
        self._steps_done += steps
        return self._steps_done - steps, self._order[start : self._position]


def _step_loop(subset: Subset, batch_size: int, dropout: float | None) -> Any:
    overrides = {"batch_size": batch_size} | ({} if dropout is None else {"dropout": dropout})
    recipe = find_recipe("original").with_overrides(overrides)
    images, labels = normalise(subset.images), subset.labels.astype(np.int32)
    model = build_for(recipe, _SEED)
    return build_step_loop(model, recipe, images, labels, _SEED)


def _stepwise(subset: Subset, batch_size: int, make: Callable[[float | None], Any]) -> Workload:
    """Returns a workload of a graph with one step per call; `make` receives dropout or None."""
    images, labels = normalise(subset.images), subset.labels.astype(np.int32)
    take = _Batches(len(labels), batch_size)
    step = make(None)

    def run(steps: int) -> float:
        losses = []
        for _ in range(steps):
            number, batch = take(1)
            losses.append(step(images[batch], labels[batch], tf.constant(number, tf.int64)))
        return _finite(np.mean([float(loss) for loss in losses]))

    def check() -> list[float]:
        fresh = make(0.0)
        batches = np.arange(CHECK_STEPS * batch_size).reshape(CHECK_STEPS, -1) % len(labels)
        return [
            float(fresh(images[batch], labels[batch], tf.constant(number, tf.int64)))
            for number, batch in enumerate(batches)
        ]

    return Workload(run, check)


def _prediction(
    run_on: Callable[[Any, int], float],
    images: np.ndarray,
    jit_compile: bool | None = None,
) -> Workload:
    model = build_for(find_recipe("original"), _SEED)
    if jit_compile is not None:  # otherwise the model stays as `build_for` made it
        model.compile(jit_compile=jit_compile)

    def check() -> list[float]:
        probabilities = model.predict(images[:512], batch_size=512, verbose=0)
        return [float(mean) for mean in probabilities.mean(axis=0)] + [run_on(model, 1)]

    return Workload(lambda steps: run_on(model, steps), check)


def _adam(weights: list[Any]) -> Callable[[Any, Any], None]:
    """Returns Adam's update in plain operations, as described by `Recipe`."""
    recipe = find_recipe("original")
    beta_1, beta_2 = recipe.adam_beta_1, recipe.adam_beta_2
    means = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in weights]
    squares = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in weights]

    def update(gradients: Any, number: Any) -> None:
        power = tf.cast(number + 1, tf.float32)
        rate = recipe.learning_rate * tf.sqrt(1 - beta_2**power) / (1 - beta_1**power)
        for weight, mean, square, gradient in zip(weights, means, squares, gradients, strict=True):
            mean.assign_add((gradient - mean) * (1 - beta_1))
            square.assign_add((tf.square(gradient) - square) * (1 - beta_2))
            weight.assign_sub(rate * mean / (tf.sqrt(square) + recipe.adam_epsilon))

    return update


def _raw_forward(weights: list[Any], images: Any, dropout: float, number: Any) -> Any:
    x = images
    for kernel, bias in (weights[0:2], weights[2:4]):
        x = tf.tanh(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "VALID"), bias))
        x = tf.nn.avg_pool2d(x, 2, 2, "VALID")
    x = tf.reshape(x, [-1, 256])
    for layer, (kernel, bias) in enumerate((weights[4:6], weights[6:8])):
        x = tf.tanh(tf.matmul(x, kernel) + bias)
        if dropout > 0:
            key = tf.stack([tf.constant(layer, tf.int64), number])
            x = tf.nn.experimental.stateless_dropout(x, rate=dropout, seed=key, rng_alg="philox")
    return tf.matmul(x, weights[8]) + weights[9]


def _compiled(dropout: float | None = None, jit_compile: bool | None = None) -> tf.keras.Model:
    recipe = find_recipe("original")
    model = build_for(
        recipe if dropout is None else recipe.with_overrides({"dropout": dropout}), _SEED
    )
    optimizer = tf.keras.optimizers.Adam(recipe.learning_rate)
    xla = {} if jit_compile is None else {"jit_compile": jit_compile}
    model.compile(
        optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], **xla
    )
    return model


def _finite(value: Any) -> float:
    """Rejects values that are not finite: a fast but wrong step is not a measurement."""
    if not math.isfinite(value):
        raise ArithmeticError(f"the timed work gave {value}")
    return float(value)
