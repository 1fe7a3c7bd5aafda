"""Early stopping: both engines use Keras's callback with the recipe's settings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lenet5.data import Subset
from lenet5.early_stopping import build_early_stopping
from lenet5.graph_engine import run_epochs
from lenet5.history import DivergenceError, Epoch, History, TrainingInterrupted
from lenet5.recipe import ENGINES
from lenet5.recipes import RECIPES
from lenet5.training import train


class Scripted:
    """A model with the number of the last epoch as its only weight, and scripted losses."""

    def __init__(self, validation_losses: list[float]) -> None:
        self.losses = validation_losses
        self.weight = 0
        self.told: list[Epoch] = []

    def get_weights(self) -> list[int]:
        return [self.weight]

    def set_weights(self, weights: list[int]) -> None:
        self.weight = weights[0]

    def train_epoch(self, epoch: int) -> tuple[float, float]:
        self.weight = epoch
        return 1 / epoch, 0.5  # the training loss always improves

    def validate(self) -> tuple[float, float]:
        return self.losses[self.weight - 1], 0.5

    def run(self, epochs: int = 20, patience: int | None = 3) -> History:
        recipe = RECIPES["original"].with_overrides({"epochs": epochs, "patience": patience})
        return run_epochs(
            self,
            build_early_stopping(recipe),
            epochs=epochs,
            train_epoch=self.train_epoch,
            validate=self.validate,
            on_epoch=self.told.append,
            clock=lambda: 0.0,
        )


def test_stops_after_exactly_three_epochs_without_improvement() -> None:
    history = Scripted([5, 4, 4.5, 4.4, 4.3, 1]).run()
    assert len(history.epochs) == 5
    assert history.stopped_early


def test_a_new_best_resets_the_count() -> None:
    history = Scripted([5, 6, 6, 4, 5, 5, 3, 4, 4, 4, 1]).run()
    assert len(history.epochs) == 10
    assert history.best_epoch == 7


def test_an_equal_loss_is_not_an_improvement() -> None:
    history = Scripted([5, 5, 5, 5, 1]).run()
    assert len(history.epochs) == 4
    assert history.best_epoch == 1


def test_restores_the_best_weights_after_stopping() -> None:
    model = Scripted([5, 4, 6, 7, 8])
    assert model.run().stopped_early
    assert model.weight == 2


def test_restores_the_best_weights_after_the_last_epoch() -> None:
    model = Scripted([5, 3, 4, 3.5])
    history = model.run(epochs=4)
    assert not history.stopped_early
    assert (model.weight, history.best_epoch) == (2, 2)


def test_trains_all_twenty_epochs_while_the_loss_improves() -> None:
    model = Scripted([1 / epoch for epoch in range(1, 21)])
    history = model.run()
    assert [epoch.epoch for epoch in history.epochs] == list(range(1, 21))
    assert (history.best_epoch, model.weight, history.stopped_early) == (20, 20, False)


def test_patience_that_ends_with_the_last_epoch_is_not_early_stopping() -> None:
    assert not Scripted([1, 2, 2, 2]).run(epochs=4).stopped_early


def test_never_stops_without_patience() -> None:
    model = Scripted([1.0] + [2.0] * 19)
    assert len(model.run(patience=None).epochs) == 20
    assert model.weight == 1


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_raises_an_error(loss: float) -> None:
    model = Scripted([5, 4, loss, 1])
    with pytest.raises(DivergenceError, match=f"validation loss is {loss} after epoch 3"):
        model.run()
    assert [epoch.epoch for epoch in model.told] == [1, 2]


def test_an_interrupted_run_keeps_the_best_finished_epoch() -> None:
    model = Scripted([5, 4, 6])
    train_epoch = model.train_epoch

    def interrupted(epoch: int) -> tuple[float, float]:
        if epoch == 4:
            model.weight = 99
            raise KeyboardInterrupt
        return train_epoch(epoch)

    model.train_epoch = interrupted  # type: ignore[method-assign]
    with pytest.raises(TrainingInterrupted) as caught:
        model.run()
    history = caught.value.history
    assert history.interrupted
    assert (len(history.epochs), history.best_epoch, model.weight) == (3, 2, 2)


MISLED = RECIPES["original"].with_overrides({"batch_size": 8, "epochs": 40})


@pytest.fixture(scope="module")
def bars() -> Subset:
    """64 images of a bar at a place given by the digit, learnt almost at once."""
    labels = np.arange(64, dtype=np.uint8) % 10
    images = np.zeros((64, 28, 28, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 4] = 255
    return Subset(images, labels)


@pytest.fixture(scope="module")
def misleading(bars: Subset) -> Subset:
    """The same images with wrong labels, so that training raises their loss."""
    wrong = np.random.RandomState(0).randint(0, 9, 64).astype(np.uint8)
    return Subset(bars.images, (bars.labels + 1 + wrong) % 10)


@pytest.mark.parametrize("engine", ENGINES)
def test_early_stopping_monitors_the_validation_loss(
    bars: Subset, misleading: Subset, engine: str
) -> None:
    recipe = MISLED.with_overrides({"epochs": 12})
    _, right = train(recipe, bars, bars, seed=0, engine=engine)
    _, misled = train(MISLED, bars, misleading, seed=0, engine=engine)
    assert not right.stopped_early
    assert misled.stopped_early
    assert len(misled.epochs) == misled.best_epoch + 3
    validation = [epoch.validation_loss for epoch in misled.epochs]
    assert misled.best_epoch == 1 + int(np.argmin(validation))
    assert misled.epochs[-1].training_loss < misled.epochs[misled.best_epoch - 1].training_loss


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("patience", "decay"), [(2, 0.0), (None, 0.0), (2, 0.5)])
def test_the_model_has_the_weights_of_the_best_epoch(
    bars: Subset, misleading: Subset, engine: str, patience: int | None, decay: float
) -> None:
    """After patience or the last epoch, its bits equal a run that ends with the best epoch.

    This includes weight averages, which `fit` of Keras 2 writes over the restored weights.
    """
    changes = {"epochs": 12, "patience": patience, "average_decay": decay}
    recipe = MISLED.with_overrides(changes)
    model, history = train(recipe, bars, misleading, seed=0, engine=engine)
    assert history.stopped_early == (patience is not None)
    assert history.best_epoch < len(history.epochs)
    short = recipe.with_overrides({"epochs": history.best_epoch})
    best, _ = train(short, bars, misleading, seed=0, engine=engine)
    for ours, theirs in zip(model.get_weights(), best.get_weights(), strict=True):
        assert ours.tobytes() == theirs.tobytes()
