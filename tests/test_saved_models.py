"""A saved model comes back as it was; anything else under its name is refused, and never run."""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf

from lenet5 import saved_model
from lenet5.errors import InputError
from lenet5.loading import load_model
from lenet5.model import build_for, build_model
from lenet5.recipes import RECIPES
from lenet5.runtime import keras_version, save_model
from lenet5.saved_model import checked_copy

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


@pytest.fixture(scope="module")
def hdf5(model: tf.keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Keras 2.12 writes it under the name `.keras`, compiled."""
    copy = tf.keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile("adam", "mse")
    path = tmp_path_factory.mktemp("hdf5") / "model.h5"
    copy.save(str(path))
    return path.rename(path.with_suffix(".keras"))


@pytest.fixture
def altered(saved: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies the saved model with some of its members edited, or left out, and others added."""

    def alter(*, without: str = "", added: dict[str, bytes] | None = None, **edits: Edit) -> Path:
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
            for name, content in (added or {}).items():
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


def test_a_model_that_a_summary_does_not_tell_apart_is_refused(tmp_path: Path) -> None:
    """The same layers, but what comes out has gone round the second dropout."""
    original = build_for(RECIPE, seed=0)
    tensor = images = tf.keras.Input((28, 28, 1))
    for part in original.layers:
        if part is original.layers[-2]:
            part(tensor)
        elif type(part).__name__ != "InputLayer":
            tensor = part(tensor)
    save_model(tf.keras.Model(images, tensor), tmp_path / "model.keras")
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


def test_hdf5_is_read_as_the_zip_format_is(model: tf.keras.Model, hdf5: Path) -> None:
    """Keras 2.12 writes it under this name by default, and loads it without safe mode."""
    images = np.random.RandomState(1).rand(7, 28, 28, 1).astype(np.float32)
    predictions = load_model(hdf5, RECIPE).predict(images, verbose=0)
    assert predictions == pytest.approx(model.predict(images, verbose=0), rel=1e-5)


def test_hdf5_is_not_changed_and_its_copy_names_nothing_that_compiles(
    hdf5: Path, tmp_path: Path
) -> None:
    before = hdf5.read_bytes()
    copy = checked_copy(hdf5, tmp_path)
    with h5py.File(hdf5) as old, h5py.File(copy.path) as new:
        assert set(old.attrs) - set(new.attrs) == {"training_config"}
    assert copy.written_by == keras_version()
    assert hdf5.read_bytes() == before


def test_what_hdf5_names_is_checked_as_well(hdf5: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(hdf5.read_bytes())
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"]
        file.attrs["model_config"] = config.replace('"Flatten"', '"Lambda"')
    assert refusal(path) == "refused, 'Lambda' is not known to be harmless"


def test_hdf5_with_weights_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with h5py.File(path, "w") as file:
        file["kernel"] = np.zeros(3)
    assert refusal(path) == "HDF5 with weights alone, without the model's layers"


@pytest.mark.parametrize("length", [8, 2048, -1000])
def test_truncated_hdf5_is_refused(hdf5: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(hdf5.read_bytes()[:length])
    assert refusal(path) == "not a whole Keras model file"


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


def test_a_version_is_printed_only_if_it_is_one(altered: Callable[..., Path]) -> None:
    path = altered(
        config=set_in("Conv2D", filters="six"),
        metadata=lambda metadata: metadata.update(keras_version="3.0\nall is well"),
    )
    assert refusal(path) == (
        f"written by Keras of an unknown version, which Keras {keras_version()} cannot read"
    )


def test_an_unreadable_model_of_this_keras_is_damaged(altered: Callable[..., Path]) -> None:
    message = refusal(altered(config=set_in("Conv2D", filters="six")))
    assert message.startswith("the model is damaged: ")


# ---- hostile


def foreign_module(module: str, name: str = "Dense") -> Edit:
    return lambda config: layer(config, "Dense").update(module=module, class_name=name)


def function(name: str, **settings: str) -> dict[str, str]:
    return {"class_name": "function", "module": "builtins", "config": name, **settings}


def add_function(config: Any) -> None:
    layer(config, "Dense")["config"]["activation"] = function("print")


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
        (add_function, "print"),
        (set_in("Dense", activation="deserialize"), "deserialize"),  # a function of Keras's module
        (set_in("Dense", activation=function("relu", module="evil")), "relu"),
        (set_in("Dense", activation=function("relu", registered_name="evil>relu")), "relu"),
        (set_in("Dense", kernel_regularizer={"class_name": "L2", "module": "evil"}), "evil"),
        (lambda config: layer(config, "Dense").update(registered_name="evil>Dense"), "evil>Dense"),
        (lambda config: layer(config, "Dense").update(build_config={"class_name": "X"}), "X"),
        (set_in("InputLayer", type_spec={"class_name": "__typespec__"}), "__typespec__"),
        (name_the_model, "evil.models"),
    ],
)
def test_what_is_not_known_to_be_harmless_is_refused_by_name(
    edit: Edit, named: str, altered: Callable[..., Path]
) -> None:
    assert refusal(altered(config=edit)) == f"refused, {named!r} is not known to be harmless"


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that importing the module `evil` makes; at the end it is shown that it does."""
    marker = tmp_path / "was-imported"
    (tmp_path / "evil.py").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()")
    monkeypatch.syspath_prepend(tmp_path)
    yield marker
    importlib.import_module("evil")
    del sys.modules["evil"]
    assert marker.exists()


def test_a_module_that_the_file_names_is_not_imported(
    altered: Callable[..., Path], trap: Path
) -> None:
    path = altered(config=foreign_module("evil"))
    assert refusal(path) == "refused, 'evil' is not known to be harmless"
    assert not trap.exists()


def test_a_module_that_is_named_for_compiling_is_not_imported(
    altered: Callable[..., Path], trap: Path
) -> None:
    def add_compilation(config: Any) -> None:
        optimizer = {"module": "evil", "class_name": "Adam", "config": {}}
        config["compile_config"] = {"optimizer": optimizer, "loss": "mse"}

    model = load_model(altered(config=add_compilation), RECIPE)
    assert model.count_params() == 44_426
    assert getattr(model, "optimizer", None) is None
    assert not trap.exists()


def test_what_compiles_is_left_out_at_any_depth(
    altered: Callable[..., Path], tmp_path: Path
) -> None:
    """Keras leaves it out for the outermost model only."""

    def add_compilation(config: Any) -> None:
        layer(config, "Dense")["compile_config"] = {"optimizer": {"class_name": "Evil"}}
        layer(config, "Dense")["config"]["activity_regularizer"] = {"class_name": "Evil"}

    (tmp_path / "copy").mkdir()
    copy = checked_copy(altered(config=add_compilation), tmp_path / "copy")
    with zipfile.ZipFile(copy.path) as archive:
        text = archive.read("config.json").decode()
    assert "compile_config" not in text
    assert "Evil" not in text


def test_keras_sees_three_members_of_the_archive(
    altered: Callable[..., Path], tmp_path: Path
) -> None:
    """Older Keras unpickle `model.weights.npz`, and unpack everything if there are more."""
    added = {"model.weights.npz": b"a pickle", "assets/x": b"", "../../x": b""}
    (tmp_path / "copy").mkdir()
    copy = checked_copy(altered(added=added), tmp_path / "copy")
    with zipfile.ZipFile(copy.path) as archive:
        assert sorted(archive.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]


def test_pickled_weights_are_not_read_in_place_of_others(altered: Callable[..., Path]) -> None:
    path = altered(without="model.weights.h5", added={"model.weights.npz": b"a pickle"})
    assert refusal(path).startswith("the model is damaged: ")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_keras_sees_the_configuration_that_was_checked(
    saved: Path, altered: Callable[..., Path], tmp_path: Path
) -> None:
    """Of two members of one name."""
    with zipfile.ZipFile(altered(config=foreign_module("evil"))) as archive:
        evil = archive.read("config.json")
    path = altered(added={"config.json": evil})
    assert refusal(path) == "refused, 'evil' is not known to be harmless"
    with zipfile.ZipFile(saved) as archive:
        harmless = archive.read("config.json")
    path = altered(config=foreign_module("evil"), added={"config.json": harmless})
    (tmp_path / "copy").mkdir()
    with zipfile.ZipFile(checked_copy(path, tmp_path / "copy").path) as archive:
        assert archive.namelist().count("config.json") == 1
        assert b"evil" not in archive.read("config.json")


def test_a_file_that_is_large_unpacked_is_refused_unread(
    altered: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_model, "LARGEST_FILE", 10_000_000)
    path = altered()
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(20_000_000))
    assert path.stat().st_size < 1_000_000
    assert refusal(path).endswith(" bytes unpacked, which no LeNet-5 takes")


def test_layers_that_wait_for_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras before 3.15 would try without end."""
    images = tf.keras.Input((28, 28, 1), name="images")
    first = tf.keras.layers.Flatten(name="first")(images)
    last = tf.keras.layers.Dense(10, activation="softmax", name="last")(first)
    path = tmp_path / "model.keras"
    save_model(tf.keras.Model(images, last), path)
    assert load_model(path).count_params() == 7850

    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    calls = layer(config, "Flatten")["inbound_nodes"]
    layer(config, "Flatten")["inbound_nodes"] = json.loads(
        json.dumps(calls).replace('"images"', '"last"')
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, json.dumps(config) if name == "config.json" else content)
    monkeypatch.setattr(tf.keras.models, "load_model", None)
    assert refusal(path) == f"Keras {keras_version()} cannot put its layers in an order"


def test_code_in_a_lambda_layer_is_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "was-run", tmp_path / "model.keras"
    trap = tf.keras.layers.Lambda(
        lambda images, folder: (__import__("os").makedirs(folder, exist_ok=True), images)[1],
        arguments={"folder": str(marker)},
    )
    save_model(tf.keras.Sequential([tf.keras.Input((28, 28, 1)), trap]), path)
    marker.rmdir()  # building the model has run it
    assert refusal(path) == ("refused, 'Lambda' is not known to be harmless")
    assert not marker.exists()
    tf.keras.models.load_model(str(path), safe_mode=False)
    assert marker.exists()  # the trap was armed
