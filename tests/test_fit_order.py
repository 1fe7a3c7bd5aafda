"""Order of images in `fit`: each once per epoch, in a new order, with its label."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lenet5 import keras_engine
from lenet5.data import Subset
from lenet5.model import build_for
from lenet5.recipe import Recipe
from lenet5.recipes import RECIPES
from lenet5.runtime import keras_version, steps_per_execution
from lenet5.training import train
from tests.fitting import fit_batches
from tests.watching import Tape, bits

COUNT, SIZE = 250, 100
SIZES = [100, 100, 50]
PLAIN = RECIPES["original"].with_overrides({"batch_size": SIZE, "epochs": 2})
DISTORTED = RECIPES["best"].with_overrides({"batch_size": SIZE, "epochs": 2})
LABELS = (np.arange(COUNT) * 7 // 3 % 10).astype(np.uint8)
X, Y = np.arange(COUNT, dtype=np.float32)[:, None], LABELS.astype(np.float32)[:, None]

each_recipe = pytest.mark.parametrize("recipe", [PLAIN, DISTORTED], ids=["plain", "distorted"])


@pytest.fixture(scope="module")
def numbered() -> Subset:
    """Images of one grey each, equal to their number, which survives distortions."""
    grey = np.arange(COUNT, dtype=np.uint8)[:, None, None, None]
    return Subset(np.tile(grey, (1, 28, 28, 1)), LABELS)


@dataclass(frozen=True)
class Filmed:
    """A model that learns nothing, with its recorded images and labels."""

    model: tf.keras.Model
    images: Tape
    labels: list[np.ndarray]

    def clear(self) -> None:
        self.images.clear()
        self.labels.clear()


def film(shape: tuple[int, ...], steps_per_call: int = 1) -> Filmed:
    """Returns a compiled model that records its images; its metric records the labels."""
    images, labels = Tape(), []

    def told(targets: np.ndarray) -> np.ndarray:
        labels.append(np.array(targets))
        return np.array(0, np.float32)

    def label(targets: Any, _: Any) -> Any:
        with tf.control_dependencies([tf.numpy_function(told, [targets], tf.float32)]):
            return tf.zeros(tf.shape(targets)[:1])

    model = tf.keras.Sequential(
        [
            tf.keras.Input(shape),
            images.layer(),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(1, kernel_initializer="zeros"),
        ]
    )
    model.compile(
        optimizer=tf.keras.optimizers.SGD(0.0),
        loss=lambda _, outputs: tf.reduce_sum(outputs, axis=-1),
        metrics=[label],
        steps_per_execution=steps_per_execution(steps_per_call),
    )
    return Filmed(model, images, labels)


@pytest.fixture(scope="module")
def on_images() -> Filmed:
    return film((28, 28, 1))


@pytest.fixture(scope="module", params=[1, 16])
def on_numbers(request: pytest.FixtureRequest) -> Filmed:
    """A model with 1 step and, if Keras can, 16 steps per call into the graph."""
    return film((1,), request.param)


def engine_fit(filmed: Filmed, recipe: Recipe, subset: Subset, seed: int) -> list[np.ndarray]:
    """Returns the images of all steps in two epochs of `fit` on the engine's batches."""
    filmed.clear()
    tf.keras.utils.set_random_seed(seed)
    fit_batches(filmed.model, recipe, subset, seed=seed, epochs=2)
    return list(filmed.images.trained)


def array_fit(filmed: Filmed, **options: Any) -> list[list[int]]:
    """Returns the numbers in each of two epochs of `fit` on arrays; checks labels and sizes."""
    filmed.clear()
    options = {"batch_size": SIZE, "epochs": 2, "verbose": 0, **options}
    filmed.model.fit(X, Y, **options)
    return epochs_of(filmed)


