"""A saved model is restored exactly; any other content of its file is refused and never run."""

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
    """LeNet-5 with weights that no initialiser draws, so that a lost weight is visible."""
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
    """A compiled model in HDF5 under the name `.keras`, as written by Keras 2.12."""
    copy = tf.keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile("adam", "mse")
    path = tmp_path_factory.mktemp("hdf5") / "model.h5"
    copy.save(str(path))
    return path.rename(path.with_suffix(".keras"))


@pytest.fixture
def altered(saved: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies the saved model with edited, omitted or additional members."""

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
    """Returns the error message of `load_model` without the file's name."""
    with pytest.raises(InputError) as caught:
        load_model(path, RECIPE)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def layer(config: Any, name: str) -> Any:
    """Returns the first layer of a class in a model's configuration."""
    return next(item for item in config["config"]["layers"] if item["class_name"] == name)


# ---- unchanged models


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


# ---- models of another recipe


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


def test_a_model_with_the_same_summary_but_other_connections_is_refused(tmp_path: Path) -> None:
    """The layers are the same, but the output bypasses the second dropout."""
    original = build_for(RECIPE, seed=0)
    tensor = images = tf.keras.Input((28, 28, 1))
    for part in original.layers:
        if part is original.layers[-2]:
            part(tensor)
        elif type(part).__name__ != "InputLayer":
            tensor = part(tensor)
    save_model(tf.keras.Model(images, tensor), tmp_path / "model.keras")
    assert refusal(tmp_path / "model.keras") == "not the model that its recipe 'fast' describes"


# ---- damaged files


@pytest.mark.parametrize("length", [0, 3, 100, 20_000, -1])
def test_a_truncated_file_is_refused(saved: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(saved.read_bytes()[:length])
    assert refusal(path) == "not a whole Keras model file"


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_one_altered_bit_is_detected(saved: Path, tmp_path: Path, share: float) -> None:
    content = bytearray(saved.read_bytes())
    content[int(share * len(content))] ^= 1
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    assert refusal(path) == "not a whole Keras model file"


@pytest.mark.parametrize("member", ["config.json", "metadata.json"])
def test_a_file_without_a_required_member_is_refused(
    member: str, altered: Callable[..., Path]
) -> None:
    assert refusal(altered(without=member)) == "not a whole Keras model file"


def test_a_file_without_weights_is_refused(altered: Callable[..., Path]) -> None:
    message = refusal(altered(without="model.weights.h5"))
    assert message.startswith("the model is damaged: ")


def test_a_deeply_nested_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "[" * 100_000 + "]" * 100_000)
        archive.writestr("metadata.json", '{"keras_version": "3.0.0"}')
    assert refusal(path) == "not a whole Keras model file"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "model.keras") == "No such file or directory"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """Keras 3 also reads a folder as a model."""
    (tmp_path / "model.keras").mkdir()
    assert refusal(tmp_path / "model.keras") == "Is a directory"


# ---- another Keras


def test_hdf5_gives_the_same_predictions(model: tf.keras.Model, hdf5: Path) -> None:
    """Keras 2.12 writes HDF5 under this name by default, and loads it without safe mode."""
    images = np.random.RandomState(1).rand(7, 28, 28, 1).astype(np.float32)
    predictions = load_model(hdf5, RECIPE).predict(images, verbose=0)
    assert predictions == pytest.approx(model.predict(images, verbose=0), rel=1e-5)


def test_hdf5_is_unchanged_and_its_copy_has_no_compile_settings(hdf5: Path, tmp_path: Path) -> None:
    before = hdf5.read_bytes()
    copy = checked_copy(hdf5, tmp_path)
    with h5py.File(hdf5) as old, h5py.File(copy.path) as new:
        assert set(old.attrs) - set(new.attrs) == {"training_config"}
    assert copy.written_by == keras_version()
    assert hdf5.read_bytes() == before


