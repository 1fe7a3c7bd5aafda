"""Keras's early stopping inside `fit`, with scripted losses, and in both engines."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench.verdicts import numpy_lenet5
from lenet5.data import Subset
from lenet5.early_stopping import build_early_stopping, restore_best_weights
from lenet5.graph_engine import run_epochs
from lenet5.recipe import ENGINES
from lenet5.recipes import RECIPES
from lenet5.runtime import keras_version, restores_best_weights_at_the_end
from lenet5.training import train

RISING = [5.0, 4.0, 6.0, 7.0, 8.0, 9.0, 9.5]  # the second epoch is the best


class Script(tf.keras.callbacks.Callback):  # type: ignore[misc]  # TensorFlow has no types
    """Sets the weight to the epoch's number, and the validation loss to the script's.

    Loss and accuracy of training always improve.
    """

    def __init__(self, losses: Sequence[float]) -> None:
        super().__init__()
        self.losses = losses
        self.epochs = 0  # number of trained epochs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs = epoch + 1
        self.model.set_weights([np.full((1, 1), epoch + 1, np.float32)])
        logs.update(loss=1 / (epoch + 1), accuracy=1 - 1 / (epoch + 2), val_loss=self.losses[epoch])


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    """A model whose only weight comes from the script, since its learning rate is 0."""
    model = tf.keras.Sequential(
        [tf.keras.Input((1,)), tf.keras.layers.Dense(1, use_bias=False)], name="scripted"
    )
    model.compile(optimizer=tf.keras.optimizers.SGD(0.0), loss="mse")
    return model


def scripted_fit(
    model: tf.keras.Model, callback: Any, losses: Sequence[float], epochs: int | None = None
) -> tuple[int, int]:
    """Runs `fit` with these validation losses.

    Returns:
        The number of trained epochs, and the epoch of the final weights.
    """
    script = Script(losses)
    one = np.ones((1, 1), np.float32)
    told = model.fit(
        one, one, epochs=epochs or len(losses), callbacks=[script, callback], verbose=0
    )
    assert told.epoch == list(range(script.epochs))
    return script.epochs, weight_of(model)


def weight_of(model: tf.keras.Model) -> int:
    return int(model.get_weights()[0].item())


def stopping(patience: int | None, epochs: int = 20) -> Any:
    """Returns the callback of a recipe."""
    return build_early_stopping(
        RECIPES["original"].with_overrides({"patience": patience, "epochs": epochs})
    )


def by_hand(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """Returns the number of trained epochs, and the best epoch."""
    best, lowest = 0, math.inf
    for epoch, loss in enumerate(losses, start=1):
        if loss < lowest:
            best, lowest = epoch, loss
        elif epoch - best == patience:
            return epoch, best
    return len(losses), best


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
def test_stops_after_exactly_the_patience_with_the_best_weights(
    model: tf.keras.Model, patience: int
) -> None:
    callback = stopping(patience)
    assert scripted_fit(model, callback, RISING) == (2 + patience, 2)
    assert callback.stopped_epoch == 2 + patience - 1  # Keras counts from 0
    assert callback.best == 4.0
    best = restore_best_weights(callback, model, interrupted=False)
    assert (best, weight_of(model)) == (2, 2)


def test_a_new_best_resets_the_count(model: tf.keras.Model) -> None:
    losses = [5, 6, 6, 4, 5, 5, 3, 4, 4, 4, 1]
    assert scripted_fit(model, stopping(3), losses) == (10, 7)


@pytest.mark.parametrize("later", [5.0, 6.0, math.inf, math.nan])
def test_a_loss_that_is_not_lower_is_not_an_improvement(
    model: tf.keras.Model, later: float
) -> None:
    assert scripted_fit(model, stopping(3), [5.0, later, later, later, 1.0]) == (4, 1)


def test_the_smallest_decrease_is_an_improvement(model: tf.keras.Model) -> None:
    losses = [1.0, *(np.nextafter(1.0, 0) - step * 2**-53 for step in range(5))]
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    assert scripted_fit(model, stopping(1), losses) == (6, 6)


@pytest.mark.parametrize("patience", [10, None])
def test_the_best_weights_are_restored_after_the_last_epoch(
    model: tf.keras.Model, patience: int | None
) -> None:
    """Keras 3 restores them; for Keras 2, `restore_best_weights` replaces the last weights."""
    callback = stopping(patience)
    last = 2 if restores_best_weights_at_the_end() else 7
    assert scripted_fit(model, callback, RISING) == (7, last)
    assert callback.stopped_epoch == 0
    assert restore_best_weights(callback, model, interrupted=False) == 2
    assert weight_of(model) == 2


def test_an_interrupted_fit_gets_its_best_weights(model: tf.keras.Model) -> None:
    class Interrupt(tf.keras.callbacks.Callback):  # type: ignore[misc]  # TensorFlow has no types
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002  # Keras's
            if epoch == 4:
                raise KeyboardInterrupt

    callback = stopping(10)
    one = np.ones((1, 1), np.float32)
    with pytest.raises(KeyboardInterrupt):
        model.fit(one, one, epochs=9, callbacks=[Script(RISING), callback, Interrupt()], verbose=0)
    assert weight_of(model) == 4
    assert restore_best_weights(callback, model, interrupted=True) == 2
    assert weight_of(model) == 2


@pytest.mark.parametrize(("losses", "epochs"), [(RISING, 5), ([4.0, 3.0, 2.0, 1.0], 4)])
def test_the_last_weights_stay_without_restoring(
    model: tf.keras.Model, losses: list[float], epochs: int
) -> None:
    callback = tf.keras.callbacks.EarlyStopping(monitor="val_loss", patience=3)
    assert scripted_fit(model, callback, losses) == (epochs, epochs)


@pytest.mark.parametrize(
    ("monitor", "mode"), [("loss", "min"), ("loss", "auto"), ("accuracy", "max")]
)
def test_the_monitored_value_decides(model: tf.keras.Model, monitor: str, mode: str) -> None:
    """Training loss and accuracy always improve, so training never stops early."""
    callback = tf.keras.callbacks.EarlyStopping(
        monitor=monitor, mode=mode, patience=1, restore_best_weights=True
    )
    assert scripted_fit(model, callback, RISING) == (7, 7)


def test_the_mode_max_prefers_higher_values(model: tf.keras.Model) -> None:
    callback = tf.keras.callbacks.EarlyStopping(
        monitor="val_loss", mode="max", patience=2, restore_best_weights=True
    )
    assert scripted_fit(model, callback, [1, 2, 8, 7, 8, 9]) == (5, 3)


def test_a_decrease_below_min_delta_is_not_an_improvement(model: tf.keras.Model) -> None:
    """Steps of 0.5 below the best loss add up until they exceed 0.75."""
    callback = tf.keras.callbacks.EarlyStopping(
        monitor="val_loss", min_delta=0.75, patience=2, restore_best_weights=True
    )
    losses = [4.0, 3.5, 3.0, 2.25, 2.0, 1.0, 0.5, 0.4]
    assert scripted_fit(model, callback, losses) == (8, 6)


def test_a_baseline_that_is_not_reached_ends_training(model: tf.keras.Model) -> None:
    callback = tf.keras.callbacks.EarlyStopping(monitor="val_loss", baseline=3.0, patience=3)
    assert scripted_fit(model, callback, [9, 2, 3, 3, 3, 1]) == (5, 5)
    assert scripted_fit(model, callback, [9, 9, 9, 9, 9, 1])[0] in (3, 4)


def test_epochs_before_start_from_epoch_do_not_count(model: tf.keras.Model) -> None:
    callback = tf.keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=2, start_from_epoch=3, restore_best_weights=True
    )
    assert scripted_fit(model, callback, [1, 2, 3, 9, 10, 10, 1]) == (6, 4)


def test_a_second_fit_with_a_new_callback_gives_the_same_result(model: tf.keras.Model) -> None:
    for _ in range(2):
        assert scripted_fit(model, stopping(2), RISING) == (4, 2)


def test_a_second_fit_with_the_same_callback_resets_the_patience(model: tf.keras.Model) -> None:
    """All its losses are below the first fit's best, so that this best has no influence."""
    callback = stopping(2)
    assert scripted_fit(model, callback, RISING) == (4, 2)
    assert callback.stopped_epoch == 3
    assert scripted_fit(model, callback, [1.0, 0.9, 0.8, 0.7]) == (4, 4)
    assert (callback.stopped_epoch, callback.wait) == (0, 0)
    assert scripted_fit(model, callback, [0.5, 0.6, 0.4, 0.5, 0.6, 0.1]) == (5, 3)


