"""Training with either engine learns, repeats to the bit, and never sees the test images."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench.verdicts import numpy_lenet5
from lenet5 import graph_engine, training
from lenet5.data import Dataset, Subset
from lenet5.errors import InputError
from lenet5.history import DivergenceError, Epoch, History, Progress, TrainingInterrupted
from lenet5.model import build_model
from lenet5.recipe import ENGINES
from lenet5.recipes import RECIPES
from lenet5.steps import StepLoop, build_step_loop, epoch_order
from lenet5.training import train

SHORT = RECIPES["fast"].with_overrides({"epochs": 2, "batch_size": 100})

each_engine = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(scope="module")
def small(digits: Dataset) -> tuple[Subset, Subset]:
    """250 training images, with a last batch of 50 at size 100, and 100 validation images."""
    return (
        Subset(digits.training.images[:250], digits.training.labels[:250]),
        Subset(digits.validation.images[:100], digits.validation.labels[:100]),
    )


@dataclass(frozen=True)
class Trained:
    """A run of the recipe SHORT with seed 5 and a constant clock."""

    engine: str
    model: tf.keras.Model
    history: History
    progress: list[Progress]
    told: list[Epoch]


@pytest.fixture(scope="module", params=ENGINES)
def trained(small: tuple[Subset, Subset], request: pytest.FixtureRequest) -> Trained:
    seen: list[Progress] = []
    told: list[Epoch] = []
    model, history = train(
        SHORT,
        *small,
        seed=5,
        engine=request.param,
        on_progress=seen.append,
        on_epoch=told.append,
        clock=lambda: 0.0,
    )
    return Trained(request.param, model, history, seen, told)


def test_every_epoch_visits_each_image_once_in_an_order_of_its_own() -> None:
    orders = [epoch_order(1000, seed=3, epoch=epoch) for epoch in (1, 2)]
    for order in orders:
        assert sorted(order) == list(range(1000))
    assert (orders[0] != orders[1]).any()
    assert (orders[0] != epoch_order(1000, seed=4, epoch=1)).any()
    assert (orders[0] == epoch_order(1000, seed=3, epoch=1)).all()


def test_order_is_the_same_in_every_numpy() -> None:
    assert epoch_order(10, seed=0, epoch=1).tolist() == GOLDEN_ORDER


def test_the_graph_takes_the_small_last_batch_along(
    small: tuple[Subset, Subset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each epoch of 2.5 batches, the loop gets every index once, in the epoch's order."""
    handed: list[np.ndarray] = []
    build = build_step_loop

    def spying(*arguments: object) -> StepLoop:
        run_steps = build(*arguments)  # type: ignore[arg-type]

        def spy(
            order: np.ndarray, rates: np.ndarray, first: int, steps: int
        ) -> tuple[np.ndarray, int]:
            losses, correct = run_steps(order, rates, first, steps)
            assert len(losses) == steps == -(-len(order) // 100)
            handed.append(order)
            return losses, correct

        return replace(run_steps, run_steps=spy)

    monkeypatch.setattr(graph_engine, "build_step_loop", spying)
    train(SHORT, *small, seed=1, engine="graph")
    visited = np.concatenate(handed)
    assert visited.tolist() == [*epoch_order(250, 1, 1), *epoch_order(250, 1, 2)]


@each_engine
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_first_step_agrees_with_numpy(
    small: tuple[Subset, Subset], engine: str, smoothing: float
) -> None:
    """In an epoch of one batch without dropout, loss and accuracy are the untrained model's.

    NumPy uses pixels divided by 255. The validation loss belongs to the weights after the step.
    Label smoothing spreads a tenth of each label over all ten classes, in both losses.
    """
    changes = {"epochs": 1, "batch_size": 250, "dropout": 0.0, "label_smoothing": smoothing}
    model, history = train(SHORT.with_overrides(changes), *small, seed=1, engine=engine)
    (epoch,) = history.epochs
    found = (epoch.training_loss, epoch.training_accuracy)
    assert found == _approximately(build_model(seed=1).get_weights(), small[0], smoothing)
    assert _validation(epoch) == _approximately(model.get_weights(), small[1], smoothing)


def test_history_describes_the_returned_model(
    small: tuple[Subset, Subset], trained: Trained
) -> None:
    best = trained.history.epochs[trained.history.best_epoch - 1]
    assert _validation(best) == _approximately(trained.model.get_weights(), small[1])


@each_engine
def test_training_learns(digits: Dataset, engine: str) -> None:
    recipe = SHORT.with_overrides({"epochs": 4, "batch_size": 32, "dropout": 0.0})
    _, history = train(recipe, digits.training, digits.validation, seed=1, engine=engine)
    assert history.epochs[-1].training_loss < 0.6 * history.epochs[0].training_loss
    assert history.epochs[-1].validation_accuracy > 0.9


def test_the_model_has_the_averages_if_the_recipe_has_them(
    small: tuple[Subset, Subset], trained: Trained
) -> None:
    """Epochs are compared by the averages, which differ from the trained weights.

    The model is not compiled: its file would name a schedule unknown to other Keras installations.
    """
    recipe = SHORT.with_overrides({"average_decay": 0.9})
    model, history = train(recipe, *small, seed=5, engine=trained.engine)
    best = history.epochs[history.best_epoch - 1]
    assert _validation(best) == _approximately(model.get_weights(), small[1])
    plain = trained.model.get_weights()[0]
    assert not np.allclose(model.get_weights()[0], plain, atol=1e-4)
    trained_losses = [epoch.training_loss for epoch in trained.history.epochs]
    assert [epoch.training_loss for epoch in history.epochs] == pytest.approx(trained_losses)
    assert getattr(model, "optimizer", None) is None


def test_only_training_images_are_distorted(small: tuple[Subset, Subset], trained: Trained) -> None:
    """With the same seed and rates, distortions change the loss of the first epoch."""
    recipe = SHORT.with_overrides({"shift_pixels": 3.0})
    model, history = train(recipe, *small, seed=5, engine=trained.engine)
    undistorted = trained.history.epochs[0].training_loss
    assert history.epochs[0].training_loss != pytest.approx(undistorted, rel=1e-4)
    best = history.epochs[history.best_epoch - 1]
    assert _validation(best) == _approximately(model.get_weights(), small[1])


def test_learning_rates_follow_the_recipe(trained: Trained) -> None:
    rates = SHORT.learning_rates(6)[[2, 5]]
    found = [epoch.learning_rate for epoch in trained.history.epochs]
    assert found == pytest.approx(list(rates), rel=1e-6)


def test_a_second_run_is_identical_to_the_bit(
    small: tuple[Subset, Subset], trained: Trained
) -> None:
    """The process's random state has no influence, nor has a slow clock, which shortens calls."""
    tf.random.set_seed(99)
    np.random.seed(99)
    seconds = iter(range(1_000_000))
    model, history = train(
        SHORT, *small, seed=5, engine=trained.engine, clock=lambda: float(next(seconds))
    )
    assert _bits(model) == _bits(trained.model)
    assert list(map(_without_seconds, history.epochs)) == list(
        map(_without_seconds, trained.history.epochs)
    )


def test_weights_depend_on_the_seed_and_dropout_on_the_recipe(
    small: tuple[Subset, Subset], trained: Trained
) -> None:
    recipe = SHORT.with_overrides({"epochs": 1, "dropout": 0.3})
    model, _ = train(recipe, *small, seed=6, engine=trained.engine)
    assert (model.get_weights()[0] != trained.model.get_weights()[0]).any()
    rates = [layer.rate for layer in model.layers if type(layer) is tf.keras.layers.Dropout]
    assert rates == [0.3, 0.3]


@each_engine
def test_a_nan_loss_ends_training(small: tuple[Subset, Subset], engine: str) -> None:
    recipe = SHORT.with_overrides({"learning_rate": 1e30})
    with pytest.raises(DivergenceError, match=r"in epoch 1, step [1-3]$"):
        train(recipe, *small, seed=0, engine=engine)


def test_progress_counts_all_images_of_the_epoch(trained: Trained) -> None:
    for epoch in (1, 2):
        seen = [progress for progress in trained.progress if progress.epoch == epoch]
        counts = [progress.images for progress in seen]
        assert counts == sorted(counts)
        assert counts[-1] == seen[-1].images_in_epoch == 250
        assert seen[-1].epochs == 2
        assert seen[-1].loss == trained.history.epochs[epoch - 1].training_loss
        assert seen[-1].accuracy == trained.history.epochs[epoch - 1].training_accuracy


def test_epochs_are_reported_in_order(trained: Trained) -> None:
    assert [epoch.epoch for epoch in trained.told] == [1, 2]
    assert tuple(trained.told) == trained.history.epochs


def test_ctrl_c_keeps_the_finished_epochs(small: tuple[Subset, Subset], trained: Trained) -> None:
    """The model has the weights after the first epoch, not the weights at the interruption."""

    def interrupt(progress: Progress) -> None:
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as caught:
        train(SHORT, *small, seed=5, engine=trained.engine, on_progress=interrupt)
    history = caught.value.history
    assert history.interrupted
    assert [_without_seconds(epoch) for epoch in history.epochs] == [
        _without_seconds(trained.history.epochs[0])
    ]
    assert history.best_epoch == 1
    weights = caught.value.model.get_weights()
    assert _validation(history.epochs[0]) == _approximately(weights, small[1])


@each_engine
def test_ctrl_c_while_an_epoch_is_reported_keeps_that_epoch(
    small: tuple[Subset, Subset], engine: str
) -> None:
    """History and model agree: the reported epoch is finished, and is the best."""

    def interrupt(_: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as caught:
        train(SHORT, *small, seed=5, engine=engine, on_epoch=interrupt)
    history = caught.value.history
    assert (len(history.epochs), history.best_epoch, history.interrupted) == (1, 1, True)
    weights = caught.value.model.get_weights()
    assert _validation(history.epochs[0]) == _approximately(weights, small[1])


@each_engine
def test_ctrl_c_in_the_first_epoch_leaves_no_best_epoch(
    small: tuple[Subset, Subset], engine: str
) -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as caught:
        train(SHORT, *small, seed=5, engine=engine, on_progress=interrupt)
    history = caught.value.history
    assert (history.epochs, history.best_epoch, history.interrupted) == ((), 0, True)


@pytest.mark.parametrize("asked", [None, *ENGINES])
def test_the_requested_engine_trains(
    small: tuple[Subset, Subset], monkeypatch: pytest.MonkeyPatch, asked: str | None
) -> None:
    """The default engine is `keras`."""
    answers = {engine: (build_model(), History(best_epoch=n)) for n, engine in enumerate(ENGINES)}
    for engine, answer in answers.items():
        monkeypatch.setitem(training._TRAIN, engine, lambda *_, answer=answer, **__: answer)
    more: dict[str, Any] = {} if asked is None else {"engine": asked}
    assert train(SHORT, *small, seed=5, **more) == answers[asked or "keras"]


def test_an_unknown_engine_is_refused(small: tuple[Subset, Subset]) -> None:
    with pytest.raises(InputError) as caught:
        train(SHORT, *small, seed=5, engine="products")
    assert str(caught.value) == "unknown engine 'products': choose keras or graph"


def test_train_has_no_parameter_for_test_images() -> None:
    assert list(inspect.signature(train).parameters)[:4] == [
        "recipe",
        "training",
        "validation",
        "seed",
    ]


def _validation(epoch: Epoch) -> tuple[float, float]:
    return epoch.validation_loss, epoch.validation_accuracy


def _approximately(
    weights: list[np.ndarray], subset: Subset, smoothing: float = 0.0
) -> tuple[object, object]:
    """Returns NumPy's loss and accuracy on a subset, without dropout, with SHORT's L2 penalty."""
    truth = numpy_lenet5.forward(weights, subset.images / 255).probabilities
    hard = -np.log(truth[np.arange(len(truth)), subset.labels]).mean()
    even = -np.log(truth).mean()  # as if all classes were equally correct
    penalty = numpy_lenet5.loss(weights, truth, subset.labels, SHORT.l2) - hard
    loss = (1 - smoothing) * hard + smoothing * even + penalty
    accuracy = (truth.argmax(axis=1) == subset.labels).mean()
    return pytest.approx(loss, rel=1e-5), pytest.approx(accuracy, rel=1e-6)


def _bits(model: tf.keras.Model) -> list[bytes]:
    return [weight.tobytes() for weight in model.get_weights()]


def _without_seconds(epoch: Epoch) -> Epoch:
    return replace(epoch, train_seconds=0.0)


GOLDEN_ORDER = [9, 4, 0, 8, 1, 5, 3, 2, 6, 7]