def test_the_content_of_hdf5_is_checked(hdf5: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(hdf5.read_bytes())
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"]
        file.attrs["model_config"] = config.replace('"Flatten"', '"Lambda"')
    assert refusal(path) == "refused, 'Lambda' is not known to be safe"


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


def test_a_model_of_another_keras_is_loaded_if_possible(altered: Callable[..., Path]) -> None:
    path = altered(metadata=lambda metadata: metadata.update(keras_version="9.8.7"))
    assert load_model(path, RECIPE).count_params() == 44_426


def test_a_model_unreadable_for_this_keras_is_refused_with_both_versions(
    altered: Callable[..., Path],
) -> None:
    path = altered(
        config=set_in("Conv2D", filters="six"),
        metadata=lambda metadata: metadata.update(keras_version="9.8.7"),
    )
    assert refusal(path) == f"written by Keras 9.8.7, which Keras {keras_version()} cannot read"


def test_only_a_valid_version_is_printed(altered: Callable[..., Path]) -> None:
    path = altered(
        config=set_in("Conv2D", filters="six"),
        metadata=lambda metadata: metadata.update(keras_version="3.0\nall is well"),
    )
    assert refusal(path) == (
        f"written by Keras of an unknown version, which Keras {keras_version()} cannot read"
    )


def test_an_unreadable_model_of_this_keras_is_reported_as_damaged(
    altered: Callable[..., Path],
) -> None:
    message = refusal(altered(config=set_in("Conv2D", filters="six")))
    assert message.startswith("the model is damaged: ")


# ---- hostile files


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
def test_content_not_known_to_be_harmless_is_refused_by_name(
    edit: Edit, named: str, altered: Callable[..., Path]
) -> None:
    assert refusal(altered(config=edit)) == f"refused, {named!r} is not known to be safe"


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file created by an import of the module `evil`; the tear-down shows that this works."""
    marker = tmp_path / "was-imported"
    (tmp_path / "evil.py").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()")
    monkeypatch.syspath_prepend(tmp_path)
    yield marker
    importlib.import_module("evil")
    del sys.modules["evil"]
    assert marker.exists()


def test_a_module_in_the_file_is_not_imported(altered: Callable[..., Path], trap: Path) -> None:
    path = altered(config=foreign_module("evil"))
    assert refusal(path) == "refused, 'evil' is not known to be safe"
    assert not trap.exists()


def test_a_module_in_the_compile_settings_is_not_imported(
    altered: Callable[..., Path], trap: Path
) -> None:
    def add_compilation(config: Any) -> None:
        optimizer = {"module": "evil", "class_name": "Adam", "config": {}}
        config["compile_config"] = {"optimizer": optimizer, "loss": "mse"}

    model = load_model(altered(config=add_compilation), RECIPE)
    assert model.count_params() == 44_426
    assert getattr(model, "optimizer", None) is None
    assert not trap.exists()


def test_compile_settings_are_removed_at_any_depth(
    altered: Callable[..., Path], tmp_path: Path
) -> None:
    """Keras ignores them only for the outermost model."""

    def add_compilation(config: Any) -> None:
        layer(config, "Dense")["compile_config"] = {"optimizer": {"class_name": "Evil"}}
        layer(config, "Dense")["config"]["activity_regularizer"] = {"class_name": "Evil"}

    (tmp_path / "copy").mkdir()
    copy = checked_copy(altered(config=add_compilation), tmp_path / "copy")
    with zipfile.ZipFile(copy.path) as archive:
        text = archive.read("config.json").decode()
    assert "compile_config" not in text
    assert "Evil" not in text


def test_the_copy_has_only_three_members(altered: Callable[..., Path], tmp_path: Path) -> None:
    """Older Keras versions unpickle `model.weights.npz`, and unpack any additional members."""
    added = {"model.weights.npz": b"a pickle", "assets/x": b"", "../../x": b""}
    (tmp_path / "copy").mkdir()
    copy = checked_copy(altered(added=added), tmp_path / "copy")
    with zipfile.ZipFile(copy.path) as archive:
        assert sorted(archive.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]


def test_pickled_weights_are_not_read(altered: Callable[..., Path]) -> None:
    path = altered(without="model.weights.h5", added={"model.weights.npz": b"a pickle"})
    assert refusal(path).startswith("the model is damaged: ")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_keras_loads_the_checked_configuration(
    saved: Path, altered: Callable[..., Path], tmp_path: Path
) -> None:
    """The archive has two members of one name."""
    with zipfile.ZipFile(altered(config=foreign_module("evil"))) as archive:
        evil = archive.read("config.json")
    path = altered(added={"config.json": evil})
    assert refusal(path) == "refused, 'evil' is not known to be safe"
    with zipfile.ZipFile(saved) as archive:
        harmless = archive.read("config.json")
    path = altered(config=foreign_module("evil"), added={"config.json": harmless})
    (tmp_path / "copy").mkdir()
    with zipfile.ZipFile(checked_copy(path, tmp_path / "copy").path) as archive:
        assert archive.namelist().count("config.json") == 1
        assert b"evil" not in archive.read("config.json")


def test_a_file_too_large_when_unpacked_is_refused_unread(
    altered: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_model, "LARGEST_FILE", 10_000_000)
    path = altered()
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(20_000_000))
    assert path.stat().st_size < 1_000_000
    assert refusal(path).endswith(" bytes unpacked: too large for a LeNet-5")


def test_layers_with_circular_inputs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras before 3.15 would never finish."""
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
    marker.rmdir()  # building the model ran the code
    assert refusal(path) == ("refused, 'Lambda' is not known to be safe")
    assert not marker.exists()
    tf.keras.models.load_model(str(path), safe_mode=False)
    assert marker.exists()  # the trap works
