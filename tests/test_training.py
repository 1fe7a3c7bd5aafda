"""Training visits what it should, repeats to the bit, and never sees the test images."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf

from bench import numpy_lenet5
from lenet5 import training
from lenet5.data import Dataset, Subset
from lenet5.model import build_model
from lenet5.recipe import Recipe
from lenet5.recipes import RECIPES
from lenet5.steps import RunSteps, build_step_loop, epoch_order
from lenet5.training import DivergenceError, Progress, TrainingInterrupted, train

SHORT = RECIPES["fast"].with_overrides({"epochs": 2, "batch_size": 100})


@pytest.fixture(scope="module")
def small(digits: Dataset) -> tuple[Subset, Subset]:
    """250 training images, of which the last batch of 100 holds 50, and 100 for validation."""
    return (
        Subset(digits.training.images[:250], digits.training.labels[:250]),
        Subset(digits.validation.images[:100], digits.validation.labels[:100]),
    )


@dataclass(frozen=True)
class Trained:
    """A run of the recipe SHORT with seed 5 and a clock that stands still."""

    model: tf.keras.Model
    history: training.History
    progress: list[Progress]


@pytest.fixture(scope="module")
def trained(small: tuple[Subset, Subset]) -> Trained:
    seen: list[Progress] = []
    model, history = train(SHORT, *small, seed=5, on_progress=seen.append, clock=lambda: 0.0)
    return Trained(model, history, seen)


def test_every_epoch_visits_each_image_once_in_an_order_of_its_own() -> None:
    orders = [epoch_order(1000, seed=3, epoch=epoch) for epoch in (1, 2)]
    for order in orders:
        assert sorted(order) == list(range(1000))
    assert (orders[0] != orders[1]).any()
    assert (orders[0] != epoch_order(1000, seed=4, epoch=1)).any()
    assert (orders[0] == epoch_order(1000, seed=3, epoch=1)).all()


def test_order_is_the_same_under_every_numpy() -> None:
    assert epoch_order(10, seed=0, epoch=1).tolist() == GOLDEN_ORDER


def test_training_takes_the_small_last_batch_along(
    small: tuple[Subset, Subset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over an epoch of 2.5 batches the loop is handed every index once, in the epoch's order."""
    handed: list[np.ndarray] = []
    build = build_step_loop

    def spying(*arguments: object) -> RunSteps:
        run_steps = build(*arguments)  # type: ignore[arg-type]

        def spy(
            order: np.ndarray, rates: np.ndarray, first: int, steps: int
        ) -> tuple[np.ndarray, int]:
            losses, correct = run_steps(order, rates, first, steps)
            assert len(losses) == steps == -(-len(order) // 100)
            handed.append(order)
            return losses, correct

        return spy

    monkeypatch.setattr(training, "build_step_loop", spying)
    train(SHORT, *small, seed=1)
    visited = np.concatenate(handed)
    assert visited.tolist() == [*epoch_order(250, 1, 1), *epoch_order(250, 1, 2)]


def test_first_step_is_numpys_on_pixels_divided_by_255_with_their_labels(
    small: tuple[Subset, Subset],
) -> None:
    """An epoch of one batch without dropout: its loss and accuracy are the untrained model's."""
    recipe = SHORT.with_overrides({"epochs": 1, "batch_size": 250, "dropout": 0.0})
    _, history = train(recipe, *small, seed=1)
    images, labels = small[0].images / 255, small[0].labels
    weights = build_model(seed=1).get_weights()
    truth = numpy_lenet5.forward(weights, images).probabilities
    expected = numpy_lenet5.loss(weights, truth, labels, l2=recipe.l2)
    assert history.epochs[0].training_loss == pytest.approx(expected, rel=1e-5)
    assert history.epochs[0].training_accuracy == (truth.argmax(axis=1) == labels).mean()


def test_history_tells_of_the_model_that_is_returned(
    small: tuple[Subset, Subset], trained: Trained
) -> None:
    best = trained.history.epochs[trained.history.best_epoch - 1]
    images, labels = small[1].images / 255, small[1].labels
    weights = trained.model.get_weights()
    truth = numpy_lenet5.forward(weights, images).probabilities
    expected = numpy_lenet5.loss(weights, truth, labels, SHORT.l2)
    assert best.validation_loss == pytest.approx(expected, rel=1e-5)
    assert best.validation_accuracy == pytest.approx((truth.argmax(axis=1) == labels).mean())


def test_training_learns(digits: Dataset) -> None:
    recipe = SHORT.with_overrides({"epochs": 4, "batch_size": 32, "dropout": 0.0})
    _, history = train(recipe, digits.training, digits.validation, seed=1)
    assert history.epochs[-1].training_loss < 0.6 * history.epochs[0].training_loss
    assert history.epochs[-1].validation_accuracy > 0.9


def test_the_model_is_the_average_if_the_recipe_has_one(small: tuple[Subset, Subset]) -> None:
    """By it epochs are judged, and the weights that were trained are others."""
    recipe = SHORT.with_overrides({"average_decay": 0.9})
    model, history = train(recipe, *small, seed=5)
    plain, _ = train(SHORT, *small, seed=5)
    best = history.epochs[history.best_epoch - 1]
    truth = numpy_lenet5.forward(model.get_weights(), small[1].images / 255).probabilities
    expected = numpy_lenet5.loss(model.get_weights(), truth, small[1].labels, SHORT.l2)
    assert best.validation_loss == pytest.approx(expected, rel=1e-5)
    assert not np.allclose(model.get_weights()[0], plain.get_weights()[0], atol=1e-4)


def test_training_distorts_its_images_and_smooths_its_labels(
    small: tuple[Subset, Subset], trained: Trained
) -> None:
    """Each changes the loss of the first epoch; the seed stays the same."""
    losses = {trained.history.epochs[0].training_loss}
    for changes in ({"shift_pixels": 3.0}, {"label_smoothing": 0.2}):
        _, history = train(SHORT.with_overrides({"epochs": 1, **changes}), *small, seed=5)
        losses.add(history.epochs[0].training_loss)
    assert len(losses) == 3


def test_learning_rates_follow_the_recipe(trained: Trained) -> None:
    rates = SHORT.learning_rates(6)
    assert [epoch.learning_rate for epoch in trained.history.epochs] == [rates[2], rates[5]]


def test_a_second_run_is_identical_to_the_bit_however_the_graph_is_called(
    small: tuple[Subset, Subset], trained: Trained
) -> None:
    """Neither the process's random state nor a slow clock, which makes calls short, matters."""
    tf.random.set_seed(99)
    np.random.seed(99)
    seconds = iter(range(1_000_000))
    model, history = train(SHORT, *small, seed=5, clock=lambda: float(next(seconds)))
    for a, b in zip(model.get_weights(), trained.model.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
    assert [_without_seconds(epoch) for epoch in history.epochs] == [
        _without_seconds(epoch) for epoch in trained.history.epochs
    ]


def test_another_seed_gives_other_weights_and_the_recipes_dropout_stays(
    small: tuple[Subset, Subset], trained: Trained
) -> None:
    recipe = _one_epoch_of(SHORT).with_overrides({"dropout": 0.3})
    model, _ = train(recipe, *small, seed=6)
    assert (model.get_weights()[0] != trained.model.get_weights()[0]).any()
    rates = [layer.rate for layer in model.layers if type(layer) is tf.keras.layers.Dropout]
    assert rates == [0.3, 0.3]


def test_a_loss_that_becomes_nan_ends_training(small: tuple[Subset, Subset]) -> None:
    recipe = SHORT.with_overrides({"learning_rate": 1e30})
    with pytest.raises(DivergenceError, match="epoch 1"):
        train(recipe, *small, seed=0)


def test_progress_counts_images_up_to_the_whole_epoch(trained: Trained) -> None:
    for epoch in (1, 2):
        seen = [progress for progress in trained.progress if progress.epoch == epoch]
        counts = [progress.images for progress in seen]
        assert counts == sorted(counts)
        assert counts[-1] == seen[-1].images_in_epoch == 250
        assert seen[-1].loss == trained.history.epochs[epoch - 1].training_loss
        assert seen[-1].accuracy == trained.history.epochs[epoch - 1].training_accuracy


def test_ctrl_c_keeps_the_finished_epochs(small: tuple[Subset, Subset], trained: Trained) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as caught:
        train(SHORT, *small, seed=5, on_progress=interrupt)
    history = caught.value.history
    assert history.interrupted
    assert [_without_seconds(epoch) for epoch in history.epochs] == [
        _without_seconds(trained.history.epochs[0])
    ]


def test_train_is_never_handed_the_test_images() -> None:
    assert list(inspect.signature(train).parameters)[:4] == [
        "recipe",
        "training",
        "validation",
        "seed",
    ]


def _one_epoch_of(recipe: Recipe) -> Recipe:
    return recipe.with_overrides({"epochs": 1})


def _without_seconds(epoch: training.Epoch) -> tuple[float, ...]:
    return (
        epoch.training_loss,
        epoch.training_accuracy,
        epoch.validation_loss,
        epoch.validation_accuracy,
        epoch.learning_rate,
    )


GOLDEN_ORDER = [9, 4, 0, 8, 1, 5, 3, 2, 6, 7]
