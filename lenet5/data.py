"""MNIST from TensorFlow Datasets, split once and for all, and scikit-learn's small digits.

MNIST (`mnist` 3.0.1): 55,000 training, 5,000 validation and 10,000 test images. The validation
images are 500 of every class, drawn out of the 60,000 training images with a fixed seed.

Digits: 1,297 training, 200 validation (20 per class) and 300 test (30 per class) images, resampled
from 8x8 to 28x28 pixels.

Preparing MNIST takes TensorFlow Datasets and some seconds, once per user. The split arrays are
then kept in `<TFDS data dir>/lenet5/` and mapped from there, which needs NumPy only.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lenet5.errors import InputError

DATASETS = ("mnist", "digits")
CLASSES = 10

MNIST_VERSION = "3.0.1"
MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_SPLIT_SEED = 5
_SPLIT_VERSION = 1  # part of the cache's name: a change of the split makes a new cache
_CHECKSUMS = "sha256.json"


@dataclass(frozen=True)
class Subset:
    """Images and labels of one part of a dataset.

    Attributes:
        images: uint8 array of shape (n, 28, 28, 1), 0 (ground) to 255 (ink).
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
    """uint8 images in [0, 255] as float32 in [0, 1]."""
    return np.asarray(images, np.float32) / np.float32(255)


def load_dataset(
    name: str,
    *,
    data_dir: Path,
    mnist_dir: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Loads a dataset, and prepares MNIST first where that was not done yet.

    Args:
        name: `mnist` or `digits`.
        data_dir: TFDS's data folder; the cache lies in its folder `lenet5`.
        mnist_dir: folder with the four original MNIST files; None: TFDS downloads them.
        report: takes a line about anything out of the ordinary.

    Returns:
        The dataset; MNIST's arrays are read-only memory maps.

    Raises:
        InputError: the name is unknown, or MNIST cannot be had.
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
    """The folder that holds MNIST's split arrays once they are prepared."""
    return data_dir / "lenet5" / f"mnist-{MNIST_VERSION}-split{_SPLIT_VERSION}"


def is_prepared(data_dir: Path) -> bool:
    """Whether MNIST loads from an intact cache, without TensorFlow Datasets."""
    return _read_cache(mnist_cache(data_dir)) is not None


def check_mnist_dir(mnist_dir: Path) -> None:
    """Raises InputError unless the folder has MNIST's four original files."""
    # TFDS silently downloads whichever file is missing.
    missing = [name for name in MNIST_FILES if not (mnist_dir / name).is_file()]
    if missing:
        raise InputError(
            f"{mnist_dir}: not there: {', '.join(missing)}; the folder named by LENET5_MNIST_DIR "
            "or --mnist-dir must hold MNIST's four original .gz files"
        )


def split_mask(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Draws `per_class` items of every class.

    Args:
        labels: integer array of shape (n,).
        per_class: items to draw of each class.
        seed: of the draw, 0 to 2**32 - 1.

    Returns:
        bool array of shape (n,), True for the drawn.
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
    from sklearn.datasets import load_digits  # a worker that measures has no scikit-learn

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
    from filelock import FileLock  # a worker that measures has no filelock

    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(cache.with_suffix(".lock")):
            dataset = _read_cache(cache)  # another process may have prepared it meanwhile
            if dataset is None:
                if cache.exists():
                    report(f"{cache}: damaged, prepared again")
                _write_cache(cache, _split_mnist(*_read_with_tfds(data_dir, mnist_dir)))
                dataset = _read_cache(cache)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{data_dir}: MNIST cannot be prepared there: {reason}") from error
    if dataset is None:
        raise InputError(f"{cache}: cannot be read back; is the disk full or faulty?")
    return dataset


def _read_with_tfds(data_dir: Path, mnist_dir: Path | None) -> tuple[Subset, Subset]:
    import tensorflow_datasets as tfds

    if not hasattr(tfds, "builder"):
        raise InputError(
            "tensorflow_datasets cannot be imported beside this TensorFlow's protobuf: "
            "pip install 'tensorflow-metadata<1.17'"
        )
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    builder = tfds.builder(f"mnist:{MNIST_VERSION}", data_dir=data_dir)
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=mnist_dir)
        )
    except OSError as error:
        if mnist_dir is None and not error.errno:  # requests' errors are OSErrors without number
            raise InputError(_no_network(error)) from error
        raise
    except Exception as error:
        if mnist_dir is None:
            raise InputError(_no_network(error)) from error
        raise InputError(f"{mnist_dir}: not the original MNIST files: {_line(error)}") from error
    try:
        return _tfds_subset(tfds, builder, "train"), _tfds_subset(tfds, builder, "test")
    except Exception as error:
        raise InputError(
            f"{builder.data_dir}: prepared data are damaged, delete that folder and run again: "
            f"{_line(error)}"
        ) from error


def _tfds_subset(tfds: object, builder: object, split: str) -> Subset:
    batch = builder.as_dataset(split=split, batch_size=-1, shuffle_files=False)  # type: ignore[attr-defined]
    arrays = tfds.as_numpy(batch)  # type: ignore[attr-defined]
    return Subset(arrays["image"], arrays["label"].astype(np.uint8))


def _split_mnist(training: Subset, test: Subset) -> Dataset:
    validation = split_mask(training.labels, 500, _SPLIT_SEED)
    return Dataset(
        "mnist",
        training=_take(training.images, training.labels, ~validation),
        validation=_take(training.images, training.labels, validation),
        test=test,
    )


def _write_cache(cache: Path, dataset: Dataset) -> None:
    # Written beside its place and renamed: nobody ever sees half of it.
    with tempfile.TemporaryDirectory(dir=cache.parent) as scratch:
        folder = Path(scratch) / cache.name
        folder.mkdir()
        for file, array in _cache_files(dataset).items():
            np.save(folder / file, array, allow_pickle=False)
        checksums = {file: _sha256(folder / file) for file in _cache_files(dataset)}
        (folder / _CHECKSUMS).write_text(json.dumps(checksums, indent=1) + "\n")
        shutil.rmtree(cache, ignore_errors=True)
        folder.rename(cache)


def _read_cache(cache: Path) -> Dataset | None:
    """The cached dataset, or None where it is missing or damaged."""
    try:
        checksums = json.loads((cache / _CHECKSUMS).read_text())
        arrays = {}
        for file in _CACHE_FILES:
            if _sha256(cache / file) != checksums[file]:
                return None
            arrays[file] = np.load(cache / file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    parts = [
        Subset(arrays[f"{part}_images.npy"], arrays[f"{part}_labels.npy"])
        for part in ("training", "validation", "test")
    ]
    return Dataset("mnist", *parts)


_CACHE_FILES = tuple(
    f"{part}_{kind}.npy"
    for part in ("training", "validation", "test")
    for kind in ("images", "labels")
)


def _cache_files(dataset: Dataset) -> dict[str, np.ndarray]:
    subsets = (dataset.training, dataset.validation, dataset.test)
    arrays = [array for subset in subsets for array in (subset.images, subset.labels)]
    return dict(zip(_CACHE_FILES, arrays, strict=True))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _no_network(error: Exception) -> str:
    return (
        "MNIST could not be downloaded; without network, name a folder with MNIST's four original "
        f".gz files in LENET5_MNIST_DIR or --mnist-dir ({_line(error)})"
    )


def _line(error: Exception) -> str:
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first[:200]}"
