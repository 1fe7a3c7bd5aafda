"""Early stopping as Keras's `EarlyStopping(patience=3, restore_best_weights=True)` means it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lenet5.data import Subset
from lenet5.recipes import RECIPES
from lenet5.training import DivergenceError, History, TrainingInterrupted, run_epochs, train


class Scripted:
    """A model whose only weight is the number of the last epoch, with scripted losses."""

    def __init__(self, validation_losses: list[float]) -> None:
        self.losses = validation_losses
        self.weight = 0

    def get_weights(self) -> list[int]:
        return [self.weight]

    def set_weights(self, weights: list[int]) -> None:
        self.weight = weights[0]

    def train_epoch(self, epoch: int) -> tuple[float, float]:
        self.weight = epoch
        return 1 / epoch, 0.5  # the training loss improves all the time

    def validate(self) -> tuple[float, float]:
        return self.losses[self.weight - 1], 0.5

    def run(self, epochs: int = 20, patience: int | None = 3) -> History:
        return run_epochs(
            self,
            epochs=epochs,
            patience=patience,
            train_epoch=self.train_epoch,
            validate=self.validate,
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


def test_an_equal_loss_is_no_improvement() -> None:
    history = Scripted([5, 5, 5, 5, 1]).run()
    assert len(history.epochs) == 4
    assert history.best_epoch == 1


def test_restores_the_best_weights_when_it_stops() -> None:
    model = Scripted([5, 4, 6, 7, 8])
    assert model.run().stopped_early
    assert model.weight == 2


def test_restores_the_best_weights_when_the_epochs_run_out() -> None:
    model = Scripted([5, 3, 4, 3.5])
    history = model.run(epochs=4)
    assert not history.stopped_early
    assert (model.weight, history.best_epoch) == (2, 2)


def test_runs_through_all_twenty_epochs_while_it_improves() -> None:
    model = Scripted([1 / epoch for epoch in range(1, 21)])
    history = model.run()
    assert [epoch.epoch for epoch in history.epochs] == list(range(1, 21))
    assert (history.best_epoch, model.weight, history.stopped_early) == (20, 20, False)


def test_patience_that_ends_with_the_last_epoch_is_not_stopping_early() -> None:
    assert not Scripted([1, 2, 2, 2]).run(epochs=4).stopped_early


def test_without_patience_it_never_stops() -> None:
    model = Scripted([1.0] + [2.0] * 19)
    assert len(model.run(patience=None).epochs) == 20
    assert model.weight == 1


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_ends_training_with_an_error(loss: float) -> None:
    model = Scripted([5, 4, loss, 1])
    with pytest.raises(DivergenceError, match="epoch 3"):
        model.run()
    assert model.weight == 2


def test_an_interrupted_run_keeps_the_best_of_what_was_finished() -> None:
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


def test_agrees_with_keras() -> None:
    """The same losses, epoch for epoch, stop Keras's own callback at the same epoch."""
    import tensorflow as tf

    random = np.random.RandomState(3)
    for _ in range(20):
        losses = list(random.randint(1, 9, 20).astype(float))
        callback = tf.keras.callbacks.EarlyStopping(monitor="val_loss", patience=3)
        keras_model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
        callback.set_model(keras_model)
        keras_model.stop_training = False
        callback.on_train_begin()
        epochs = 0
        for epoch, loss in enumerate(losses):
            callback.on_epoch_end(epoch, {"val_loss": loss})
            epochs += 1
            if keras_model.stop_training:
                break
        assert len(Scripted(losses).run().epochs) == epochs


def test_training_watches_the_validation_loss_and_not_the_training_loss() -> None:
    """With validation labels that are wrong, fitting makes the validation loss rise: it stops."""
    random = np.random.RandomState(0)
    labels = np.arange(64, dtype=np.uint8) % 10
    images = np.zeros((64, 28, 28, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):  # a bar per digit: learnt at once
        image[2 * label : 2 * label + 4] = 255
    training = Subset(images, labels)
    wrong = Subset(images, (labels + 1 + random.randint(0, 9, 64).astype(np.uint8)) % 10)
    recipe = RECIPES["original"].with_overrides({"batch_size": 8, "epochs": 40})
    _, right = train(recipe.with_overrides({"epochs": 12}), training, training, seed=0)
    _, misled = train(recipe, training, wrong, seed=0)
    assert not right.stopped_early
    assert misled.stopped_early
    assert len(misled.epochs) == misled.best_epoch + 3
    validation = [epoch.validation_loss for epoch in misled.epochs]
    assert misled.best_epoch == 1 + int(np.argmin(validation))
    assert misled.epochs[-1].training_loss < misled.epochs[misled.best_epoch - 1].training_loss
