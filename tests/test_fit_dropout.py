"""Dropout inside `fit`: rate, scale, new masks for each step, and none outside training."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf

from lenet5.data import Subset
from lenet5.keras_engine import compile_model
from lenet5.model import build_for
from lenet5.recipe import ENGINES, Recipe
from lenet5.recipes import RECIPES
from lenet5.training import train
from tests.fitting import fit_batches
from tests.watching import Tape

UNITS, ROWS, STEPS, EPOCHS = 400, 16, 3, 2
VALIDATION = np.full((5, UNITS), 3, np.float32)
LENET = RECIPES["original"].with_overrides({"batch_size": 16, "epochs": 2})

each_rate = pytest.mark.parametrize("rate", [0.5, 0.2])


@dataclass(frozen=True)
class Filmed:
    """A model of Dropout and a constant kernel of ones, with Dropout's output.

    Attributes:
        dropped: float32 (epochs * steps, rows, units), output in training on ones.
        validated: output for the batches of validation.
    """

    model: tf.keras.Model
    tape: Tape
    dropped: np.ndarray
    validated: list[np.ndarray]


def film(rate: float, seed: int) -> Filmed:
    tape = Tape()
    tf.keras.utils.set_random_seed(3)
    model = tf.keras.Sequential(
        [
            tf.keras.Input((UNITS,)),
            tf.keras.layers.Dropout(rate, seed=seed),
            tape.layer(),
            tf.keras.layers.Dense(1, use_bias=False, kernel_initializer="ones"),
        ]
    )
    model.compile(optimizer=tf.keras.optimizers.SGD(0.0), loss="mse")
    model.fit(
        np.ones((ROWS * STEPS, UNITS), np.float32),
        np.zeros((ROWS * STEPS, 1), np.float32),
        batch_size=ROWS,
        epochs=EPOCHS,
        validation_data=(VALIDATION, np.zeros((len(VALIDATION), 1), np.float32)),
        verbose=0,
    )
    filmed = Filmed(model, tape, np.array(tape.trained), list(tape.tested))
    tape.clear()
    return filmed


@pytest.fixture(scope="module")
def films() -> dict[float, Filmed]:
    return {rate: film(rate, seed=7) for rate in (0.5, 0.2, 0.0)}


@each_rate
def test_the_stated_share_is_dropped_and_the_rest_scaled(
    films: dict[float, Filmed], rate: float
) -> None:
    """Kept values are multiplied by 1 / (1 - rate), exactly to float32."""
    dropped = films[rate].dropped
    assert dropped.shape == (EPOCHS * STEPS, ROWS, UNITS)
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], 1 / (1 - rate), rtol=3e-7)
    assert abs(kept.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / kept.size)


def test_a_rate_of_0_keeps_everything(films: dict[float, Filmed]) -> None:
    assert (films[0.0].dropped == 1).all()


@each_rate
def test_every_step_epoch_and_row_has_a_mask_of_its_own(
    films: dict[float, Filmed], rate: float
) -> None:
    """Any two masks agree in as many units as expected by chance, and none contains the other."""
    rows = (films[rate].dropped != 0).reshape(-1, UNITS)
    for one, other in itertools.combinations(rows, 2):
        assert _agrees_by_chance(one, other, rate, sigmas=6)  # over 4,560 pairs


@each_rate
def test_units_are_drawn_independently(films: dict[float, Filmed], rate: float) -> None:
    """Units up to 20 apart agree as expected by chance; none is always dropped or always kept."""
    rows = (films[rate].dropped != 0).reshape(-1, UNITS)
    for lag in range(1, 21):
        assert _agrees_by_chance(rows[:, lag:], rows[:, :-lag], rate)
    assert (rows.any(axis=0) & ~rows.all(axis=0)).all()
    deviation = rows.mean(axis=0) - (1 - rate)
    assert abs(deviation).max() < 6 * np.sqrt(rate * (1 - rate) / len(rows))


@each_rate
def test_nothing_is_dropped_where_nothing_is_trained(
    films: dict[float, Filmed], rate: float
) -> None:
    """Validation in `fit`, evaluation, prediction and calls of the model drop nothing."""
    filmed = films[rate]
    assert [batch.tolist() for batch in filmed.validated] == [VALIDATION.tolist()] * EPOCHS
    images = np.arange(7 * UNITS, dtype=np.float32).reshape(7, UNITS) % 7  # sums are exact
    sums = images.sum(axis=1, keepdims=True)
    filmed.tape.clear()
    assert filmed.model.evaluate(images, sums, batch_size=4, verbose=0) == 0
    answers = [
        filmed.model.predict(images, batch_size=4, verbose=0),
        filmed.model.predict_on_batch(images),
        filmed.model(images, training=False).numpy(),
        filmed.model(images).numpy(),
    ]
    for answer in answers:
        np.testing.assert_array_equal(answer, sums)
    assert not filmed.tape.trained
    np.testing.assert_array_equal(np.concatenate(filmed.tape.tested), np.tile(images, (5, 1)))


def test_a_training_call_drops(films: dict[float, Filmed]) -> None:
    filmed = films[0.5]
    filmed.tape.clear()
    filmed.model(np.ones((ROWS, UNITS), np.float32), training=True)
    (dropped,) = filmed.tape.trained
    assert abs((dropped != 0).mean() - 0.5) < 5 * np.sqrt(0.25 / dropped.size)


def test_masks_depend_on_the_seed(
    films: dict[float, Filmed],
) -> None:
    np.testing.assert_array_equal(film(0.5, seed=7).dropped, films[0.5].dropped)
    other = film(0.5, seed=8).dropped != 0
    assert _agrees_by_chance(other, films[0.5].dropped != 0, 0.5)


def test_gradients_go_through_what_is_kept_and_nowhere_else() -> None:
    """A step of SGD changes each weight by the mean over the rows of input times mask."""
    tape = Tape()
    tf.keras.utils.set_random_seed(4)
    kernel = tf.keras.layers.Dense(UNITS, use_bias=False)
    model = tf.keras.Sequential(
        [
            tf.keras.Input((1,)),
            kernel,
            tf.keras.layers.Dropout(0.2, seed=1),
            tape.layer(),
        ]
    )
    model.compile(
        optimizer=tf.keras.optimizers.SGD(1.0),
        loss=lambda _, outputs: tf.reduce_sum(outputs, axis=-1),
    )
    images = np.random.RandomState(0).rand(ROWS, 1).astype(np.float32)
    (before,) = kernel.get_weights()
    model.fit(
        images, np.zeros((ROWS, UNITS), np.float32), batch_size=ROWS, shuffle=False, verbose=0
    )
    (dropped,) = tape.trained
    mask = np.where(dropped != 0, 1 / 0.8, 0)
    np.testing.assert_allclose(dropped, images * before * mask, rtol=1e-6)
    step = kernel.get_weights()[0][0] - before[0]
    np.testing.assert_allclose(step, -(images * mask).mean(axis=0), rtol=1e-5, atol=1e-6)


@dataclass(frozen=True)
class Around:
    """Input and output of a dropout layer."""

    before: Tape
    after: Tape

    def kept(self) -> np.ndarray:
        """Returns the kept units of all training images, bool (images, units)."""
        return np.asarray(np.concatenate(self.after.trained) != 0)


@pytest.fixture(scope="module")
def noise() -> Subset:
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (72, 28, 28, 1)).astype(np.uint8)
    return Subset(images, random.randint(0, 10, 72).astype(np.uint8))


@pytest.fixture(scope="module")
def lenet(noise: Subset) -> tuple[Around, Around]:
    """Both dropout layers of LeNet-5 in the engine's setup: 2 epochs of 72 images."""
    around = Around(Tape(), Tape()), Around(Tape(), Tape())
    tf.keras.utils.set_random_seed(2)
    unwatched = build_for(LENET, seed=2)
    layers = [tf.keras.Input((28, 28, 1))]
    watches = iter(around)
    for layer in unwatched.layers:
        if type(layer) is tf.keras.layers.Dropout:
            watch = next(watches)
            layers += [watch.before.layer(), layer, watch.after.layer()]
        else:
            layers.append(layer)
    model = tf.keras.Sequential(layers)
    compile_model(model, LENET, steps=10)
    pixels = noise.images / np.float32(255)
    validation = (pixels, noise.labels.astype(np.int32))
    fit_batches(model, LENET, noise, seed=2, epochs=2, validation_data=validation)
    return around


