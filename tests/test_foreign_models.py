"""Models compiled, trained and saved elsewhere with Keras are scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lenet5.data import Subset
from lenet5.errors import InputError
from lenet5.evaluation import evaluate
from lenet5.loading import load_model
from lenet5.model import build_model
from lenet5.recipes import RECIPES

RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.rand(8, 28, 28, 1).astype(np.float32)
LABELS = np.eye(10, dtype=np.float32)[RANDOM.randint(0, 10, 8)]

keras = tf.keras
layers = tf.keras.layers
schedules = tf.keras.optimizers.schedules


def saved(model: tf.keras.Model, folder: Path) -> Path:
    """Saves a model like most users; Keras 2.12 then writes HDF5."""
    path = folder / "model.keras"
    model.save(str(path))
    return path


def refusal(path: Path) -> str:
    """Returns the error message of `load_model` for a file without a recipe."""
    with pytest.raises(InputError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def flat(
    shape: tuple[int, ...] = (28, 28, 1), *last: tf.keras.layers.Layer, **settings: Any
) -> tf.keras.Model:
    """Returns a model that flattens images of a shape before its last layers."""
    answer = last or (layers.Dense(10, activation="softmax"),)
    return keras.Sequential([keras.Input(shape, **settings), layers.Flatten(), *answer])


# ---- any compile settings


class Warmup(tf.keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A user-defined schedule that counts its instances."""

    made = 0

    def __init__(self, peak: float = 0.1) -> None:
        type(self).made += 1
        self.peak = peak

    def __call__(self, step: Any) -> Any:
        return self.peak / (1 + tf.cast(step, tf.float32))

    def get_config(self) -> dict[str, float]:
        return {"peak": self.peak}


def own_loss(truth: Any, answers: Any) -> Any:
    return tf.reduce_mean(tf.square(truth - answers))


COMPILED: dict[str, Callable[[], dict[str, Any]]] = {
    "names": lambda: {"optimizer": "adam", "loss": "categorical_crossentropy"},
    "smoothing": lambda: {
        "optimizer": keras.optimizers.Adam(1e-3),
        "loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        "metrics": ["accuracy", keras.metrics.TopKCategoricalAccuracy(2)],
    },
    "decay": lambda: {
        "optimizer": keras.optimizers.AdamW(1e-3, weight_decay=1e-4),
        "loss": "categorical_crossentropy",
    },
    "cosine": lambda: {
        "optimizer": keras.optimizers.SGD(schedules.CosineDecay(0.1, 100), momentum=0.9),
        "loss": "categorical_crossentropy",
    },
    "polynomial": lambda: {
        "optimizer": keras.optimizers.SGD(schedules.PolynomialDecay(0.1, 100)),
        "loss": "mse",
    },
    "averages": lambda: {
        "optimizer": keras.optimizers.Adam(1e-3, use_ema=True, ema_momentum=0.9),
        "loss": "categorical_crossentropy",
    },
    "own": lambda: {"optimizer": keras.optimizers.SGD(Warmup()), "loss": own_loss},
}


def trained(model: tf.keras.Model, **compiled: Any) -> tf.keras.Model:
    model.compile(**compiled)
    model.fit(IMAGES, LABELS, verbose=0)
    return model


@pytest.mark.parametrize("compiled", COMPILED.values(), ids=COMPILED)
def test_a_model_is_loaded_with_any_compile_settings(
    compiled: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    model = trained(flat(), **compiled())
    made = Warmup.made
    loaded = load_model(saved(model, tmp_path))
    assert np.allclose(loaded.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))
    assert getattr(loaded, "optimizer", None) is None
    assert Warmup.made == made


def test_a_compiled_lenet5_matches_a_recipe_by_its_layers(tmp_path: Path) -> None:
    path = saved(trained(build_model(), **COMPILED["averages"]()), tmp_path)
    assert load_model(path, RECIPES["fast"]).count_params() == 44_426
    path = saved(trained(build_model(l2=3e-4, dropout=0.2), **COMPILED["names"]()), tmp_path)
    assert load_model(path).count_params() == 44_426
    with pytest.raises(InputError, match="not the model that its recipe 'fast' describes"):
        load_model(path, RECIPES["fast"])