def test_a_second_fit_resets_the_best_loss_if_keras_promises_it(
    model: tf.keras.Model,
) -> None:
    """Keras 3.0 to 3.6 and 3.11 to 3.14 keep the lowest loss; they reset only weights and wait."""
    callback = stopping(2)
    assert scripted_fit(model, callback, RISING) == (4, 2)
    version = tuple(int(part) for part in keras_version().split(".")[:2])
    forgets = version < (3, 0) or (3, 7) <= version < (3, 11) or version >= (3, 15)
    expected = (5, 3) if forgets else (2, 1)
    losses = [10.0, 9.0, 8.0, 8.5, 8.6, 8.7]
    assert scripted_fit(model, callback, losses) == expected


SCRIPTS = [np.round(np.cumsum(np.random.RandomState(seed).randn(12)) / 2) / 4 for seed in range(8)]


@pytest.mark.parametrize("losses", SCRIPTS, ids=range(len(SCRIPTS)))
def test_both_engines_and_a_manual_count_agree(model: tf.keras.Model, losses: np.ndarray) -> None:
    """Random walks with equal losses: number of trained epochs, and best epoch."""
    callback = stopping(3)
    epochs, _ = scripted_fit(model, callback, list(losses))
    best = restore_best_weights(callback, model, interrupted=False)
    assert (epochs, best, weight_of(model)) == (*by_hand(list(losses), 3), best)

    def train_epoch(epoch: int) -> tuple[float, float]:
        model.set_weights([np.full((1, 1), epoch, np.float32)])
        return 1 / epoch, 0.5

    history = run_epochs(
        model,
        stopping(3),
        epochs=len(losses),
        train_epoch=train_epoch,
        validate=lambda: (float(losses[weight_of(model) - 1]), 0.5),
    )
    assert (len(history.epochs), history.best_epoch, weight_of(model)) == (epochs, best, best)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_averages_that_are_returned_have_the_loss_of_the_best_epoch(engine: str) -> None:
    """The last epoch is not the best one; NumPy gives the expected loss."""
    labels = np.arange(32, dtype=np.uint8) % 10
    images = np.zeros((32, 28, 28, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 4] = 255
    training, misleading = Subset(images, labels), Subset(images, (labels + 3) % 10)
    changes = {
        "batch_size": 8,
        "epochs": 6,
        "patience": None,
        "average_decay": 0.5,
        "learning_rate": 3e-3,
        "dropout": 0.0,
    }
    recipe = RECIPES["original"].with_overrides(changes)
    model, history = train(recipe, training, misleading, seed=0, engine=engine)
    losses = [epoch.validation_loss for epoch in history.epochs]
    assert (len(losses), history.best_epoch) == (6, 1 + int(np.argmin(losses)))
    assert history.best_epoch < len(losses)
    assert not history.stopped_early
    truth = numpy_lenet5.forward(model.get_weights(), images / 255).probabilities
    loss = numpy_lenet5.loss(model.get_weights(), truth, misleading.labels, recipe.l2)
    assert losses[history.best_epoch - 1] == pytest.approx(loss, rel=1e-5)
    others = [other for epoch, other in enumerate(losses, 1) if epoch != history.best_epoch]
    assert all(other != pytest.approx(loss, rel=1e-4) for other in others)
