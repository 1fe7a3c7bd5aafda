"""MNIST is prepared once and atomically; failures give a one-line error."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from lenet5 import data
from lenet5.data import Dataset, Subset
from lenet5.errors import InputError
from tests.commands import largest_file, of_checkout

LOCK = "mnist-3.0.1-split1.lock"


class Small:
    """5,100 training and 20 test images of 2x2 pixels instead of MNIST's."""

    def __init__(self) -> None:
        self.calls = 0
        self.fail: Callable[[], None] = lambda: None
        random = np.random.RandomState(0)
        self.training, self.test = (
            Subset(
                random.randint(0, 256, (10 * per_class, 2, 2, 1)).astype(np.uint8),
                np.tile(np.arange(10), per_class).astype(np.uint8),
            )
            for per_class in (510, 2)
        )
        self.sha256 = data.sha256_of(data._split_mnist(self.training, self.test))

    def read_with_tfds(self, *_: object) -> tuple[Subset, Subset]:
        self.calls += 1
        self.fail()
        return self.training, self.test


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Small:
    """Replaces MNIST in `load_dataset` by the small set, which counts its preparations."""
    stand_in = Small()
    monkeypatch.setattr(data, "_read_with_tfds", stand_in.read_with_tfds)
    monkeypatch.setattr(data, "_MNIST_SHA256", stand_in.sha256)
    return stand_in


def load(data_dir: Path, **more: Any) -> Dataset:
    return data.load_dataset("mnist", data_dir=data_dir, **more)


def parts(dataset: Dataset) -> tuple[Subset, Subset, Subset]:
    return dataset.training, dataset.validation, dataset.test


def refusal(data_dir: Path, **more: Any) -> str:
    with pytest.raises(InputError) as info:
        load(data_dir, **more)
    return str(info.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_prepared_data_are_mapped_from_the_cache(tmp_path: Path, small: Small) -> None:
    for dataset in (load(tmp_path), load(tmp_path)):
        assert data.sha256_of(dataset) == small.sha256
        assert isinstance(dataset.training.images, np.memmap)
        assert [len(part.labels) for part in parts(dataset)] == [100, 5000, 20]
    assert small.calls == 1
    assert names(tmp_path / "lenet5") == ["mnist-3.0.1-split1", LOCK]


def test_a_wait_for_another_process_is_told(tmp_path: Path, small: Small) -> None:
    (tmp_path / "lenet5").mkdir()
    other = FileLock(tmp_path / "lenet5" / LOCK)
    other.acquire()
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        other.release()

    assert data.sha256_of(load(tmp_path, report=report)) == small.sha256
    assert lines == [f"{data.mnist_cache(tmp_path)}: another process prepares it, waiting"]


def flip_last_byte(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def save_other_type(file: Path) -> None:
    np.save(file, np.load(file).view(np.int8))


def save_other_shape(file: Path) -> None:
    np.save(file, np.load(file)[..., np.newaxis])


def save_other_order(file: Path) -> None:
    np.save(file, np.asfortranarray(np.load(file)))


def save_objects(file: Path) -> None:
    np.save(file, np.array([{}], object))


@pytest.mark.parametrize(
    "damage",
    [
        *(flip_last_byte, halve, empty, make_folder, Path.unlink),
        *(save_other_type, save_other_shape, save_other_order, save_objects),
    ],
)
def test_a_damaged_cache_is_prepared_again(
    tmp_path: Path, small: Small, damage: Callable[[Path], None]
) -> None:
    load(tmp_path)
    damage(data.mnist_cache(tmp_path) / "validation_images.npy")
    lines: list[str] = []
    assert data.sha256_of(load(tmp_path, report=lines.append)) == small.sha256
    assert lines == [f"{data.mnist_cache(tmp_path)}: damaged, prepared again"]
    load(tmp_path)
    assert small.calls == 2
    assert names(tmp_path / "lenet5") == ["mnist-3.0.1-split1", LOCK]


def test_damage_of_any_header_byte_is_detected(tmp_path: Path, small: Small) -> None:
    load(tmp_path)
    cache = data.mnist_cache(tmp_path)
    file = cache / "test_labels.npy"
    whole = file.read_bytes()
    for index in range(128):
        file.write_bytes(whole[:index] + bytes([whole[index] ^ 4]) + whole[index + 1 :])
        dataset = data._read_cache(cache)
        assert dataset is None or data.sha256_of(dataset) == small.sha256  # some bytes are padding


def test_a_file_instead_of_the_cache_is_replaced(tmp_path: Path, small: Small) -> None:
    cache = data.mnist_cache(tmp_path)
    cache.parent.mkdir()
    cache.write_text("")
    load(tmp_path)
    assert cache.is_dir()
    assert small.calls == 1


def test_other_images_than_mnists_are_refused(tmp_path: Path, small: Small) -> None:
    """A modified TFDS folder may have such images."""
    small.training.labels[0] += 1
    assert refusal(tmp_path).startswith(f"{tmp_path / 'mnist' / '3.0.1'}: damaged, delete that")
    assert names(tmp_path / "lenet5") == [LOCK]


def test_no_process_sees_a_partial_cache(
    tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, seen = np.save, []

    def watched_save(file: Path, array: np.ndarray, **more: Any) -> None:
        save(file, array, **more)
        seen.append(data.mnist_cache(tmp_path).exists())

    monkeypatch.setattr(np, "save", watched_save)
    load(tmp_path)
    assert seen == [False] * 6
    assert small.calls == 1


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, small: Small) -> None:
    with largest_file(10_000):
        message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}: MNIST cannot be prepared there: is the disk full?")
    assert names(tmp_path / "lenet5") == [LOCK]
    load(tmp_path)
    assert small.calls == 2


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, small: Small) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    small.fail = interrupt
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path)
    assert names(tmp_path / "lenet5") == [LOCK]