def epochs_of(filmed: Filmed, count: int = COUNT, size: int = SIZE) -> list[list[int]]:
    """Returns the numbers in each epoch; checks the batches' sizes and labels."""
    sizes = [len(batch) for batch in filmed.images.trained]
    epoch = [size] * (count // size) + ([count % size] if count % size else [])
    assert sizes == epoch * (sum(sizes) // count)
    numbers = np.rint(np.concatenate(filmed.images.trained)).astype(int).reshape(-1)
    assert np.concatenate(filmed.labels).reshape(-1).tolist() == LABELS[numbers].tolist()
    return [list(part) for part in numbers.reshape(-1, count).tolist()]


def numbers_of(images: list[np.ndarray]) -> np.ndarray:
    """Returns the numbers of grey images from their centre pixel."""
    return np.asarray(np.rint(np.concatenate(images)[:, 14, 14, 0] * 255), int)


def assert_unlike(one: Any, other: Any) -> None:
    """Asserts that two orders have no more in common than two independent ones.

    On average, independent orders share one number in the same place and one pair of neighbours;
    more than 9 occur once in ten million. The rank correlation must be within five standard
    deviations of 0. A shuffle with a small buffer does not achieve this.
    """
    one, other = np.asarray(one), np.asarray(other)
    assert (one == other).sum() <= 9
    neighbours = [set(itertools.pairwise(order.tolist())) for order in (one, other)]
    assert len(neighbours[0] & neighbours[1]) <= 9
    assert abs(np.corrcoef(np.argsort(one), np.argsort(other))[0, 1]) <= 5 / np.sqrt(len(one))


@each_recipe
def test_the_engines_batches_have_each_image_once_per_epoch(
    on_images: Filmed, numbered: Subset, recipe: Recipe
) -> None:
    """Batches have the recipe's size, except for a smaller last one, and the right labels."""
    images = engine_fit(on_images, recipe, numbered, seed=1)
    assert [len(batch) for batch in images] == SIZES * 2
    numbers = numbers_of(images)
    for epoch in numbers.reshape(2, COUNT):
        assert sorted(epoch) == list(range(COUNT))
    labels = np.concatenate(on_images.labels)
    if recipe.label_smoothing > 0:
        assert (np.sort(labels, axis=1) == np.eye(10)[9]).all()
        labels = labels.argmax(axis=1)
    assert labels.reshape(-1).tolist() == LABELS[numbers].tolist()


@each_recipe
def test_the_engines_order_changes_with_epoch_and_seed_and_repeats_for_the_same(
    on_images: Filmed, numbered: Subset, recipe: Recipe
) -> None:
    orders = [numbers_of(engine_fit(on_images, recipe, numbered, seed)) for seed in (1, 2, 1)]
    first, second = orders[0].reshape(2, COUNT)
    for other in (second, orders[1][:COUNT], np.arange(COUNT)):
        assert_unlike(first, other)
    np.testing.assert_array_equal(orders[2], orders[0])


def test_the_engine_does_not_change_plain_images(on_images: Filmed, numbered: Subset) -> None:
    images = engine_fit(on_images, PLAIN, numbered, seed=1)
    grey = numbers_of(images)[:, None, None, None] / np.float32(255)
    np.testing.assert_allclose(np.concatenate(images), np.tile(grey, (1, 28, 28, 1)), rtol=1e-6)


def test_distortions_depend_on_image_epoch_and_seed(on_images: Filmed) -> None:
    """One image, given 250 times, has no two equal distortions in two epochs."""
    picture = np.random.RandomState(0).randint(0, 256, (1, 28, 28, 1)).astype(np.uint8)
    subset = Subset(np.tile(picture, (COUNT, 1, 1, 1)), LABELS)
    runs = [
        np.concatenate(engine_fit(on_images, DISTORTED, subset, seed)).reshape(2 * COUNT, -1)
        for seed in (1, 2, 1)
    ]
    assert len(np.unique(np.concatenate(runs[:2]), axis=0)) == 4 * COUNT
    np.testing.assert_array_equal(runs[2], runs[0])


def test_training_and_validation_see_only_their_own_images(
    numbered: Subset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `lenet5.training.train`, LeNet-5 gets a layer that records its images."""
    tape = Tape()

    def watched(recipe: Recipe, seed: int) -> tf.keras.Model:
        layers = build_for(recipe, seed).layers
        return tf.keras.Sequential([tf.keras.Input((28, 28, 1)), tape.layer(), *layers])

    monkeypatch.setattr(keras_engine, "build_for", watched)
    training, validation = (
        Subset(numbered.images[part], numbered.labels[part])
        for part in (slice(0, 230), slice(230, 250))
    )
    train(PLAIN, training, validation, seed=1, engine="keras")
    assert [len(batch) for batch in tape.trained] == [100, 100, 30] * 2
    first, second = numbers_of(tape.trained).reshape(2, 230)
    assert sorted(first) == sorted(second) == list(range(230))
    assert_unlike(first, second)
    assert numbers_of(tape.tested).tolist() == [*range(230, 250)] * 2


def test_arrays_are_shuffled_with_each_image_once(on_numbers: Filmed) -> None:
    """Keras 2 changes the order each epoch; Keras up to 3.15 changes it with the seed.

    Keras 3 repeats one order once a seed is set (findings/keras_fit_repeats_its_order.sh). The 3.16
    in development has one order for all seeds, drawn from the number 0.
    """
    tf.keras.utils.set_random_seed(1)
    first, second = array_fit(on_numbers, shuffle=True)
    for epoch in (first, second):
        assert sorted(epoch) == list(range(COUNT))
        assert_unlike(epoch, range(COUNT))
    tf.keras.utils.set_random_seed(2)
    other_seed, _ = array_fit(on_numbers, shuffle=True)
    version = tuple(int(part) for part in keras_version().split(".")[:2])
    if version < (3, 0):
        assert_unlike(first, second)
    if version < (3, 16):
        assert_unlike(first, other_seed)


def test_arrays_are_shuffled_by_default(on_numbers: Filmed) -> None:
    tf.keras.utils.set_random_seed(3)
    epoch, _ = array_fit(on_numbers)
    assert_unlike(epoch, range(COUNT))


def test_arrays_keep_their_order_without_shuffling(on_numbers: Filmed) -> None:
    assert array_fit(on_numbers, shuffle=False) == [list(range(COUNT))] * 2


@pytest.mark.parametrize("size", [1, 7, 250, 1000])
def test_batches_have_the_given_size(on_numbers: Filmed, size: int) -> None:
    on_numbers.clear()
    on_numbers.model.fit(X, Y, batch_size=size, verbose=0)
    (epoch,) = epochs_of(on_numbers, size=size)
    assert sorted(epoch) == list(range(COUNT))


def test_the_default_batch_size_is_32(on_numbers: Filmed) -> None:
    on_numbers.clear()
    on_numbers.model.fit(X, Y, verbose=0)
    epochs_of(on_numbers, size=32)


@pytest.mark.parametrize("anew", [True, False])
def test_datasets_are_reshuffled_each_epoch_by_default(on_numbers: Filmed, anew: bool) -> None:
    on_numbers.clear()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    shuffled = dataset.shuffle(COUNT, seed=5, reshuffle_each_iteration=anew).batch(SIZE)
    on_numbers.model.fit(shuffled, epochs=2, shuffle=False, verbose=0)
    first, second = epochs_of(on_numbers)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert_unlike(first, range(COUNT))
    if anew:
        assert_unlike(first, second)
    else:
        assert first == second


def test_datasets_keep_their_order_and_batches(on_numbers: Filmed) -> None:
    on_numbers.clear()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(SIZE)
    on_numbers.model.fit(dataset, epochs=2, shuffle=False, verbose=0)
    assert epochs_of(on_numbers) == [list(range(COUNT))] * 2


def test_steps_per_epoch_continues_the_dataset(on_numbers: Filmed) -> None:
    on_numbers.clear()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(25).repeat()
    on_numbers.model.fit(dataset, epochs=5, steps_per_epoch=16, shuffle=False, verbose=0)
    assert epochs_of(on_numbers, size=25) == [list(range(COUNT))] * 8


def test_validation_images_are_never_trained_on(on_numbers: Filmed) -> None:
    """Separate validation images are all seen after each epoch, in order."""
    others = np.arange(1000, 1030, dtype=np.float32)[:, None]
    on_numbers.clear()
    on_numbers.model.fit(
        X, Y, batch_size=SIZE, epochs=2, validation_data=(others, others), verbose=0
    )
    trained = np.concatenate(on_numbers.images.trained).reshape(2, COUNT).astype(int)
    assert [sorted(epoch) for epoch in trained.tolist()] == [list(range(COUNT))] * 2
    tested = np.concatenate(on_numbers.images.tested)
    np.testing.assert_array_equal(tested, np.concatenate([others, others]))


def test_validation_split_takes_the_end_of_the_arrays(on_numbers: Filmed) -> None:
    on_numbers.clear()
    on_numbers.model.fit(X, Y, batch_size=SIZE, validation_split=0.2, epochs=2, verbose=0)
    trained = np.concatenate(on_numbers.images.trained).reshape(2, 200).astype(int)
    assert [sorted(epoch) for epoch in trained.tolist()] == [list(range(200))] * 2
    tested = np.concatenate(on_numbers.images.tested)
    np.testing.assert_array_equal(tested, np.concatenate([X[200:], X[200:]]))


@pytest.mark.parametrize("call", ["evaluate", "predict"])
def test_evaluate_and_predict_see_each_image_once_in_order(on_numbers: Filmed, call: str) -> None:
    on_numbers.clear()
    given: tuple[np.ndarray, ...] = (X, Y) if call == "evaluate" else (X,)
    getattr(on_numbers.model, call)(*given, batch_size=SIZE, verbose=0)
    assert [len(batch) for batch in on_numbers.images.tested] == SIZES
    np.testing.assert_array_equal(np.concatenate(on_numbers.images.tested), X)
    assert not on_numbers.images.trained


def test_validation_and_evaluation_have_no_side_effects() -> None:
    """Weights, batch normalisation's averages and the optimiser's steps do not change."""
    given = X / np.float32(COUNT), Y

    def fitted(**validation: Any) -> tuple[tf.keras.Model, int]:
        tf.keras.utils.set_random_seed(4)
        layers: list[Callable[..., Any]] = [
            tf.keras.Input((1,)),
            tf.keras.layers.BatchNormalization(),
            tf.keras.layers.Dense(1),
        ]
        model = tf.keras.Sequential(layers)
        model.compile(optimizer=tf.keras.optimizers.Adam(0.1), loss="mse")
        model.fit(*given, batch_size=SIZE, epochs=2, shuffle=False, verbose=0, **validation)
        return model, int(np.asarray(model.optimizer.iterations))

    model, steps = fitted(validation_data=(given[0] + 5, Y - 5))
    alone, steps_alone = fitted()
    assert steps == steps_alone == 6
    assert bits(model) == bits(alone)
    model.evaluate(*given, verbose=0)
    model.predict(given[0], verbose=0)
    assert bits(model) == bits(alone)
    assert int(np.asarray(model.optimizer.iterations)) == 6
