"""A model's weights are numbers of its own file, and its layers are small, or it is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from lenet5 import saved_model
from lenet5.errors import InputError
from lenet5.loading import load_model
from lenet5.model import build_model
from lenet5.runtime import save_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    save_model(build_model(l2=1e-3, dropout=0.5), path)
    return path


@pytest.fixture(scope="module")
def hdf5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in HDF5 under the name `.keras`, as written by Keras 2.12."""
    path = tmp_path_factory.mktemp("hdf5") / "model.h5"
    build_model(l2=1e-3, dropout=0.5).save(str(path))
    return path.rename(path.with_suffix(".keras"))


def with_member(path: Path, name: str, content: bytes, folder: Path) -> Path:
    """Copies a model with another content of one member."""
    copy = folder / "model.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for member in old.namelist():
            new.writestr(member, content if member == name else old.read(member))
    return copy


def with_units(path: Path, units: object, folder: Path) -> Path:
    """Copies a model with another size of its first dense layer."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    layers = config["config"]["layers"]
    next(each for each in layers if each["class_name"] == "Dense")["config"]["units"] = units
    return with_member(path, "config.json", json.dumps(config).encode(), folder)


def refusal(path: Path) -> str:
    """Returns the error message of `load_model` without the file's name."""
    with pytest.raises(InputError) as caught:
        load_model(path)
    return str(caught.value).removeprefix(f"{path}: ")


def weights_of(path: Path, tmp_path: Path, edit: Callable[[h5py.File], None]) -> bytes:
    """Returns a model's weights after an edit."""
    with zipfile.ZipFile(path) as archive:
        content = archive.extract("model.weights.h5", tmp_path)
    with h5py.File(content, "r+") as file:
        edit(file)
    return Path(content).read_bytes()


def add_link(file: h5py.File) -> None:
    file["added"] = h5py.SoftLink("/")


def add_link_to_a_file(file: h5py.File) -> None:
    file["added"] = h5py.ExternalLink("other.h5", "/")


def add_external_data(file: h5py.File) -> None:
    file.create_dataset("added", (2,), np.float32, external="other.bin")


def add_virtual_data(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "data", (2,))
    file.create_virtual_dataset("added", layout)


def add_text(file: h5py.File) -> None:
    file["added"] = "text"


def add_filtered_data(file: h5py.File) -> None:
    file.create_dataset("added", data=np.zeros(9), compression="lzf")


def add_zeros_without_end(file: h5py.File) -> None:
    file.create_dataset("added", (2**20, 2**20), np.float32, chunks=(9, 9))


LINKS = "refused, its weights are links to other files or places"
NOT_PLAIN = "refused, its weights are not plain numbers of their own file"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (add_link, LINKS),
        (add_link_to_a_file, LINKS),
        (add_external_data, NOT_PLAIN),
        (add_virtual_data, NOT_PLAIN),
        (add_text, NOT_PLAIN),
        (add_filtered_data, NOT_PLAIN),
        (add_zeros_without_end, "bytes unpacked: too large for a LeNet-5"),
    ],
)
@pytest.mark.parametrize("is_archive", [True, False])
def test_weights_are_numbers_of_their_own_file(
    edit: Callable[[h5py.File], None],
    reason: str,
    is_archive: bool,
    saved: Path,
    hdf5: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HDF5 would read other files, or announce more than any memory holds."""
    if is_archive:
        weights = weights_of(saved, tmp_path, edit)
        path = with_member(saved, "model.weights.h5", weights, tmp_path)
    else:
        path = tmp_path / "hdf5.keras"
        shutil.copy(hdf5, path)
        with h5py.File(path, "r+") as file:
            edit(file)
    monkeypatch.setattr(tf.keras.models, "load_model", None)
    assert refusal(path).endswith(reason)


def test_a_group_within_itself_is_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_itself(file: h5py.File) -> None:
        file["added"] = file["/"]

    weights = weights_of(saved, tmp_path, add_itself)
    path = with_member(saved, "model.weights.h5", weights, tmp_path)
    monkeypatch.setattr(saved_model, "MOST_OBJECTS", 200)
    assert refusal(path) == "more than 200 arrays: too large for a LeNet-5"


@pytest.mark.parametrize("units", [10**9, 1e9, float("nan"), [1, [10**9]], {"a": 10**9}])
def test_a_layer_that_would_fill_the_memory_is_refused(
    units: object, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tf.keras.models, "load_model", None)
    assert refusal(with_units(saved, units, tmp_path)).startswith("units is ")


def test_a_size_in_words_is_refused(saved: Path, tmp_path: Path) -> None:
    path = with_units(saved, "1000000000", tmp_path)
    assert refusal(path) == "refused, '1000000000' is not known to be safe"


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
def test_a_large_configuration_is_refused_unread(name: str, saved: Path, tmp_path: Path) -> None:
    path = with_member(saved, name, b" " * (saved_model.LARGEST_CONFIG + 1), tmp_path)
    assert refusal(path) == "1,048,577 bytes unpacked: too large for a LeNet-5"


def test_a_deep_configuration_is_refused(saved: Path, tmp_path: Path) -> None:
    path = with_member(saved, "config.json", b"[" * 100_000, tmp_path)
    assert refusal(path) == "not a whole Keras model file"


def test_layers_with_too_many_calls_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tf.keras.Input((28, 28, 1))
    answers = tf.keras.layers.Dense(10, "softmax")(tf.keras.layers.Flatten()(images))
    path = tmp_path / "model.keras"
    save_model(tf.keras.Model(images, answers), path)
    monkeypatch.setattr(saved_model, "MOST_CALLS", 3)
    assert refusal(path) == "more than 3 calls of layers: too large for a LeNet-5"