def test_files_of_a_killed_process_are_removed(tmp_path: Path, small: Small) -> None:
    left = tmp_path / "lenet5" / "mnist-3.0.1-split1.partial"
    (left / "mnist-3.0.1-split1").mkdir(parents=True)
    (left / "mnist-3.0.1-split1" / "training_images.npy").write_bytes(b"half of it")
    load(tmp_path)
    assert names(tmp_path / "lenet5") == ["mnist-3.0.1-split1", LOCK]
    assert small.calls == 1


def test_concurrent_loads_prepare_once(
    tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, everybody, looked, found = data._read_cache, threading.Barrier(3), set(), []

    def read_cache(cache: Path) -> Dataset | None:
        dataset = read(cache)
        if threading.get_ident() not in looked:
            looked.add(threading.get_ident())
            everybody.wait(timeout=60)  # until all have found no cache
        return dataset

    def run() -> None:
        found.append(data.sha256_of(load(tmp_path)))

    monkeypatch.setattr(data, "_read_cache", read_cache)
    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert small.calls == 1
    assert found == [small.sha256] * 3


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_instead_of_a_data_folder_is_refused(
    tmp_path: Path, small: Small, place: str
) -> None:
    (tmp_path / "file").write_text("")
    message = refusal(tmp_path / place)
    assert message.startswith(f"{tmp_path / place}: MNIST cannot be prepared there: ")
    assert message.endswith("; TFDS_DATA_DIR may name another folder")
    assert small.calls == 0


def test_a_prepared_dataset_loads_without_tensorflow(tmp_path: Path, small: Small) -> None:
    load(tmp_path)
    code = (
        "import sys; from pathlib import Path; from lenet5 import data; "
        f"data._MNIST_SHA256 = {small.sha256!r}; "
        f"data.load_dataset('mnist', data_dir=Path({str(tmp_path)!r})); "
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'filelock') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=of_checkout(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_mnist_never_falls_back_to_other_images(tmp_path: Path, small: Small) -> None:
    def fail() -> None:
        raise InputError("no network")

    small.fail = fail
    assert refusal(tmp_path) == "no network"


# TensorFlow Datasets, replaced by a stand-in


class Tfds(ModuleType):
    """The used part of tensorflow_datasets; prepares and reads the data of `small`."""

    URL = "https://example.org/mnist/"

    def __init__(self) -> None:
        super().__init__("tensorflow_datasets")
        self.small = Small()
        self.download = SimpleNamespace(DownloadConfig=SimpleNamespace)
        self.fail: Callable[[], None] = lambda: None
        self.configs: list[SimpleNamespace] = []

    def builder(self, name: str, data_dir: Path) -> Tfds:
        assert name == "mnist:3.0.1"
        assert data_dir.is_absolute()
        return self

    def disable_progress_bar(self) -> None:
        pass

    def download_and_prepare(self, download_config: SimpleNamespace) -> None:
        self.configs.append(download_config)
        print("Downloading and preparing dataset")
        logging.getLogger("urllib3").warning("Retrying")
        self.fail()

    def as_dataset(self, split: str, **_: object) -> Subset:
        return self.small.training if split == "train" else self.small.test

    def as_numpy(self, batch: Subset) -> dict[str, np.ndarray]:
        return {"image": batch.images, "label": batch.labels.astype(np.int64)}


def no_answer(*_: object, **__: object) -> None:
    raise urllib.error.URLError(OSError(-2, "Name or service not known"))


@pytest.fixture
def tfds(monkeypatch: pytest.MonkeyPatch) -> Tfds:
    """Replaces tensorflow_datasets, without network."""
    stand_in = Tfds()
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stand_in)
    monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("tensorflow"))  # already started
    monkeypatch.setattr(urllib.request, "urlopen", no_answer)
    monkeypatch.setattr(data, "_MNIST_SHA256", stand_in.small.sha256)
    monkeypatch.setattr(data, "MNIST_FILES", {})  # accepts every folder
    return stand_in


