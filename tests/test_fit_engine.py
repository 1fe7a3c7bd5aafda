"""The engine `keras` as a whole: training, reports, reproducibility and results."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench.verdicts import numpy_lenet5
from lenet5 import keras_engine
from lenet5.data import Subset, normalise
from lenet5.history import DivergenceError, Epoch, History, Progress, TrainingInterrupted
from lenet5.keras_engine import compile_model
from lenet5.model import build_for
from lenet5.recipe import ENGINES, Recipe
from lenet5.recipes import RECIPES
from lenet5.runtime import keras_version, steps_per_execution
from lenet5.training import train
from tests.watching import bits

COUNT, SIZE = 182, 10  # 19 steps per epoch; the last one has 2 images
SHORT = RECIPES["original"].with_overrides({"batch_size": SIZE, "epochs": 3})
STEPS = 19
CALL = steps_per_execution(16)  # steps per call into the graph

schedules = tf.keras.optimizers.schedules


def draw(count: int, seed: int) -> Subset:
    """Draws images of a bar in noise, at a place given by the digit."""
    random = np.random.RandomState(seed)
    labels = random.randint(0, 10, count).astype(np.uint8)
    images = random.randint(0, 128, (count, 28, 28, 1)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 4] += 127
    return Subset(images, labels)


TRAINING, VALIDATION = draw(COUNT, seed=1), draw(40, seed=2)


@dataclass(frozen=True)
class Trained:
    """A run with all its reports, in order."""

    model: tf.keras.Model
    history: History
    told: list[Progress | Epoch]


def run(recipe: Recipe = SHORT, seed: int = 5) -> Trained:
    told: list[Progress | Epoch] = []
    model, history = train(
        recipe,
        TRAINING,
        VALIDATION,
        seed,
        engine="keras",
        on_progress=told.append,
        on_epoch=told.append,
        clock=lambda: 0.0,
    )
    return Trained(model, history, told)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return run()


def test_progress_and_epochs_are_reported_in_order(
    trained: Trained,
) -> None:
    """Each call into the graph reports its progress, and each epoch its record."""
    ends = [*range(CALL, STEPS, CALL), STEPS]
    expected: list[tuple[int, int | None]] = []
    for epoch in (1, 2, 3):
        expected += [(epoch, min(end * SIZE, COUNT)) for end in ends] + [(epoch, None)]
    found = [(one.epoch, getattr(one, "images", None)) for one in trained.told]
    assert found == expected
    records = tuple(one for one in trained.told if isinstance(one, Epoch))
    assert records == trained.history.epochs
    for progress, record in zip(trained.told, trained.told[1:], strict=False):
        if isinstance(progress, Progress) and isinstance(record, Epoch):
            assert (progress.images, progress.images_in_epoch, progress.epochs) == (COUNT, COUNT, 3)
            assert (progress.loss, progress.accuracy) == (
                record.training_loss,
                record.training_accuracy,
            )


def test_history_agrees_with_evaluation_and_numpy(trained: Trained) -> None:
    """The returned model is that of the best epoch."""
    losses = [epoch.validation_loss for epoch in trained.history.epochs]
    best = trained.history.epochs[trained.history.best_epoch - 1]
    assert best.validation_loss == min(losses)
    weights = trained.model.get_weights()
    truth = numpy_lenet5.forward(weights, VALIDATION.images / 255).probabilities
    expected: tuple[object, object] = (
        pytest.approx(numpy_lenet5.loss(weights, truth, VALIDATION.labels, SHORT.l2), rel=1e-5),
        pytest.approx((truth.argmax(axis=1) == VALIDATION.labels).mean(), rel=1e-6),
    )
    assert [best.validation_loss, best.validation_accuracy] == list(expected)
    compiled = build_for(SHORT, seed=0)
    compiled.set_weights(weights)
    compile_model(compiled, SHORT, steps=1)
    found = compiled.evaluate(
        normalise(VALIDATION.images), VALIDATION.labels, batch_size=7, verbose=0
    )
    assert found == list(expected)


def test_the_returned_model_is_not_compiled_and_predicts(trained: Trained) -> None:
    assert getattr(trained.model, "optimizer", None) is None
    answers = trained.model.predict(normalise(VALIDATION.images), batch_size=7, verbose=0)
    truth = numpy_lenet5.forward(trained.model.get_weights(), VALIDATION.images / 255)
    np.testing.assert_allclose(answers, truth.probabilities, rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_bits(trained: Trained) -> None:
    """Earlier random numbers, other models and their training have no influence."""
    tf.keras.utils.set_random_seed(99)
    tf.random.normal([3])
    other = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
    other.compile(optimizer="adam", loss="mse")
    other.fit(np.ones((3, 2)), np.ones((3, 1)), verbose=0)
    again = run()
    assert bits(again.model) == bits(trained.model)
    assert again.history == trained.history
    assert again.told == trained.told


def test_another_seed_gives_different_bits(trained: Trained) -> None:
    other = run(SHORT.with_overrides({"epochs": 1}), seed=6)
    for ours, theirs in zip(other.model.get_weights(), trained.model.get_weights(), strict=True):
        assert (ours != theirs).mean() > 0.9


def test_ctrl_c_in_the_second_epoch_returns_the_averages_of_the_first() -> None:
    """Later weights and the unaveraged weights are discarded; NumPy gives the expected loss."""

    def interrupt(progress: Progress) -> None:
        if progress.epoch == 2:
            raise KeyboardInterrupt

    recipe = SHORT.with_overrides({"average_decay": 0.9})
    with pytest.raises(TrainingInterrupted) as caught:
        train(recipe, TRAINING, VALIDATION, seed=5, on_progress=interrupt)
    history = caught.value.history
    assert (history.best_epoch, history.interrupted, history.stopped_early) == (1, True, False)
    (epoch,) = history.epochs
    weights = caught.value.model.get_weights()
    truth = numpy_lenet5.forward(weights, VALIDATION.images / 255).probabilities
    loss = numpy_lenet5.loss(weights, truth, VALIDATION.labels, SHORT.l2)
    assert epoch.validation_loss == pytest.approx(loss, rel=1e-5)


def test_a_loss_that_is_not_finite_is_told_with_its_epoch_and_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The weights diverge in the second epoch's first step; the call into the graph completes."""
    monkeypatch.setattr(
        keras_engine,
        "learning_rate",
        lambda *_: schedules.PiecewiseConstantDecay([STEPS - 1], [1e-3, 1e30]),
    )
    told: list[Epoch] = []
    step = CALL if CALL > 1 else 2
    with pytest.raises(DivergenceError, match=rf"the loss is (inf|nan) in epoch 2, step {step}$"):
        train(SHORT, TRAINING, VALIDATION, seed=5, on_epoch=told.append)
    assert [epoch.epoch for epoch in told] == [1]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_whole_run_is_numpys(engine: str) -> None:
    """One batch per epoch: Adam in float64 by its formulas, and the averages of its weights.

    The averages are validated in each epoch, and returned.
    """
    changes = {
        "batch_size": 40,
        "epochs": 5,
        "dropout": 0.0,
        "patience": None,
        "schedule": "cosine",
        "warmup_fraction": 0.4,
        "average_decay": 0.5,
        "adam_epsilon": 1e-3,  # hides the rounding of gradients close to 0
    }
    recipe = SHORT.with_overrides(changes)
    model, history = train(recipe, VALIDATION, VALIDATION, seed=3, engine=engine)
    images, labels = VALIDATION.images / 255, VALIDATION.labels
    weights = [np.asarray(weight, np.float64) for weight in build_for(recipe, 3).get_weights()]
    average = weights
    adam = numpy_lenet5.Adam(epsilon=1e-3)
    moments = adam.start(weights)
    averages = []
    for step, epoch in enumerate(history.epochs):
        activations = numpy_lenet5.forward(weights, images)
        loss = numpy_lenet5.loss(weights, activations.probabilities, labels, recipe.l2)
        assert epoch.training_loss == pytest.approx(loss, rel=1e-5)
        rate = (5e-4, 1e-3)[step] if step < 2 else 5e-4 * (1 + math.cos(math.pi * (step - 2) / 3))
        assert epoch.learning_rate == pytest.approx(rate, rel=1e-6)
        grads = numpy_lenet5.gradients(weights, activations, labels, recipe.l2)
        weights = adam.step(weights, grads, moments, step + 1, rate)
        if step == 0 and engine == "keras" and not keras_version().startswith("2."):
            average = weights  # Keras 3's averages start after the first step
        average = [(old + new) / 2 for old, new in zip(average, weights, strict=True)]
        averages.append(average)
        truth = numpy_lenet5.forward(average, images).probabilities
        loss = numpy_lenet5.loss(average, truth, labels, recipe.l2)
        assert epoch.validation_loss == pytest.approx(loss, rel=1e-5)
    assert len(averages) == 5
    best = averages[history.best_epoch - 1]
    for ours, theirs in zip(model.get_weights(), best, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6)


