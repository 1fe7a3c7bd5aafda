"""TensorFlow Datasets prepares MNIST silently and below a temporary folder; failures are told."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lenet5 import data
from lenet5.data import Subset
from lenet5.errors import InputError
from lenet5.preparation import mnist_files
from tests.preparing import CACHE, LOCK, Small, load, names, refusal

URL = "https://example.org/mnist/"
LABELS = "train-labels-idx1-ubyte"


class Tfds(ModuleType):
    """The used part of tensorflow_datasets; prepares and reads the data of `small`."""

    def __init__(self) -> None:
        super().__init__("tensorflow_datasets")
        self.small = Small()
        self.download = SimpleNamespace(DownloadConfig=SimpleNamespace)
        self.fail: Callable[[], None] = lambda: None
        self.fail_to_read: Callable[[], None] = lambda: None
        self.prepared: list[Path] = []
        self.temporary: list[Path] = []

    def builder(self, name: str, data_dir: Path) -> Builder:
        assert name == "mnist:3.0.1"
        if not (data_dir / "mnist" / "3.0.1").exists():
            self.temporary.append(Path(tempfile.mkdtemp("tfds")))  # as TFDS 4.9 does
        return Builder(self, data_dir)

    def disable_progress_bar(self) -> None:
        pass

    def as_numpy(self, batch: Subset) -> dict[str, np.ndarray]:
        return {"image": batch.images, "label": batch.labels.astype(np.int64)}


class Builder:
    """The used part of TFDS's builder of MNIST."""

    URL = URL

    def __init__(self, tfds: Tfds, data_dir: Path) -> None:
        self._tfds = tfds
        self._data_dir = data_dir

    def _split_generators(self, dl_manager: Any) -> dict[str, str]:
        files: dict[str, str] = dl_manager.download_and_extract({"labels": f"{URL}{LABELS}.gz"})
        return files

    def download_and_prepare(self, download_config: SimpleNamespace) -> None:
        assert not download_config.try_download_gcs
        print("Downloading and preparing dataset")
        logging.getLogger("urllib3").warning("Retrying")
        files = self._split_generators(SimpleNamespace())
        assert Path(files["labels"]).read_text() == LABELS
        self._tfds.prepared.append(self._data_dir)
        self._tfds.fail()
        folder = self._data_dir / "mnist" / "3.0.1"
        folder.mkdir(parents=True)
        (folder / "mnist-train.tfrecord").write_text("images")

    def as_dataset(self, split: str, **_: object) -> Subset:
        assert (self._data_dir / "mnist" / "3.0.1").is_dir()
        self._tfds.fail_to_read()
        return self._tfds.small.training if split == "train" else self._tfds.small.test


@pytest.fixture
def tfds(monkeypatch: pytest.MonkeyPatch) -> Tfds:
    """Replaces tensorflow_datasets and MNIST's files."""

    def unpack(url: str, *, folder: Path, **_: object) -> None:
        assert url == URL
        (folder / LABELS).write_text(LABELS)

    stand_in = Tfds()
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stand_in)
    monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("tensorflow"))  # already started
    monkeypatch.setattr(mnist_files, "unpack_mnist", unpack)
    monkeypatch.setattr(data, "_MNIST_SHA256", stand_in.small.sha256)
    return stand_in


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """TFDS's own prepared MNIST."""
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    return folder


