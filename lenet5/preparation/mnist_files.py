"""MNIST's four original files: found in a folder, in TFDS's download cache, or downloaded.

The content decides, not the packing: a file counts if its unpacked content has the SHA-256 in
`MNIST_FILES`.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lenet5.errors import InputError
from lenet5.preparation.download import download

OFFLINE = (
    "without network, name a folder with MNIST's four original files in LENET5_MNIST_DIR "
    "or --mnist-dir"
)
_CHUNK = 1 << 20


@dataclass(frozen=True)
class MnistFile:
    """One of the four files.

    Attributes:
        name: name of the unpacked file.
        size: number of bytes of the unpacked content.
        sha256: SHA-256 of the unpacked content, in hexadecimal.
    """

    name: str
    size: int
    sha256: str


MNIST_FILES = (
    MnistFile(
        "train-images-idx3-ubyte",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    MnistFile(
        "train-labels-idx1-ubyte",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    MnistFile(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    MnistFile(
        "t10k-labels-idx1-ubyte",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)


def find_mnist_files(folder: Path) -> dict[str, Path]:
    """Finds MNIST's four files in a folder, packed or unpacked.

    Returns:
        Path by name of the unpacked file. All spellings that are there are verified.

    Raises:
        InputError: a file is missing, unreadable or altered.
    """
    found = {}
    missing, altered = [], []
    try:
        for file in MNIST_FILES:
            paths = [path for name in _spellings(file) if (path := folder / name).is_file()]
            altered += [path.name for path in paths if not _holds(path, file)]
            if paths:
                found[file.name] = paths[0]
            else:
                missing.append(f"{file.name}.gz")
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read: {error.strerror}") from error
    if missing:
        raise InputError(
            f"{folder}: missing files: {', '.join(missing)}; the folder named by LENET5_MNIST_DIR "
            "or --mnist-dir must hold MNIST's four original files, packed (.gz) or unpacked"
        )
    if altered:
        raise InputError(
            f"{folder}: damaged, or not MNIST's original: {', '.join(altered)}; "
            "replace or delete the named files"
        )
    return found


def unpack_mnist(
    url: str,
    *,
    data_dir: Path,
    mnist_dir: Path | None,
    folder: Path,
    report: Callable[[str], None],
) -> None:
    """Unpacks MNIST's four files into a folder, under their plain names.

    Args:
        url: address of the folder to download from, with a slash at its end.
        data_dir: TFDS's data folder; archives in its download cache are used if they are whole.
        mnist_dir: folder with the four files; None: download cache or download.
        folder: existing folder that receives the files.
        report: receives one line about each damaged archive, and about a download.

    Raises:
        InputError: a file is missing or altered, or cannot be downloaded.
        OSError: the folder cannot be written.
    """
    found = {} if mnist_dir is None else find_mnist_files(mnist_dir)
    for file in MNIST_FILES:
        path = found.get(file.name) or _find_archive(data_dir / "downloads", file, report)
        if path is None:
            path = folder / f"{file.name}.gz"
            path.write_bytes(_download(f"{url}{file.name}.gz", file, report))
            if not _holds(path, file):
                raise InputError(
                    f"{url}{file.name}.gz: the answer is not MNIST's original; is it the page of "
                    f"a proxy? {OFFLINE}"
                )
        with _opened(path) as content, (folder / file.name).open("wb") as unpacked:
            shutil.copyfileobj(content, unpacked, _CHUNK)


def _download(url: str, file: MnistFile, report: Callable[[str], None]) -> bytes:
    report(f"downloading {url}")
    try:
        return download(url, largest=file.size)
    except InputError as error:
        raise InputError(f"MNIST cannot be downloaded: {error}; {OFFLINE}") from error


def _find_archive(downloads: Path, file: MnistFile, report: Callable[[str], None]) -> Path | None:
    """Returns a whole archive in TFDS's download cache; TFDS itself verifies none there."""
    paths = [downloads / "manual" / name for name in _spellings(file)]
    for folder in (downloads / "mnist", downloads):
        paths += sorted(folder.glob(f"*_mnist_{file.name}*.gz"))
    for path in paths:
        try:
            if path.is_file():
                if _holds(path, file):
                    return path
                report(f"{path}: damaged, not used")
        except OSError as error:
            report(f"{path}: not used: {error.strerror}")
    return None


def _spellings(file: MnistFile) -> tuple[str, ...]:
    dotted = file.name.replace("-idx", ".idx")  # as many unpackers write it
    return f"{file.name}.gz", file.name, f"{dotted}.gz", dotted


def _holds(path: Path, file: MnistFile) -> bool:
    """Tells whether the content of a packed or unpacked file is the original one."""
    digest, size = hashlib.sha256(), 0
    try:
        with _opened(path) as content:
            while chunk := content.read(_CHUNK):
                size += len(chunk)
                if size > file.size:  # a small archive may expand to any size
                    return False
                digest.update(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return False
    return digest.hexdigest() == file.sha256


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file, through gzip if its first bytes are gzip's: browsers unpack, but keep `.gz`."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=file) as content:
                yield content  # type: ignore[misc]
        else:
            yield file
