"""A saved model comes back as it was; anything else under its name is refused, and never run."""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lenet5.errors import InputError
from lenet5.loading import load_model
from lenet5.model import build_for, build_model
from lenet5.recipes import RECIPES
from lenet5.runtime import keras_version, save_model

RECIPE = RECIPES["fast"]

Edit = Callable[[Any], None]


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    """LeNet-5 with weights that no initialiser makes, so that forgetting one shows."""
    model = build_for(RECIPE, seed=3)
    random = np.random.RandomState(5)
    model.set_weights([w + random.normal(0, 0.1, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def saved(model: tf.keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    save_model(model, path)
    return path


@pytest.fixture
def altered(saved: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies the saved model with some of its members edited, or left out."""

    def alter(*, without: str = "", **edits: Edit) -> Path:
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                edit = edits.get(name.removesuffix(".json"))
                if edit:
                    value = json.loads(content)
                    edit(value)
                    content = json.dumps(value).encode()
                if name != without:
                    new.writestr(name, content)
        return path

    return alter


def refusal(path: Path) -> str:
    """What `load_model` says of a file, without the file's name."""
    with pytest.raises(InputError) as caught:
        load_model(path, RECIPE)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def layer(config: Any, name: str) -> Any:
    """The first layer of a class in a model's configuration."""
    return next(item for item in config["config"]["layers"] if item["class_name"] == name)


# ---- as it was


def test_predictions_are_identical_after_loading(model: tf.keras.Model, saved: Path) -> None:
    images = np.random.RandomState(1).rand(7, 28, 28, 1).astype(np.float32)
    predictions = load_model(saved, RECIPE).predict(images, verbose=0)
    assert np.array_equal(predictions, model.predict(images, verbose=0))


def test_loaded_model_keeps_its_penalties_and_dropout(saved: Path) -> None:
    model = load_model(saved, RECIPE)
    kernels = [w for w in model.get_weights() if w.ndim > 1][:-1]
    penalty = RECIPE.l2 * sum(float((kernel.astype(np.float64) ** 2).sum()) for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(penalty, rel=1e-5)
    rates = [item.rate for item in model.layers if isinstance(item, tf.keras.layers.Dropout)]
    assert rates == [RECIPE.dropout] * 2


# ---- another model than the recipe's


@pytest.mark.parametrize(("l2", "dropout"), [(2e-3, 0.5), (0.0, 0.5), (1e-3, 0.4)])
def test_a_model_of_another_recipe_is_refused(l2: float, dropout: float, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    save_model(build_model(l2=l2, dropout=dropout), path)
    assert refusal(path) == "not the model that its recipe 'fast' describes"


def set_in(kind: str, **settings: object) -> Edit:
    return lambda config: layer(config, kind)["config"].update(settings)


@pytest.mark.parametrize(
    "edit",
    [
        set_in("Conv2D", activation="relu"),
        set_in("Dense", activation="linear"),
        set_in("Dense", kernel_regularizer=None),
        set_in("Dropout", rate=0.25),
    ],
)
def test_a_model_with_other_settings_is_refused(edit: Edit, altered: Callable[..., Path]) -> None:
    assert refusal(altered(config=edit)) == "not the model that its recipe 'fast' describes"


def test_a_model_with_other_layers_is_refused(tmp_path: Path) -> None:
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [tf.keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(10, activation="softmax")]
    )
    save_model(model, tmp_path / "model.keras")
    assert refusal(tmp_path / "model.keras") == "not the model that its recipe 'fast' describes"


# ---- damaged


@pytest.mark.parametrize("length", [0, 3, 100, 20_000, -1])
def test_a_truncated_file_is_refused(saved: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(saved.read_bytes()[:length])
    assert refusal(path) == "not a whole Keras model file"


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_one_altered_bit_is_noticed(saved: Path, tmp_path: Path, share: float) -> None:
    content = bytearray(saved.read_bytes())
    content[int(share * len(content))] ^= 1
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    assert refusal(path) == "not a whole Keras model file"


@pytest.mark.parametrize("member", ["config.json", "metadata.json"])
def test_a_file_that_lacks_a_member_is_refused(member: str, altered: Callable[..., Path]) -> None:
    assert refusal(altered(without=member)) == "not a whole Keras model file"


def test_a_file_that_lacks_its_weights_is_refused(altered: Callable[..., Path]) -> None:
    message = refusal(altered(without="model.weights.h5"))
    assert message.startswith("the model is damaged: ")


def test_a_configuration_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "[" * 100_000 + "]" * 100_000)
        archive.writestr("metadata.json", '{"keras_version": "3.0.0"}')
    assert refusal(path) == "not a whole Keras model file"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path / "model.keras") == "No such file or directory"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """Keras 3 reads a folder as a model as well."""
    (tmp_path / "model.keras").mkdir()
    assert refusal(tmp_path / "model.keras") == "Is a directory"


# ---- another Keras


def test_hdf5_is_refused_with_both_versions(tmp_path: Path) -> None:
    """Keras 2.12 writes it under this name by default, and loads it without safe mode."""
    path = tmp_path / "model.keras"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2048))
    assert refusal(path) == (
        f"HDF5, which Keras before 2.13 writes; Keras {keras_version()} here reads only the zip "
        "format"
    )


def test_a_model_of_another_keras_is_loaded_where_it_can_be(altered: Callable[..., Path]) -> None:
    path = altered(metadata=lambda metadata: metadata.update(keras_version="9.8.7"))
    assert load_model(path, RECIPE).count_params() == 44_426


def test_a_model_that_this_keras_cannot_read_is_refused_with_both_versions(
    altered: Callable[..., Path],
) -> None:
    path = altered(
        config=set_in("Conv2D", filters="six"),
        metadata=lambda metadata: metadata.update(keras_version="9.8.7"),
    )
    assert refusal(path) == f"written by Keras 9.8.7, which Keras {keras_version()} cannot read"


def test_an_unreadable_model_of_this_keras_is_damaged(altered: Callable[..., Path]) -> None:
    message = refusal(altered(config=set_in("Conv2D", filters="six")))
    assert message.startswith("the model is damaged: ")


# ---- hostile


def foreign_module(module: str, name: str = "Dense") -> Edit:
    return lambda config: layer(config, "Dense").update(module=module, class_name=name)


def add_function(config: Any) -> None:
    function = {"class_name": "function", "module": "builtins", "config": "print"}
    layer(config, "Dense")["config"]["activation"] = function


def add_compilation(config: Any) -> None:
    config["compile_config"] = {"optimizer": {"module": "evil", "class_name": "Zeros"}}


def name_the_model(config: Any) -> None:
    config.update(module="evil.models", class_name="Sequential")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (foreign_module("evil"), "evil"),
        (foreign_module("keras_evil.layers"), "keras_evil.layers"),
        (foreign_module("keras.utils", "get_file"), "get_file"),
        (foreign_module("os", "system"), "system"),
        (set_in("Dense", kernel_initializer={"class_name": "Evil", "config": {}}), "Evil"),
        (set_in("Dense", dtype=[{"x": [{"class_name": "__lambda__"}]}]), "__lambda__"),
        (add_function, "function"),
        (add_compilation, "evil"),
        (name_the_model, "evil.models"),
    ],
)
def test_what_is_no_part_of_a_lenet5_is_refused_by_name(
    edit: Edit, named: str, altered: Callable[..., Path]
) -> None:
    assert refusal(altered(config=edit)) == f"refused, a LeNet-5 has no {named!r}"


def test_a_module_that_the_file_names_is_not_imported(
    altered: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "was-imported"
    (tmp_path / "evil.py").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()")
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal(altered(config=foreign_module("evil"))) == "refused, a LeNet-5 has no 'evil'"
    assert not marker.exists()
    importlib.import_module("evil")  # the trap was armed
    assert marker.exists()
    del sys.modules["evil"]


def test_code_in_a_lambda_layer_is_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "was-run", tmp_path / "model.keras"
    trap = tf.keras.layers.Lambda(
        lambda images, folder: (__import__("os").makedirs(folder, exist_ok=True), images)[1],
        arguments={"folder": str(marker)},
    )
    save_model(tf.keras.Sequential([tf.keras.Input((28, 28, 1)), trap]), path)
    marker.rmdir()  # building the model has run it
    assert refusal(path) == "refused, a LeNet-5 has no 'Lambda'"
    assert not marker.exists()
    tf.keras.models.load_model(str(path), safe_mode=False)
    assert marker.exists()  # the trap was armed
