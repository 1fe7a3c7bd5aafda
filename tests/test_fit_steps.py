"""Steps of `fit` change every weight like Adam in NumPy float64, at the scheduled rates.

Tolerances suit float32 arithmetic, as shares of the largest rate. Adam divides a gradient by its
own size, so that a tiny gradient has as large an error as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench.verdicts.numpy_lenet5 import Adam, Weights
from lenet5.keras_engine import learning_rate, targets
from lenet5.recipe import Recipe
from lenet5.runtime import steps_per_execution, weight_averages_callback
from tests.fitting import (
    CLASSES,
    Recorder,
    adapt,
    assert_weights,
    averages,
    build_lenet5,
    build_regression,
    descend,
    draw_features,
    draw_images,
    draw_weights,
    lenet5_gradients,
    lenet5_losses,
    lenet5_penalty,
    lenet5_recipe,
    one_hot,
    regression_gradients,
    split,
)

_IMAGES, _BATCH, _EPOCHS = 20, 8, 2
_STEPS = 6  # an epoch's last batch has four images
_SETTINGS: dict[str, dict[str, Any]] = {
    "constant": {},
    "no l2": {"l2": 0.0, "learning_rate": 4e-3},
    "linear": {"schedule": "linear", "warmup_fraction": 0.34, "l2": 0.02},
    "cosine": {"schedule": "cosine", "label_smoothing": 0.1},
    "betas": {
        "adam_beta_1": 0.6,
        "adam_beta_2": 0.7,
        "adam_epsilon": 1e-3,
        "schedule": "cosine",
        "warmup_fraction": 0.5,
    },
}
_OTHER_ADAMS: dict[str, dict[str, float]] = {
    "defaults": {},
    "beta_1": {"beta_1": 0.5},
    "no momentum": {"beta_1": 0.0},
    "beta_2": {"beta_2": 0.8},
    "epsilon": {"epsilon": 0.05},
    "all": {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 0.01},
}


@pytest.mark.parametrize("settings", _SETTINGS.values(), ids=_SETTINGS)
def test_the_engines_steps_are_adams(settings: dict[str, Any]) -> None:
    """Six steps of LeNet-5 with the engine's `compile`, each compared with NumPy's Adam."""
    recipe = lenet5_recipe(**{"learning_rate": 2e-3, "batch_size": _BATCH, **settings})
    images, labels = draw_images(_IMAGES, seed=21)
    weights = draw_weights(22)
    model = build_lenet5(recipe, _STEPS, weights)
    recorder = Recorder()
    model.fit(
        images,
        targets(recipe, labels),
        batch_size=_BATCH,
        epochs=_EPOCHS,
        shuffle=False,
        callbacks=[recorder],
        verbose=0,
    )
    exact = _lenet5_steps(recipe, weights, images, labels)
    assert len(recorder.step_weights) == _STEPS
    for ours, truth in zip(recorder.step_weights, exact, strict=True):
        _assert_step(ours, truth, recipe.learning_rate)


def test_weight_averages_are_validated_and_returned() -> None:
    """With the engine's callback, averages and weights continue from epoch to epoch."""
    recipe = lenet5_recipe(
        learning_rate=4e-3, batch_size=_BATCH, average_decay=0.7, label_smoothing=0.1
    )
    images, labels = draw_images(_IMAGES, seed=23)
    others, other_labels = draw_images(12, seed=24)
    weights = draw_weights(25)
    model = build_lenet5(recipe, _STEPS, weights)
    history = model.fit(
        images,
        targets(recipe, labels),
        batch_size=_BATCH,
        epochs=_EPOCHS,
        shuffle=False,
        validation_data=(others, targets(recipe, other_labels)),
        callbacks=[weight_averages_callback()],
        verbose=0,
    )
    exact = averages(weights, _lenet5_steps(recipe, weights, images, labels), 0.7)
    _assert_step(model.get_weights(), exact[-1], recipe.learning_rate)
    smooth = one_hot(other_labels, 10, 0.1)
    for epoch, average in enumerate((exact[2], exact[5])):
        expected = lenet5_losses(average, others, smooth).mean()
        expected += lenet5_penalty(average, recipe.l2)
        assert history.history["val_loss"][epoch] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("settings", _OTHER_ADAMS.values(), ids=_OTHER_ADAMS)
def test_adam_uses_its_settings(settings: dict[str, float]) -> None:
    """Forty steps suffice for both moments to build up, and for their corrections to fade."""
    model = build_regression(l2=0.05)
    adam = tf.keras.optimizers.Adam(learning_rate=0.03, **settings)
    computed, exact = _regression_steps(model, adam, [0.03] * 40, Adam(**settings), l2=0.05)
    for ours, truth in zip(computed, exact, strict=True):
        assert_weights(ours, truth, largest=2e-5, mean=4e-6)


