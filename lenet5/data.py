"""MNIST from TensorFlow Datasets with a fixed split, and scikit-learn's small digits.

MNIST (`mnist` 3.0.1): 55,000 training, 5,000 validation and 10,000 test images. The validation
images are 500 of every class, drawn from the 60,000 training images with a fixed seed.

Digits: 1,297 training, 200 validation (20 per class) and 300 test (30 per class) images, resampled
from 8x8 to 28x28 pixels.

Preparing MNIST needs TensorFlow Datasets and takes some seconds, once per user. The split arrays
are cached in `<TFDS data dir>/lenet5/` and memory-mapped from there, which needs NumPy only.
Prepared and cached arrays must both have the SHA-256 in `_MNIST_SHA256`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lenet5 import runtime
from lenet5.errors import InputError

DATASETS = ("mnist", "digits")
CLASSES = 10

MNIST_VERSION = "3.0.1"
MNIST_FILES = {  # with their SHA-256, as in TFDS's registry
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
_SPLIT_SEED = 5
_SPLIT_VERSION = 1  # part of the cache's name: a new split makes a new cache
_MNIST_SHA256 = (
    "1823338e11f60f1c62333c5ec5b040bdca54e0c0405daa6d4fa89745cdf2134c"  # of the six split arrays
)
_OFFLINE = (
    "without network, name a folder with MNIST's four original .gz files in LENET5_MNIST_DIR "
    "or --mnist-dir"
)
PARTS = ("training", "validation", "test")
_ARRAYS = tuple(f"{part}_{kind}" for part in PARTS for kind in ("images", "labels"))


@dataclass(frozen=True)
class Subset:
    """Images and labels of one part of a dataset.

    Attributes:
        images: uint8 array of shape (n, 28, 28, 1), 0 (background) to 255 (ink).
        labels: uint8 array of shape (n,), 0 to 9.
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """A dataset's three disjoint parts; `test` is scored once, at the end."""

    name: str
    training: Subset
    validation: Subset
    test: Subset


def normalise(images: np.ndarray) -> np.ndarray:
    """Converts uint8 images in [0, 255] to float32 in [0, 1]."""
    return np.asarray(images, np.float32) / np.float32(255)