def test_tfds_prepares_silently(
    tmp_path: Path,
    tfds: Tfds,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset = load(tmp_path)
    assert dataset.training.labels.dtype == np.uint8
    logging.getLogger("urllib3").warning("heard again")
    assert caplog.messages == ["heard again"]
    assert capfd.readouterr() == ("", "")
    assert len(tfds.prepared) == 1


def test_tfds_works_in_the_temporary_folder_and_its_result_is_kept(
    tmp_path: Path, tfds: Tfds
) -> None:
    load(tmp_path)
    assert tfds.prepared == [tmp_path / "lenet5" / f"{CACHE}.partial" / "work" / "tfds"]
    assert names(tmp_path / "mnist" / "3.0.1") == ["mnist-train.tfrecord"]
    assert names(tmp_path / "lenet5") == [CACHE, LOCK]


def test_temporary_folders_of_tfds_do_not_stay(tmp_path: Path, tfds: Tfds) -> None:
    before = tempfile.gettempdir()
    load(tmp_path)
    assert [path.parent for path in tfds.temporary] == [
        tmp_path / "lenet5" / f"{CACHE}.partial" / "work"
    ]
    assert not tfds.temporary[0].exists()
    assert tempfile.gettempdir() == before


def test_a_cache_elsewhere_leaves_the_data_folder_alone(tmp_path: Path, tfds: Tfds) -> None:
    load(tmp_path / "sets", cache_dir=tmp_path / "cache")
    assert names(tmp_path) == ["cache"]
    assert len(tfds.prepared) == 1


@pytest.mark.usefixtures("ready")
def test_what_tfds_has_prepared_is_read_only(tmp_path: Path, tfds: Tfds) -> None:
    """A shared folder may be read-only: then only the cache needs another place."""
    (tmp_path / "lenet5").write_text("a file: nothing can be written below")
    assert refusal(tmp_path).endswith("; LENET5_CACHE_DIR may name another folder")
    dataset = load(tmp_path, cache_dir=tmp_path.with_name("cache"))
    assert data.sha256_of(dataset) == tfds.small.sha256
    assert names(tmp_path) == ["lenet5", "mnist"]
    assert not tfds.prepared


def test_what_tfds_has_prepared_is_not_used_if_it_is_damaged(
    tmp_path: Path, ready: Path, tfds: Tfds
) -> None:
    def fail() -> None:
        tfds.fail_to_read = lambda: None
        raise ValueError("{{function_node x}} corrupted record at 7 [Op:Dataset] name: ")

    tfds.fail_to_read = fail
    lines: list[str] = []
    assert data.sha256_of(load(tmp_path, report=lines.append)) == tfds.small.sha256
    assert lines == [f"{ready}: damaged, not used: ValueError: corrupted record at 7"]
    assert len(tfds.prepared) == 1


def test_other_images_than_mnists_are_not_used(
    tmp_path: Path, ready: Path, tfds: Tfds, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(data, "_MNIST_SHA256", "of others")
    message = refusal(tmp_path, report=lines.append)
    assert lines == [f"{ready}: damaged, not used: other images than MNIST's"]
    assert message.startswith(
        f"{data.mnist_cache(tmp_path)}: MNIST cannot be prepared there: other images than MNIST's;"
    )
    assert names(tmp_path / "lenet5") == [LOCK]
    assert len(tfds.prepared) == 1


def test_a_download_that_fails_is_told_unchanged(
    tmp_path: Path, tfds: Tfds, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(*_: object, **__: object) -> None:
        raise InputError("MNIST cannot be downloaded: example.org: 503")

    monkeypatch.setattr(mnist_files, "unpack_mnist", unpack)
    assert refusal(tmp_path) == "MNIST cannot be downloaded: example.org: 503"
    assert names(tmp_path / "lenet5") == [LOCK]
    assert not tfds.prepared


def test_a_full_disk_in_tfds_is_reported_by_its_cause(tmp_path: Path, tfds: Tfds) -> None:
    def fail() -> None:
        raise RuntimeError("Error while writing") from OSError(28, "No space left on device")

    tfds.fail = fail
    assert "No space left on device; LENET5_CACHE_DIR may name" in refusal(tmp_path)
    assert names(tmp_path / "lenet5") == [LOCK]


def test_ctrl_c_in_tfds_leaves_nothing_behind(tmp_path: Path, tfds: Tfds) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    tfds.fail = interrupt
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path)
    assert names(tmp_path) == ["lenet5"]
    assert names(tmp_path / "lenet5") == [LOCK]


def test_a_failed_import_of_tfds_names_the_pin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tensorflow_datasets logs its ImportError and leaves a module without a builder."""
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", ModuleType("tensorflow_datasets"))
    assert refusal(tmp_path).endswith("pip install 'tensorflow-metadata<1.17'")
    assert names(tmp_path / "lenet5") == [LOCK]