def test_tfds_prepares_silently_from_a_folder_without_network(
    tmp_path: Path,
    tfds: Tfds,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset = load(tmp_path, mnist_dir=tmp_path / "files")
    assert {part.labels.dtype for part in parts(dataset)} == {np.dtype(np.uint8)}
    (config,) = tfds.configs
    assert config.manual_dir == tmp_path / "files"
    assert not config.try_download_gcs
    logging.getLogger("urllib3").warning("heard again")
    assert caplog.messages == ["heard again"]
    assert capfd.readouterr() == ("", "")


def test_missing_network_and_folder_give_an_immediate_error(tmp_path: Path, tfds: Tfds) -> None:
    assert refusal(tmp_path) == (
        "MNIST cannot be downloaded: [Errno -2] Name or service not known; without network, name "
        "a folder with MNIST's four original .gz files in LENET5_MNIST_DIR or --mnist-dir"
    )
    assert not tfds.configs


def test_any_http_answer_counts_as_network(
    tmp_path: Path, tfds: Tfds, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_found(url: str, **_: object) -> None:
        raise urllib.error.HTTPError(url, 404, "Not Found", {}, None)  # type: ignore[arg-type]

    monkeypatch.setattr(urllib.request, "urlopen", not_found)
    load(tmp_path)
    assert len(tfds.configs) == 1


@pytest.mark.parametrize("folder", ["", "mnist", "manual"])
def test_existing_downloads_need_no_network(tmp_path: Path, tfds: Tfds, folder: str) -> None:
    file = tmp_path / "downloads" / folder / "train-images-idx3-ubyte.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    load(tmp_path)
    assert len(tfds.configs) == 1


def test_a_broken_download_names_the_alternatives(
    tmp_path: Path, tfds: Tfds, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ConnectionError("Connection broken:\n a second line")

    monkeypatch.setattr(data, "_check_network", lambda *_: None)
    tfds.fail = fail
    assert refusal(tmp_path) == (
        f"{tmp_path}: MNIST cannot be prepared there: ConnectionError: Connection broken:; "
        "TFDS_DATA_DIR may name another folder; without network, name a folder with MNIST's four "
        "original .gz files in LENET5_MNIST_DIR or --mnist-dir"
    )


def test_a_full_disk_in_tfds_is_reported_by_its_cause(tmp_path: Path, tfds: Tfds) -> None:
    def fail() -> None:
        raise RuntimeError("Error while extracting") from OSError(28, "No space left on device")

    tfds.fail = fail
    message = refusal(tmp_path, mnist_dir=tmp_path)
    assert "No space left on device; TFDS_DATA_DIR may name another folder" in message
    assert names(tmp_path / "lenet5") == [LOCK]


def test_damaged_tfds_data_are_refused_with_their_folder(tmp_path: Path, tfds: Tfds) -> None:
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)

    def fail() -> None:
        raise ValueError("{{function_node x}} corrupted record at 7 [Op:Dataset] name: ")

    tfds.fail = fail
    assert refusal(tmp_path) == (
        f"{folder}: damaged, delete that folder and run again: ValueError: corrupted record at 7"
    )


def test_a_failed_import_of_tfds_names_the_pin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tensorflow_datasets logs its ImportError and leaves a module without a builder."""
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", ModuleType("tensorflow_datasets"))
    assert refusal(tmp_path).endswith("pip install 'tensorflow-metadata<1.17'")
    assert names(tmp_path / "lenet5") == [LOCK]