def load_dataset(
    name: str,
    *,
    data_dir: Path,
    mnist_dir: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Loads a dataset; prepares MNIST first if it is not cached.

    Args:
        name: `mnist` or `digits`.
        data_dir: TFDS's data folder; the cache is in its subfolder `lenet5`.
        mnist_dir: folder with the four original MNIST files; None: TFDS downloads them.
        report: receives one line about each unusual event.

    Returns:
        The dataset; MNIST's arrays are read-only memory maps.

    Raises:
        InputError: the name is unknown, or MNIST is not available.
    """
    if name == "digits":
        return _load_digits()
    if name != "mnist":
        raise InputError(f"unknown dataset {name!r}: choose one of {', '.join(DATASETS)}")
    if mnist_dir is not None:
        check_mnist_dir(mnist_dir)
    cache = mnist_cache(data_dir)
    dataset = _read_cache(cache)
    return dataset or _prepare_mnist(cache, data_dir, mnist_dir, report)


def mnist_cache(data_dir: Path) -> Path:
    """Returns the cache folder of MNIST's split arrays."""
    return data_dir / "lenet5" / f"mnist-{MNIST_VERSION}-split{_SPLIT_VERSION}"


def check_mnist_dir(mnist_dir: Path) -> None:
    """Checks that the folder has MNIST's four original files.

    Raises:
        InputError: a file is missing, unreadable or altered.
    """
    # TFDS silently downloads a missing file, and detects an altered one only after some seconds.
    try:
        missing = [name for name in MNIST_FILES if not (mnist_dir / name).is_file()]
        if missing:
            raise InputError(
                f"{mnist_dir}: missing files: {', '.join(missing)}; the folder named by "
                "LENET5_MNIST_DIR or --mnist-dir must hold MNIST's four original .gz files"
            )
        altered = [
            name
            for name, sha256 in MNIST_FILES.items()
            if hashlib.sha256((mnist_dir / name).read_bytes()).hexdigest() != sha256
        ]
    except OSError as error:
        raise InputError(f"{mnist_dir}: cannot be read: {error.strerror}") from error
    if altered:
        raise InputError(
            f"{mnist_dir}: damaged, or not MNIST's original: {', '.join(altered)}; "
            "replace the named files"
        )


def split_mask(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Draws `per_class` items of every class.

    Args:
        labels: integer array of shape (n,).
        per_class: number of items per class.
        seed: seed of the draw, 0 to 2**32 - 1.

    Returns:
        bool array of shape (n,), True for drawn items.
    """
    # RandomState's stream is frozen; Generator's may change between NumPy versions (NEP 19).
    random = np.random.RandomState(seed)
    drawn = np.zeros(len(labels), bool)
    for digit in range(CLASSES):
        drawn[random.permutation(np.flatnonzero(labels == digit))[:per_class]] = True
    return drawn


def _take(images: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> Subset:
    return Subset(images[mask], labels[mask])


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits  # workers have no scikit-learn

    from lenet5.images import SIDE, resize

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.stack([resize(image, SIDE, SIDE) for image in pixels])[..., np.newaxis]
    labels = digits.target.astype(np.uint8)
    test = split_mask(labels, 30, _SPLIT_SEED)
    rest = _take(images, labels, ~test)
    validation = split_mask(rest.labels, 20, _SPLIT_SEED)
    return Dataset(
        "digits",
        training=_take(rest.images, rest.labels, ~validation),
        validation=_take(rest.images, rest.labels, validation),
        test=_take(images, labels, test),
    )


def _prepare_mnist(
    cache: Path, data_dir: Path, mnist_dir: Path | None, report: Callable[[str], None]
) -> Dataset:
    from lenet5.locks import locked  # workers have no filelock

    scratch = cache.with_name(f"{cache.name}.partial")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        waiting = f"{cache}: another process prepares it, waiting"
        with locked(cache.with_name(f"{cache.name}.lock"), report, waiting):
            dataset = _read_cache(cache)  # another process may have prepared it meanwhile
            if dataset is not None:
                return dataset
            if cache.exists():
                report(f"{cache}: damaged, prepared again")
            shutil.rmtree(scratch, ignore_errors=True)  # left by a killed process
            scratch.mkdir()
            try:
                dataset = _split_mnist(*_read_with_tfds(data_dir, mnist_dir, scratch))
                if sha256_of(dataset) != _MNIST_SHA256:
                    raise InputError(_damaged(data_dir, "other images than MNIST's"))
                _write_cache(cache, scratch / cache.name, dataset)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            dataset = _read_cache(cache)
    except OSError as error:
        reason = error.strerror or f"is the disk full? {error}"
        raise InputError(_not_prepared(data_dir, reason)) from error
    if dataset is None:
        raise InputError(f"{cache}: cannot be read back; is the disk full or faulty?")
    return dataset


def _read_with_tfds(data_dir: Path, mnist_dir: Path | None, scratch: Path) -> tuple[Subset, Subset]:
    """Returns MNIST's training and test images in TFDS's storage order."""
    with _quiet_tfds() as tfds:
        prepared = _tfds_folder(data_dir).exists()
        try:
            builder = tfds.builder(f"mnist:{MNIST_VERSION}", data_dir=data_dir)
            if mnist_dir is None and not prepared:
                _check_network(builder.URL, data_dir / "downloads")
            if "tensorflow" not in sys.modules:
                runtime.start_tensorflow(threads=1)
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(
                    manual_dir=mnist_dir,
                    extract_dir=scratch,  # TFDS reuses extracted files without verification
                    try_download_gcs=False,  # a download from GCS ignores manual_dir
                )
            )
            return _tfds_subset(tfds, builder, "train"), _tfds_subset(tfds, builder, "test")
        except InputError:
            raise
        except Exception as error:  # from requests, TensorFlow, protobuf, ...
            if prepared:
                raise InputError(_damaged(data_dir, _reason(error))) from error
            hint = "" if mnist_dir else f"; {_OFFLINE}"
            raise InputError(_not_prepared(data_dir, _reason(error)) + hint) from error


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[Any]:
    """Imports tensorflow_datasets without log lines; shows progress bars only on a terminal."""
    terminal = sys.stderr.isatty()
    logging.disable()
    try:
        with contextlib.redirect_stdout(sys.stderr if terminal else io.StringIO()):
            import tensorflow_datasets as tfds

            if not hasattr(tfds, "builder"):
                raise InputError(
                    "tensorflow_datasets does not work with this TensorFlow's protobuf: "
                    "pip install 'tensorflow-metadata<1.17'"
                )
            if not terminal:
                tfds.disable_progress_bar()
            yield tfds
    finally:
        logging.disable(logging.NOTSET)


def _check_network(url: str, downloads: Path) -> None:
    """Raises InputError if TFDS needs a download and the server is unreachable."""
    # TFDS itself retries for four minutes, or hangs as long as a silent firewall blocks it.
    folders = (downloads, downloads / "mnist", downloads / "manual")
    if any(any(folder.glob("*-ubyte*.gz")) for folder in folders):
        return
    try:
        urllib.request.urlopen(url, timeout=10).close()  # noqa: S310 - TFDS's own URL
    except urllib.error.HTTPError:
        return  # the server answers, although the folder has no page
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise InputError(f"MNIST cannot be downloaded: {reason}; {_OFFLINE}") from error


def _tfds_folder(data_dir: Path) -> Path:
    return data_dir / "mnist" / MNIST_VERSION


def _tfds_subset(tfds: Any, builder: Any, split: str) -> Subset:
    batch = builder.as_dataset(split=split, batch_size=-1, shuffle_files=False)
    arrays = tfds.as_numpy(batch)
    return Subset(arrays["image"], arrays["label"].astype(np.uint8))


def _split_mnist(training: Subset, test: Subset) -> Dataset:
    validation = split_mask(training.labels, 500, _SPLIT_SEED)
    return Dataset(
        "mnist",
        training=_take(training.images, training.labels, ~validation),
        validation=_take(training.images, training.labels, validation),
        test=test,
    )


def _write_cache(cache: Path, partial: Path, dataset: Dataset) -> None:
    # Written to a temporary folder and renamed: no process sees a partial cache.
    partial.mkdir()
    for name, array in zip(_ARRAYS, _arrays(dataset), strict=True):
        np.save(partial / f"{name}.npy", array, allow_pickle=False)
    if cache.exists():
        cache.rename(partial.with_name("damaged"))
    partial.rename(cache)


def _read_cache(cache: Path) -> Dataset | None:
    """Returns the cached dataset, or None if it is missing or damaged."""
    try:
        arrays = [np.lib.format.open_memmap(cache / f"{name}.npy", mode="r") for name in _ARRAYS]
        dataset = Dataset("mnist", Subset(*arrays[:2]), Subset(*arrays[2:4]), Subset(*arrays[4:]))
        return dataset if sha256_of(dataset) == _MNIST_SHA256 else None
    except Exception:  # NumPy raises errors of many kinds for a damaged header
        return None


def _arrays(dataset: Dataset) -> list[np.ndarray]:
    subsets = (dataset.training, dataset.validation, dataset.test)
    return [array for subset in subsets for array in (subset.images, subset.labels)]


def sha256_of(dataset: Dataset) -> str:
    """Returns the SHA-256 of the six arrays of a dataset, in hexadecimal."""
    digest = hashlib.sha256()
    for array in _arrays(dataset):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _not_prepared(data_dir: Path, reason: str) -> str:
    return (
        f"{data_dir}: MNIST cannot be prepared there: {reason}; TFDS_DATA_DIR may name another "
        "folder"
    )


def _damaged(data_dir: Path, reason: str) -> str:
    return f"{_tfds_folder(data_dir)}: damaged, delete that folder and run again: {reason}"


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error), flags=re.DOTALL)  # TensorFlow's nodes
    first = (text.strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first.strip()[:300]}"