def test_compile_settings_of_a_nested_model_are_ignored(tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(20)])
    inner.compile(keras.optimizers.SGD(Warmup()), own_loss)
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), inner, layers.Dense(10, activation="softmax")]
    )
    path = saved(model, tmp_path)
    made = Warmup.made
    loaded = load_model(path)
    assert np.allclose(loaded.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))
    assert Warmup.made == made
    assert getattr(loaded.layers[-2], "optimizer", None) is None


# ---- any harmless layers


def unlike_settings() -> tf.keras.Model:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="pixels"),
            layers.Conv2D(6, 5, padding="same", kernel_initializer="he_normal", name="first"),
            layers.Activation("relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(
                20,
                kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.1),
                kernel_regularizer=keras.regularizers.L1L2(1e-4, 1e-4),
                bias_regularizer="l2",
                activity_regularizer="l2",
                kernel_constraint="max_norm",
            ),
            layers.LeakyReLU(),
            layers.Dense(10, activation="softmax", kernel_initializer="glorot_normal"),
        ],
        name="mine",
    )


def functional() -> tf.keras.Model:
    images = keras.Input((28, 28, 1))
    first = layers.Conv2D(4, 5, activation="elu")(images)
    second = layers.Conv2D(4, 5, activation="swish")(images)
    tensor = layers.Flatten()(layers.Add()([first, second]))
    return keras.Model(images, layers.Dense(10, activation="softmax")(tensor))


def functional_with_a_model_within() -> tf.keras.Model:
    inner = keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(20)])
    images = keras.Input((28, 28, 1))
    return keras.Model(images, layers.Dense(10, activation="softmax")(inner(images)))


def without_an_input() -> tf.keras.Model:
    """Its shapes come from the training images."""
    return keras.Sequential(
        [
            layers.Conv2D(4, 5, activation=tf.nn.relu),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(10),
            layers.Softmax(),
        ]
    )


