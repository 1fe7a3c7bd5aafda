"""A saved model is restored to the bit, and resumes training exactly."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lenet5.keras_engine import compile_model
from lenet5.loading import load_model
from lenet5.model import build_for, summarise
from lenet5.recipe import Recipe
from lenet5.recipes import RECIPES
from lenet5.runtime import save_model
from tests.watching import bits

RECIPE = RECIPES["original"].with_overrides({"dropout": 0.3, "l2": 2e-3})
IMAGES = np.random.RandomState(0).rand(12, 28, 28, 1).astype(np.float32)
LABELS = np.random.RandomState(1).randint(0, 10, 12).astype(np.int32)
FEATURES = np.random.RandomState(2).randn(20, 4).astype(np.float32)
CLASSES = np.random.RandomState(3).randint(0, 3, 20).astype(np.int32)


def uneven(model: tf.keras.Model, seed: int = 5) -> tf.keras.Model:
    """Gives the model weights that no initialiser draws, including biases."""
    random = np.random.RandomState(seed)
    model.set_weights([0.3 * random.randn(*weight.shape) for weight in model.get_weights()])
    return model


def plainly(path: Path) -> tf.keras.Model:
    return tf.keras.models.load_model(str(path))


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    return uneven(build_for(RECIPE, seed=3))


@pytest.fixture(scope="module")
def saved(model: tf.keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    save_model(model, path)
    return path


@pytest.fixture(scope="module")
def saved_plainly(model: tf.keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "model.keras"
    model.save(str(path))
    return path


@pytest.fixture(scope="module", params=["ours", "plain file", "plain"])
def loaded(saved: Path, saved_plainly: Path, request: pytest.FixtureRequest) -> tf.keras.Model:
    """Saved and loaded by this project, saved by it and loaded by Keras, or both by Keras."""
    if request.param == "ours":
        return load_model(saved, RECIPE)
    return plainly(saved if request.param == "plain file" else saved_plainly)


def test_weights_come_back_to_the_bit(model: tf.keras.Model, loaded: tf.keras.Model) -> None:
    names_and_shapes = [(weight.shape, weight.dtype) for weight in model.get_weights()]
    assert [(weight.shape, weight.dtype) for weight in loaded.get_weights()] == names_and_shapes
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert ours.tobytes() == theirs.tobytes()
        assert (ours != 0).all()


def test_predictions_are_identical_after_loading(
    model: tf.keras.Model, loaded: tf.keras.Model
) -> None:
    expected = model.predict(IMAGES, verbose=0)
    assert loaded.predict(IMAGES, verbose=0).tobytes() == expected.tobytes()
    called = model(IMAGES, training=False).numpy()
    assert loaded(IMAGES, training=False).numpy().tobytes() == called.tobytes()
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-5)


def test_activations_penalties_and_rates_survive_loading(
    model: tf.keras.Model, loaded: tf.keras.Model
) -> None:
    """They are both declared and effective."""
    assert summarise(loaded) == summarise(model)
    assert [layer.rate for layer in summarise(loaded) if layer.kind == "Dropout"] == [0.3, 0.3]
    kernels = [weight for weight in model.get_weights() if weight.ndim > 1][:-1]
    penalties = [2e-3 * (kernel.astype(np.float64) ** 2).sum() for kernel in kernels]
    found = [float(loss) for loss in loaded.losses]
    assert found == pytest.approx(penalties, rel=1e-5)
    wide = np.ones((64, 120), np.float32)
    (dropout, _) = (layer for layer in loaded.layers if type(layer).__name__ == "Dropout")
    kept = np.asarray(dropout(wide, training=True))
    assert abs((kept != 0).mean() - 0.7) < 5 * np.sqrt(0.21 / kept.size)
    np.testing.assert_allclose(kept[kept != 0], 1 / 0.7, rtol=1e-6)


def test_saving_does_not_change_a_model(model: tf.keras.Model, tmp_path: Path) -> None:
    before = bits(model)
    model.save(str(tmp_path / "model.keras"))
    save_model(model, tmp_path / "ours.keras")
    model.save_weights(str(tmp_path / "model.weights.h5"))
    assert bits(model) == before


def test_a_file_can_be_loaded_twice(saved: Path) -> None:
    """Each load gives a separate model."""
    first, second = load_model(saved, RECIPE), plainly(saved)
    assert bits(first) == bits(second)
    before = bits(first)
    uneven(second, seed=6)
    assert bits(first) == before != bits(second)
    assert bits(plainly(saved)) == before


def test_a_saved_file_is_complete_and_alone(saved: Path) -> None:
    assert [path.name for path in saved.parent.iterdir()] == ["model.keras"]
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert {"config.json", "metadata.json", "model.weights.h5"} <= set(archive.namelist())


def test_saving_overwrites_an_existing_file(model: tf.keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    save_model(build_for(RECIPE, seed=1), path)
    save_model(model, path)
    assert bits(plainly(path)) == bits(model)


def test_weights_alone_load_into_another_model(model: tf.keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    model.save_weights(str(path))
    other = build_for(RECIPE, seed=4)
    assert bits(other) != bits(model)
    other.load_weights(str(path))
    assert bits(other) == bits(model)
    unlike = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"layer|variable|weight|object"):
        unlike.load_weights(str(path))


def test_a_clone_and_a_configuration_describe_the_same_model(model: tf.keras.Model) -> None:
    """Each copy has separate weights."""
    described = type(model).from_config(model.get_config())
    for copy in (tf.keras.models.clone_model(model), described):
        assert summarise(copy) == summarise(model)
        assert bits(copy) != bits(model)
        copy.set_weights(model.get_weights())
        expected = model.predict(IMAGES, verbose=0)
        assert copy.predict(IMAGES, verbose=0).tobytes() == expected.tobytes()


def small_model(optimizer: Any) -> tf.keras.Model:
    """Returns a compiled softmax regression with a penalty."""
    layer = tf.keras.layers.Dense(
        3, activation="softmax", kernel_regularizer=tf.keras.regularizers.L2(0.01)
    )
    model = uneven(tf.keras.Sequential([tf.keras.Input((4,)), layer]))
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit_small(model: tf.keras.Model) -> Any:
    """Trains one epoch of three steps."""
    return model.fit(FEATURES, CLASSES, batch_size=8, shuffle=False, verbose=0).history


def adam_on_a_schedule() -> Any:
    schedule = tf.keras.optimizers.schedules.CosineDecay(0.1, decay_steps=12)
    return tf.keras.optimizers.Adam(schedule, beta_1=0.8, beta_2=0.95, epsilon=1e-4)


def sgd_with_momentum() -> Any:
    return tf.keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)


@pytest.mark.parametrize("optimizer", [adam_on_a_schedule, sgd_with_momentum])
def test_a_loaded_model_resumes_training_exactly(
    optimizer: Callable[[], Any], tmp_path: Path
) -> None:
    """The optimiser keeps settings, steps and moments: history and weights are equal."""
    model = small_model(optimizer())
    fit_small(model)
    save_model(model, tmp_path / "model.keras")
    loaded = plainly(tmp_path / "model.keras")
    assert int(np.asarray(loaded.optimizer.iterations)) == 3
    assert_same_settings(loaded.optimizer, model.optimizer)
    told = model.evaluate(FEATURES, CLASSES, verbose=0)
    assert loaded.evaluate(FEATURES, CLASSES, verbose=0) == told
    assert bits(loaded) == bits(model)
    forgetful = small_model(optimizer())
    forgetful.set_weights(model.get_weights())
    assert fit_small(loaded) == fit_small(model)
    assert bits(loaded) == bits(model)
    assert int(np.asarray(loaded.optimizer.iterations)) == 6
    fit_small(forgetful)
    assert bits(forgetful) != bits(model)  # the optimiser's state matters
    fit_small(model)
    assert bits(loaded) != bits(model)


def test_the_engines_lenet5_resumes_training_exactly(
    tmp_path: Path,
) -> None:
    recipe: Recipe = RECIPES["original"].with_overrides({"dropout": 0.0})
    model = uneven(build_for(recipe, seed=2))
    compile_model(model, recipe, steps=4)

    def step(trained: tf.keras.Model) -> float:
        told = trained.fit(IMAGES, LABELS, batch_size=12, shuffle=False, verbose=0)
        return float(told.history["loss"][0])

    step(model)
    save_model(model, tmp_path / "model.keras")
    loaded = plainly(tmp_path / "model.keras")
    assert_same_settings(loaded.optimizer, model.optimizer)
    assert bits(loaded) == bits(model)
    assert step(loaded) == step(model)
    assert bits(loaded) == bits(model)
    assert int(np.asarray(loaded.optimizer.iterations)) == 2


def assert_same_settings(ours: Any, theirs: Any) -> None:
    """Asserts equal configurations; numbers to float32, as Keras reads the rate from a variable."""
    assert type(ours) is type(theirs)
    found, expected = ours.get_config(), theirs.get_config()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, float):
            assert found[name] == pytest.approx(value, rel=1e-6), name
        else:
            assert found[name] == value, name


def test_a_loaded_model_is_compiled_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    save_model(small_model(adam_on_a_schedule()), path)
    loaded = tf.keras.models.load_model(str(path), compile=False)
    assert getattr(loaded, "optimizer", None) is None
    with pytest.raises((RuntimeError, ValueError), match="compile"):
        fit_small(loaded)