def test_adam_takes_gradients_of_every_size_as_they_are() -> None:
    """Gradients from 1e-5 to 1e5, across weights and steps: none is clipped or lost."""
    random = np.random.RandomState(28)
    slopes = 10 ** random.uniform(-5, 5, (40, 6)) * random.choice([-1, 1], (40, 6))
    layer = tf.keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = tf.keras.Sequential([tf.keras.Input((6,)), layer])
    model.compile(optimizer=tf.keras.optimizers.Adam(0.1), loss=lambda _, outputs: outputs)
    recorder = Recorder()
    inputs = slopes.astype(np.float32)
    model.fit(inputs, inputs[:, :1], batch_size=1, shuffle=False, callbacks=[recorder], verbose=0)
    exact = adapt(
        [np.zeros((6, 1))],
        split(inputs, inputs[:, :1], 1),
        lambda _, batch, __: [batch.astype(np.float64).T],  # a weight's gradient is its input
        [0.1] * 40,
        Adam(),
    )
    for ours, truth in zip(recorder.step_weights, exact, strict=True):
        assert_weights(ours, truth, largest=2e-5, mean=1e-5)


def test_adam_by_name_has_the_published_settings() -> None:
    """The string `adam` means rate 0.001, beta_1 0.9, beta_2 0.999, epsilon 1e-7."""
    computed, exact = _regression_steps(build_regression(), "adam", [1e-3] * 40, Adam(), l2=0.0)
    for ours, truth in zip(computed, exact, strict=True):
        assert_weights(ours, truth, largest=4e-6, mean=1e-6)


def test_adam_continues_in_a_second_fit() -> None:
    """Two calls of `fit` equal one: moments and step count are kept, also by a schedule."""
    features, labels = draw_features(16, seed=27)
    model = build_regression()
    weights = model.get_weights()
    decay = tf.keras.optimizers.schedules.PolynomialDecay(0.05, 12, end_learning_rate=0.0)
    model.compile(
        optimizer=tf.keras.optimizers.Adam(decay, beta_2=0.9),
        loss="sparse_categorical_crossentropy",
    )
    for epochs in (1, 2):
        model.fit(features, labels, batch_size=4, epochs=epochs, shuffle=False, verbose=0)
    rates = 0.05 * (1 - np.arange(12) / 12)
    given = split(features, one_hot(labels, CLASSES), 4, epochs=3)
    exact = list(adapt(weights, given, regression_gradients(0.0), rates, Adam(beta_2=0.9)))
    assert_weights(model.get_weights(), exact[-1], largest=2e-5, mean=5e-6)


def test_adams_averages_are_in_the_model_after_fit() -> None:
    """Without a callback, the end of `fit` replaces the weights by their averages."""
    model = build_regression()
    weights = model.get_weights()
    adam = tf.keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.8)
    computed, exact = _regression_steps(model, adam, [0.05] * 10, Adam(), l2=0.0)
    for ours, truth in zip(computed, exact, strict=True):
        assert_weights(ours, truth, largest=3e-5, mean=5e-6)
    ends = averages(weights, exact, 0.8)[-1]
    assert_weights(model.get_weights(), ends, largest=3e-5, mean=5e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_gradient_descent_with_momentum(nesterov: bool) -> None:
    """A speed v = momentum * v - rate * g; w += v, or w += momentum * v - rate * g by Nesterov."""
    features, labels = draw_features(20, seed=29)
    model = build_regression()
    now = [weight.astype(np.float64) for weight in model.get_weights()]
    sgd = tf.keras.optimizers.SGD(0.3, momentum=0.7, nesterov=nesterov)
    model.compile(optimizer=sgd, loss="sparse_categorical_crossentropy")
    model.fit(features, labels, batch_size=8, epochs=4, shuffle=False, verbose=0)
    speeds = [np.zeros_like(weight) for weight in now]
    for batch, aims in split(features, one_hot(labels, CLASSES), 8, epochs=4):
        grads = regression_gradients(0.0)(now, batch, aims)
        speeds = [0.7 * v - 0.3 * grad for v, grad in zip(speeds, grads, strict=True)]
        pushes = [0.7 * v - 0.3 * grad for v, grad in zip(speeds, grads, strict=True)]
        pairs = zip(now, pushes if nesterov else speeds, strict=True)
        now = [weight + move for weight, move in pairs]
    assert_weights(model.get_weights(), now, largest=1e-5, mean=3e-6)


def test_many_steps_per_call_give_the_same_weights() -> None:
    """This includes epochs whose steps are no multiple of `steps_per_execution`."""
    features, labels = draw_features(26, seed=31)
    model = build_regression()
    weights = model.get_weights()
    model.compile(
        optimizer=tf.keras.optimizers.SGD(0.2),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution(4),
    )
    history = model.fit(features, labels, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    given = list(split(features, one_hot(labels, CLASSES), 4, epochs=2))
    exact = list(descend(weights, iter(given), regression_gradients(0.0), 0.2))
    assert len(exact) == 14
    assert_weights(model.get_weights(), exact[-1], largest=1e-5, mean=3e-6)
    assert set(history) == {"loss", "accuracy"}


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.25])
def test_the_effective_rates_are_the_recipes(schedule: str, warmup_fraction: float) -> None:
    """In three epochs of `fit`, the decrease of a weight with gradient 1 is each step's rate."""
    recipe = lenet5_recipe(
        learning_rate=0.04, schedule=schedule, warmup_fraction=warmup_fraction, batch_size=2
    )
    rates = _rates_in_force(learning_rate(recipe, 24))
    np.testing.assert_allclose(rates, recipe.learning_rates(24), rtol=0, atol=1e-7)
    assert len(set(recipe.learning_rates(24).tolist())) >= (1 if schedule == "constant" else 12)


