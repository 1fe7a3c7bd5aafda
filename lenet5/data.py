"""MNIST from TensorFlow Datasets with a fixed split, and scikit-learn's small digits.

MNIST (`mnist` 3.0.1): 55,000 training, 5,000 validation and 10,000 test images. The validation
images are 500 of every class, drawn from the 60,000 training images with a fixed seed.

Digits: 1,297 training, 200 validation (20 per class) and 300 test (30 per class) images, resampled
from 8x8 to 28x28 pixels.

Preparing MNIST needs TensorFlow Datasets and takes some seconds, once per user. The split arrays
are cached in `<TFDS data dir>/lenet5/` or a folder of the user's choice, and memory-mapped from
there, which needs NumPy only. Prepared and cached arrays must both have the SHA-256 in
`_MNIST_SHA256`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lenet5.errors import InputError

DATASETS = ("mnist", "digits")
CLASSES = 10

_SPLIT_SEED = 5
_CACHE = "mnist-3.0.1-split1"  # TFDS's version; a new split makes a new cache
_MNIST_SHA256 = (
    "1823338e11f60f1c62333c5ec5b040bdca54e0c0405daa6d4fa89745cdf2134c"  # of the six split arrays
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
    cache_dir: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Loads a dataset; prepares MNIST first if it is not cached.

    Args:
        name: `mnist` or `digits`.
        data_dir: TFDS's data folder; MNIST that TFDS has prepared there is read.
        mnist_dir: folder with MNIST's four original files; None: they are downloaded.
        cache_dir: folder of the cache; None: `lenet5` in `data_dir`.
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
    cache = mnist_cache(data_dir, cache_dir)
    keep = cache_dir is None
    return _read_cache(cache) or _prepare_mnist(cache, data_dir, mnist_dir, report, keep=keep)


def mnist_cache(data_dir: Path, cache_dir: Path | None = None) -> Path:
    """Returns the folder of MNIST's split arrays."""
    return (cache_dir or data_dir / "lenet5") / _CACHE


def check_mnist_dir(mnist_dir: Path) -> None:
    """Checks that the folder has MNIST's four original files, packed or unpacked.

    Raises:
        InputError: a file is missing, unreadable or altered.
    """
    from lenet5.preparation.mnist_files import find_mnist_files  # workers have no mnist_files

    find_mnist_files(mnist_dir)


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
    cache: Path,
    data_dir: Path,
    mnist_dir: Path | None,
    report: Callable[[str], None],
    *,
    keep: bool,
) -> Dataset:
    """Prepares MNIST in a temporary folder, which becomes the cache by its renaming.

    A killed process leaves at most that folder, and no cache: the next process removes it.
    """
    from lenet5.locks import locked  # workers have no filelock
    from lenet5.preparation.tfds_mnist import TfdsError

    partial = cache.with_name(f"{cache.name}.partial")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        waiting = f"{cache}: another process prepares it, waiting"
        with locked(cache.with_name(f"{cache.name}.lock"), report, waiting):
            dataset = _read_cache(cache)  # another process may have prepared it meanwhile
            if dataset is not None:
                return dataset
            if os.path.lexists(cache):
                report(f"{cache}: damaged, prepared again")
            _remove(partial)  # left by a killed process
            work = partial / "work"
            work.mkdir(parents=True)
            try:
                dataset = _original_mnist(data_dir, mnist_dir, work, report, keep=keep)
                shutil.rmtree(work)
                _write_arrays(partial, dataset)
                if os.path.lexists(cache):
                    cache.rename(work)
                    _remove(work)
                partial.rename(cache)
            finally:
                _remove(partial)
            dataset = _read_cache(cache)
    except (OSError, TfdsError) as error:
        full = isinstance(error, OSError) and error.errno is None  # NumPy's: too few bytes written
        reason = f"is the disk full? {error}" if full else error
        raise InputError(
            f"{cache}: MNIST cannot be prepared there: {reason}; LENET5_CACHE_DIR may name "
            "another folder"
        ) from error
    if dataset is None:
        raise InputError(f"{cache}: cannot be read back; is the disk full or faulty?")
    return dataset


def _original_mnist(
    data_dir: Path,
    mnist_dir: Path | None,
    work: Path,
    report: Callable[[str], None],
    *,
    keep: bool,
) -> Dataset:
    """Returns MNIST as TFDS has prepared it, or prepares it below `work`.

    Args:
        data_dir: TFDS's data folder.
        mnist_dir: folder with MNIST's four original files, or None.
        work: empty temporary folder.
        report: receives one line about each unusual event.
        keep: moves what TFDS has prepared below `work` to `data_dir`.
    """
    from lenet5.preparation.mnist_files import unpack_mnist
    from lenet5.preparation.tfds_mnist import TfdsError, prepare_mnist, read_mnist, tfds_folder

    def verified(training: Subset, test: Subset) -> Dataset:
        dataset = _split_mnist(training, test)
        if sha256_of(dataset) != _MNIST_SHA256:
            raise TfdsError("other images than MNIST's")
        return dataset

    def unpack(url: str) -> None:
        unpack_mnist(url, data_dir=data_dir, mnist_dir=mnist_dir, folder=work, report=report)

    folder = tfds_folder(data_dir)
    if folder.exists():
        try:
            return verified(*(Subset(*arrays) for arrays in read_mnist(data_dir)))
        except TfdsError as error:
            report(f"{folder}: damaged, not used: {error}")
    prepared = prepare_mnist(work / "tfds", work, unpack)
    dataset = verified(*(Subset(*arrays) for arrays in prepared))
    if keep:
        with contextlib.suppress(OSError):  # it serves TFDS's other users only
            folder.parent.mkdir(exist_ok=True)
            tfds_folder(work / "tfds").rename(folder)
    return dataset


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _split_mnist(training: Subset, test: Subset) -> Dataset:
    validation = split_mask(training.labels, 500, _SPLIT_SEED)
    return Dataset(
        "mnist",
        training=_take(training.images, training.labels, ~validation),
        validation=_take(training.images, training.labels, validation),
        test=test,
    )


def _write_arrays(folder: Path, dataset: Dataset) -> None:
    for name, array in zip(_ARRAYS, _arrays(dataset), strict=True):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _read_cache(cache: Path) -> Dataset | None:
    """Returns the cached dataset, or None if it is missing or damaged."""
    try:
        paths = [cache / f"{name}.npy" for name in _ARRAYS]
        if not all(path.is_file() for path in paths):  # opening a pipe would wait for ever
            return None
        arrays = [np.lib.format.open_memmap(path, mode="r") for path in paths]
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