def cosine(step: int) -> float:
    share = min(step, 7) / 7
    return 0.5 * (0.9 * (1 + math.cos(math.pi * share)) / 2 + 0.1)


def polynomial(step: int) -> float:
    return 0.4 * (1 - min(step, 8) / 8) ** 2 + 0.1


SCHEDULES: list[tuple[Any, Callable[[int], float]]] = [
    (schedules.CosineDecay(0.5, decay_steps=7, alpha=0.1), cosine),
    (schedules.PolynomialDecay(0.5, 8, end_learning_rate=0.1, power=2.0), polynomial),
    (schedules.ExponentialDecay(0.5, 3, 0.25), lambda step: 0.5 * 0.25 ** (step / 3)),
    (schedules.InverseTimeDecay(0.5, 2, 0.5), lambda step: 0.5 / (1 + 0.5 * step / 2)),
    (
        schedules.PiecewiseConstantDecay([2, 5], [0.5, 0.25, 0.125]),
        lambda step: 0.5 if step <= 2 else 0.25 if step <= 5 else 0.125,
    ),
    (
        keras_engine.learning_rate(
            SHORT.with_overrides({"schedule": "linear", "warmup_fraction": 0.3}), 10
        ),
        lambda step: 1e-3 * ((step + 1) / 3 if step < 3 else (10 - step) / 7),
    ),
]