def test_keras_schedules_match_their_formulas() -> None:
    """Each schedule follows its documented formula at every step of `fit`."""
    schedules = tf.keras.optimizers.schedules
    step = np.arange(24)
    share = np.minimum(step / 20, 1)
    expected = {
        schedules.PolynomialDecay(0.5, 20, end_learning_rate=0.1, power=2.0): (
            0.4 * (1 - share) ** 2 + 0.1
        ),
        schedules.CosineDecay(0.5, 20, alpha=0.1): (
            0.5 * (0.9 * (1 + np.cos(np.pi * share)) / 2 + 0.1)
        ),
        schedules.ExponentialDecay(0.5, 7, 0.3): 0.5 * 0.3 ** (step / 7),
        schedules.ExponentialDecay(0.5, 7, 0.3, staircase=True): 0.5 * 0.3 ** (step // 7),
        schedules.InverseTimeDecay(0.5, 7, 0.3): 0.5 / (1 + 0.3 * step / 7),
        schedules.PiecewiseConstantDecay([4, 13], [0.5, 0.2, 0.1]): (
            np.where(step <= 4, 0.5, np.where(step <= 13, 0.2, 0.1))
        ),
    }
    for schedule, rates in expected.items():
        name = type(schedule).__name__
        np.testing.assert_allclose(_rates_in_force(schedule), rates, atol=1e-6, err_msg=name)


def _lenet5_steps(
    recipe: Recipe, weights: Weights, images: np.ndarray, labels: np.ndarray
) -> list[Weights]:
    """Returns NumPy's weights after every step."""
    adam = Adam(recipe.adam_beta_1, recipe.adam_beta_2, recipe.adam_epsilon)
    given = split(images, one_hot(labels, 10, recipe.label_smoothing), _BATCH, _EPOCHS)
    rates = recipe.learning_rates(_STEPS)
    return list(adapt(weights, given, lenet5_gradients(recipe.l2), rates, adam))


def _assert_step(computed: Sequence[np.ndarray], exact: Weights, rate: float) -> None:
    assert_weights(computed, exact, largest=0.02 * rate, mean=5e-4 * rate)


def _regression_steps(
    model: tf.keras.Model, optimizer: Any, rates: Sequence[float], adam: Adam, *, l2: float
) -> tuple[list[list[np.ndarray]], list[Weights]]:
    """Returns the weights after every step of a one-epoch `fit`, and NumPy's."""
    features, labels = draw_features(5 * len(rates) - 2, seed=26)
    weights = model.get_weights()
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")
    recorder = Recorder()
    model.fit(features, labels, batch_size=5, shuffle=False, callbacks=[recorder], verbose=0)
    given = split(features, one_hot(labels, CLASSES), 5)
    exact = list(adapt(weights, given, regression_gradients(l2), rates, adam))
    return recorder.step_weights, exact


def _rates_in_force(rate: Any) -> np.ndarray:
    """Returns the decreases of a weight with gradient 1 in 24 steps, three epochs of `fit`."""

    def output(_: Any, outputs: Any) -> Any:
        return outputs

    layer = tf.keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = tf.keras.Sequential([tf.keras.Input((1,)), layer])
    model.compile(optimizer=tf.keras.optimizers.SGD(rate), loss=output)
    recorder = Recorder()
    ones = np.ones((16, 1), np.float32)
    model.fit(ones, ones, batch_size=2, epochs=3, callbacks=[recorder], verbose=0)
    kernels = [0.0, *(float(weights[0][0, 0]) for weights in recorder.step_weights)]
    assert len(kernels) == 25
    return -np.diff(kernels)
