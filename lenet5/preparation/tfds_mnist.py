"""MNIST's images in the order in which TensorFlow Datasets (TFDS) stores them."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lenet5 import runtime
from lenet5.errors import InputError

MNIST_VERSION = "3.0.1"

Arrays = tuple[np.ndarray, np.ndarray]
"""Images, uint8 (n, 28, 28, 1), and labels, uint8 (n,)."""


class TfdsError(Exception):
    """TFDS cannot read or write its files; the text is the reason, in one line."""


def tfds_folder(data_dir: Path) -> Path:
    """Returns the folder of TFDS's prepared MNIST in a data folder."""
    return data_dir / "mnist" / MNIST_VERSION


def read_mnist(data_dir: Path) -> tuple[Arrays, Arrays]:
    """Returns the training and test images that TFDS has prepared; writes nothing.

    Raises:
        TfdsError: they are damaged.
        InputError: TFDS does not work here.
    """
    with _quiet_tfds() as tfds, _failures():
        builder = _builder(tfds, data_dir)
        _start_tensorflow()
        return _read(tfds, builder)


def prepare_mnist(
    data_dir: Path, folder: Path, unpack: Callable[[str], None]
) -> tuple[Arrays, Arrays]:
    """Has TFDS prepare MNIST, and returns the training and test images.

    Args:
        data_dir: TFDS's data folder, without MNIST.
        folder: folder that `unpack` writes MNIST's four files to.
        unpack: receives the address that TFDS downloads MNIST from.

    Raises:
        TfdsError: TFDS failed, for example because the disk is full.
        InputError: a file is not available, or TFDS does not work here.
    """
    with _quiet_tfds() as tfds, _failures():
        with _temporary_files_in(folder):
            builder = _builder(tfds, data_dir)
        unpack(builder.URL)
        _start_tensorflow()
        # TFDS's downloads cannot be interrupted, and hang as long as a silent server blocks them.
        split = builder._split_generators
        builder._split_generators = lambda _: split(_UnpackedFiles(folder))
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
        return _read(tfds, builder)


class _UnpackedFiles:
    """Takes the place of TFDS's download manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def download_and_extract(self, urls: Mapping[str, str]) -> dict[str, str]:
        names = {key: url.rsplit("/", 1)[-1].removesuffix(".gz") for key, url in urls.items()}
        return {key: str(self._folder / name) for key, name in names.items()}


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


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    # TFDS makes an empty temporary folder for each new builder, and leaves it there.
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # from TensorFlow, protobuf, ...
        raise TfdsError(_reason(error)) from error


def _builder(tfds: Any, data_dir: Path) -> Any:
    return tfds.builder(f"mnist:{MNIST_VERSION}", data_dir=data_dir)


def _start_tensorflow() -> None:
    if "tensorflow" not in sys.modules:
        runtime.start_tensorflow(threads=1)


def _read(tfds: Any, builder: Any) -> tuple[Arrays, Arrays]:
    return _subset(tfds, builder, "train"), _subset(tfds, builder, "test")


def _subset(tfds: Any, builder: Any, split: str) -> Arrays:
    batch = builder.as_dataset(split=split, batch_size=-1, shuffle_files=False)
    arrays = tfds.as_numpy(batch)
    return arrays["image"], arrays["label"].astype(np.uint8)


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error), flags=re.DOTALL)  # TensorFlow's nodes
    first = (text.strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first.strip()[:300]}"