@pytest.mark.parametrize("which", [0, 1])
def test_both_layers_of_lenet5_drop_half_and_double_the_rest(
    lenet: tuple[Around, Around], which: int
) -> None:
    before, after = (
        np.concatenate(tape.trained) for tape in (lenet[which].before, lenet[which].after)
    )
    kept = lenet[which].kept()
    assert kept.shape == (2 * 72, (120, 84)[which])
    np.testing.assert_allclose(after[kept], 2 * before[kept], rtol=1e-6)
    assert abs(kept.mean() - 0.5) < 5 * np.sqrt(0.25 / kept.size)
    for one, other in itertools.combinations(kept, 2):
        assert _agrees_by_chance(one, other, 0.5, sigmas=6)


def test_both_layers_of_lenet5_have_separate_masks(lenet: tuple[Around, Around]) -> None:
    assert _agrees_by_chance(lenet[0].kept()[:, :84], lenet[1].kept(), 0.5)


@pytest.mark.parametrize("which", [0, 1])
def test_neither_layer_of_lenet5_drops_in_validation(
    lenet: tuple[Around, Around], which: int
) -> None:
    before, after = lenet[which].before.tested, lenet[which].after.tested
    assert sum(map(len, after)) == 2 * 72
    np.testing.assert_array_equal(np.concatenate(after), np.concatenate(before))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_recipes_rate_is_in_force_in_both_layers(noise: Subset, engine: str) -> None:
    """After one step on one image, weights from a dropped unit have their initial values."""
    rate = 0.2
    changes = {"batch_size": 1, "epochs": 1, "dropout": rate, "l2": 0.0}
    recipe: Recipe = LENET.with_overrides(changes)
    one = Subset(noise.images[:1], noise.labels[:1])
    model, _ = train(recipe, one, one, seed=11, engine=engine)
    pairs = zip(build_for(recipe, seed=11).get_weights(), model.get_weights(), strict=True)
    dropped = [(before == after).all(axis=1) for before, after in list(pairs)[6:9:2]]
    assert [len(units) for units in dropped] == [120, 84]
    for units in dropped:
        assert abs(units.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / len(units))


def _agrees_by_chance(
    one: np.ndarray, other: np.ndarray, rate: float, *, sigmas: float = 5
) -> bool:
    """Whether two masks agree in as many places as independent ones."""
    chance = rate**2 + (1 - rate) ** 2
    deviation = abs((one == other).mean() - chance)
    return bool(deviation < sigmas * np.sqrt(chance * (1 - chance) / one.size))