def with_functions_of_tensorflow() -> tf.keras.Model:
    """Some Keras versions write names that they cannot read: `softmax_v2`, TensorFlow's modules."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(20, activation=tf.nn.relu),
            layers.Dense(10),
            layers.Activation(tf.nn.softmax),
        ]
    )


def with_augmentation() -> tf.keras.Model:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.RandomTranslation(0.1, 0.1),
            layers.Rescaling(2.0, offset=-1.0),
            layers.ZeroPadding2D(2),
            layers.Conv2D(4, 5),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def of_any_size() -> tf.keras.Model:
    return keras.Sequential(
        [
            keras.Input((None, None, 1)),
            layers.Conv2D(10, 5),
            layers.GlobalMaxPooling2D(),
            layers.Softmax(),
        ]
    )


def in_half_precision() -> tf.keras.Model:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(dtype="mixed_bfloat16"),
            layers.Dense(10, activation="softmax", dtype="mixed_bfloat16"),
        ]
    )


@pytest.mark.parametrize(
    "build",
    [
        unlike_settings,
        functional,
        functional_with_a_model_within,
        without_an_input,
        with_functions_of_tensorflow,
        with_augmentation,
        of_any_size,
        in_half_precision,
    ],
)
def test_a_model_of_harmless_layers_is_scored(
    build: Callable[[], tf.keras.Model], tmp_path: Path
) -> None:
    model = trained(build(), optimizer="adam", loss="categorical_crossentropy")
    loaded = load_model(saved(model, tmp_path))
    subset = Subset((IMAGES * 255).astype(np.uint8), LABELS.argmax(axis=1).astype(np.uint8))
    found = evaluate(loaded, subset, batch_size=5)
    expected = model.predict((subset.images / 255).astype(np.float32), verbose=0)
    assert found.probabilities.astype(np.float32) == pytest.approx(
        expected.astype(np.float32), abs=1e-2 if expected.dtype != np.float32 else 1e-6
    )
    assert np.isfinite(found.loss)


def test_a_functional_lenet5_is_scored_but_matches_no_recipe(tmp_path: Path) -> None:
    sequential = build_model()
    path = saved(keras.Model(sequential.inputs, sequential.outputs), tmp_path)
    loaded = load_model(path)
    assert np.allclose(loaded.predict(IMAGES, verbose=0), sequential.predict(IMAGES, verbose=0))
    with pytest.raises(InputError, match="not the model that its recipe 'fast' describes"):
        load_model(path, RECIPES["fast"])


# ---- models that cannot be scored


def with_two_outputs() -> tf.keras.Model:
    images = keras.Input((28, 28, 1))
    tensor = layers.Flatten()(images)
    return keras.Model(images, [layers.Dense(10, activation="softmax")(tensor), tensor])


def with_a_named_output() -> tf.keras.Model:
    images = keras.Input((28, 28, 1))
    answer = layers.Dense(10, activation="softmax")(layers.Flatten()(images))
    return keras.Model(images, {"digit": answer})


def with_two_inputs() -> tf.keras.Model:
    images = [keras.Input((28, 28, 1)) for _ in range(2)]
    tensor = layers.Flatten()(layers.Add()(images))
    return keras.Model(images, layers.Dense(10, activation="softmax")(tensor))


def diverged() -> tf.keras.Model:
    model = flat()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    return model


NO_PROBABILITIES = "gives no probabilities: its answers do not sum to 1, is the softmax missing?"
RESCALES = "takes pixels from 0 to 255, which it rescales; a LeNet-5 takes float32 in [0, 1]"


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: flat((28, 28)), "takes images of shape (28, 28), a LeNet-5 takes (28, 28, 1)"),
        (
            lambda: flat((32, 32, 1)),
            "takes images of shape (32, 32, 1), a LeNet-5 takes (28, 28, 1)",
        ),
        (with_two_inputs, "takes images of shape (28, 28, 1) and (28, 28, 1), a LeNet-5 takes"),
        (
            lambda: flat(dtype="uint8"),
            "takes images as uint8, a LeNet-5 takes float32 in [0, 1]",
        ),
        (
            lambda: flat((28, 28, 1), layers.Dense(9, activation="softmax")),
            "gives values of shape (9,), a LeNet-5 gives (10,)",
        ),
        (with_two_outputs, "gives values of shape (10,) and (784,), a LeNet-5 gives (10,)"),
        (with_a_named_output, "cannot be evaluated: "),
        (lambda: flat((28, 28, 1), layers.Dense(10)), NO_PROBABILITIES),
        (lambda: flat((28, 28, 1), layers.Dense(10, activation="sigmoid")), NO_PROBABILITIES),
        (
            lambda: flat(
                (28, 28, 1), layers.Rescaling(1 / 255), layers.Dense(10, activation="softmax")
            ),
            RESCALES,
        ),
        (diverged, "gives NaN or infinity: its weights are damaged, or its training diverged"),
    ],
)
def test_a_model_that_cannot_be_scored_is_refused(
    build: Callable[[], tf.keras.Model], complaint: str, tmp_path: Path
) -> None:
    assert refusal(saved(build(), tmp_path)).startswith(complaint)


def test_an_unbuilt_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras 3 saves such a model; Keras 2 does not."""
    path = saved(flat(), tmp_path)
    unbuilt = keras.Sequential([layers.Flatten(), layers.Dense(10, activation="softmax")])
    monkeypatch.setattr(tf.keras.models, "load_model", lambda *_, **__: unbuilt)
    assert refusal(path) == "takes images of shape unknown, a LeNet-5 takes (28, 28, 1)"


def test_a_user_defined_layer_is_refused_by_name(tmp_path: Path) -> None:
    class Squash(tf.keras.layers.Layer):  # type: ignore[misc]
        def call(self, values: Any) -> Any:
            return values / 2

    path = saved(flat((28, 28, 1), Squash(), layers.Dense(10, activation="softmax")), tmp_path)
    assert refusal(path) == "refused, 'Squash' is not known to be safe"


def test_a_user_defined_activation_is_refused_by_name(tmp_path: Path) -> None:
    def squash(values: Any) -> Any:
        return values / 2

    path = saved(flat((28, 28, 1), layers.Dense(10, activation=squash)), tmp_path)
    assert refusal(path) == "refused, 'squash' is not known to be safe"