@pytest.mark.parametrize(
    ("schedule", "formula"), SCHEDULES, ids=[type(one).__name__ for one, _ in SCHEDULES]
)
def test_schedules_are_their_formulas_and_every_step_has_its_own_rate(
    schedule: Any, formula: Callable[[int], float]
) -> None:
    """In three epochs of `fit`, a weight with gradient 1 falls by the rate of each step."""
    rates = [formula(step) for step in range(9)]
    told = [float(schedule(step)) for step in range(9)]
    np.testing.assert_allclose(told, rates, rtol=1e-5)
    model = tf.keras.Sequential(
        [tf.keras.Input((1,)), tf.keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    model.compile(
        optimizer=tf.keras.optimizers.SGD(schedule),
        loss=lambda _, outputs: tf.reduce_sum(outputs, axis=-1),
    )
    steps: list[float] = []

    class After(tf.keras.callbacks.Callback):  # type: ignore[misc]  # TensorFlow has no types
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002  # Keras's
            steps.append(-float(self.model.get_weights()[0].item()))

    ones = np.ones((6, 1), np.float32)
    model.fit(ones, ones, batch_size=2, epochs=3, callbacks=[After()], verbose=0)
    np.testing.assert_allclose(steps, np.cumsum(rates), rtol=1e-5)
