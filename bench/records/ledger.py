"""A ledger: a header with the terms, then one record per line, appended and flushed to disk.

A kill loses at most the line being written: a reader drops it, and the next writer truncates it. A
later header replaces an earlier one. A file without a whole header counts as new. Size of the file,
length of a line and depth of its JSON are limited.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from filelock import FileLock, Timeout

from lenet5.documents import is_deeper
from lenet5.errors import InputError
from lenet5.printable import all_printable, short_line
from lenet5.run_directory import writing, written_whole

SCHEMA = 3
HEADER, END = "header", "end"
MOST_BYTES = 2**29  # of a file; a comparison of ten environments has about 10 MB
LONGEST_LINE = 2**26
DEEPEST = 30  # levels of lists and tables; records have up to 7
# JSON lacks these numbers; a loss of NaN is a finding, not damage.
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Record = tuple[str, Any]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Content:
    """Content of a ledger.

    Attributes:
        header: last header.
        records: other records with their names, in file order.
        is_complete: whether an end record follows the last header.
        is_torn: whether the last line was torn; it is dropped.
    """

    header: Mapping[str, Any]
    records: Sequence[Record]
    is_complete: bool
    is_torn: bool


class Ledger:
    """Writer of a ledger, new or not; no other process can append meanwhile."""

    def __init__(self, file: FileIO, path: Path, kind: str) -> None:
        self._file = file
        self._path = path
        self._kind = kind

    def append(self, name: str, content: object) -> None:
        """Appends a record and flushes it to disk.

        Raises:
            InputError: the file cannot be written, or was removed or replaced meanwhile.
        """
        if not is_at(self._file, self._path):
            raise InputError(f"{self._path}: was removed or replaced while it was written")
        with writing(self._path):
            if not self._file.tell():
                self._write(_opening(self._kind))
            self._write(_line(name, content))
            os.fsync(self._file.fileno())

    def _write(self, line: bytes) -> None:
        while line:  # a full disk may accept only a part
            line = line[self._file.write(line) :]


@contextmanager
def appending(path: Path, kind: str, cache: Path) -> Iterator[Ledger]:
    """Opens a ledger for appending; removes it at the end if it is empty.

    Args:
        path: path of the file; its folder is created.
        kind: kind of the records, such as `speed`.
        cache: folder of the locks, so that no lock is next to the file.

    Raises:
        InputError: another process appends to the file, it is not a ledger, or it cannot be
            written.
    """
    with _only_writer(path, cache):
        if path.exists() and is_begun(path, kind):
            read(path, kind)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab", buffering=0)
        with file:
            _hold(file, path)
            with writing(path):
                _repair_end(file, path.read_bytes())
            try:
                yield Ledger(file, path, kind)
            finally:
                if not file.tell() and is_at(file, path):
                    path.unlink(missing_ok=True)


def is_begun(path: Path, kind: str) -> bool:
    """Returns whether a file holds more than the torn beginning of a ledger.

    A process killed before its first record leaves nothing, or a part of the first two lines.

    Raises:
        InputError: the file cannot be read.
    """
    opening = _opening(kind)
    content = _bytes_of(path)
    if opening.startswith(content):
        return False
    rest = content.removeprefix(opening)
    return len(rest) == len(content) or b"\n" in rest or _record(rest) is not None


def _hold(file: FileIO, path: Path) -> None:
    """Locks the file itself too: another process may have its locks in another cache."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_free = is_at(file, path)  # another process may have removed its empty file meanwhile
    except BlockingIOError:
        is_free = False
    except OSError:  # some network file systems have no locks
        return
    if not is_free:
        raise _busy(path)


def is_at(file: FileIO, path: Path) -> bool:
    """Returns whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _repair_end(file: FileIO, content: bytes) -> None:
    """Completes a last line that lacks only its end; removes any other torn line."""
    start = content.rfind(b"\n") + 1
    if _record(content[start:]) is None:
        file.truncate(start)
    elif content[start:]:
        file.write(b"\n")
    file.seek(0, os.SEEK_END)


def write(path: Path, kind: str, records: Iterable[Record]) -> None:
    """Writes a ledger atomically, in place of an earlier file.

    Raises:
        InputError: the file cannot be written.
    """
    lines = [_line(*record) for record in records]
    with written_whole(path) as partial:
        partial.write_bytes(b"".join([_opening(kind), *lines]))


def read(path: Path, kind: str) -> Content:
    """Reads a ledger.

    Raises:
        InputError: the file is missing or damaged, has another kind or schema, or lacks a header.
    """
    first, *lines = _lines(path)
    if first.get("schema") != SCHEMA:
        told = (
            f"has schema {short_line(repr(first.get('schema')), 50)}, this version reads {SCHEMA}"
        )
        raise InputError(f"{path}: {told}")
    if first.get("kind") != kind:
        raise InputError(
            f"{path}: is of {short_line(repr(first.get('kind')), 50)}, expected {kind!r}"
        )
    header: Mapping[str, Any] | None = None
    records: list[Record] = []
    is_complete = is_torn = False
    for number, line in enumerate(lines, start=2):
        if line is None:
            if number <= len(lines):
                raise InputError(f"{path}: is damaged: line {number} is not a record")
            is_torn = True
        elif line[0] == HEADER:
            header, is_complete = line[1], False
        elif line[0] == END:
            is_complete = True
        else:
            records.append(line)
    if not isinstance(header, dict):
        raise InputError(f"{path}: is damaged: it has no header")
    return Content(header, records, is_complete, is_torn)


def kind_of(path: Path) -> str:
    """Returns the kind in a ledger's first line; empty for any other file."""
    try:
        return str(_lines(path)[0].get("kind", ""))
    except InputError:
        return ""


def made(kind: type[Made], content: object) -> Made:
    """Converts parsed JSON to a data class.

    Raises:
        ValueError: a field is missing or has another type; the message names it.
    """
    # TensorFlow before 2.14 forbids the typing_extensions required by pydantic.
    return msgspec.convert(content, kind)


@contextmanager
def _only_writer(path: Path, cache: Path) -> Iterator[None]:
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:20]
    lock = FileLock(cache / "locks" / f"{name}.lock")
    with writing(cache / "locks"):
        (cache / "locks").mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise _busy(path) from None
    try:
        yield
    finally:
        lock.release()


def _busy(path: Path) -> InputError:
    return InputError(f"{path}: another process appends to it: wait until it ends")


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: is larger than {MOST_BYTES >> 20} MiB, the limit of a ledger")
    return content


def _lines(path: Path) -> list[Any]:
    """Returns the first line's content, then a record or None for each other line."""
    first, *lines = _bytes_of(path).split(b"\n")
    opening = _record(first)
    if opening is None or opening[0] != "ledger" or not isinstance(opening[1], dict):
        raise InputError(f"{path}: is damaged or not a ledger")
    if lines and not lines[-1]:  # the last line is complete
        lines.pop()
    return [opening[1], *map(_record, lines)]


def _record(line: bytes) -> Record | None:
    if len(line) > LONGEST_LINE:
        return None
    try:
        content = all_printable(json.loads(line, parse_constant=_refuse))
        ((name, value),) = content.items()
        return None if is_deeper(value, DEEPEST) else (name, _with_numbers(value))
    except (ValueError, AttributeError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _opening(kind: str) -> bytes:
    return _line("ledger", {"kind": kind, "schema": SCHEMA})


def _line(name: str, content: object) -> bytes:
    text = json.dumps(
        {name: plain(content)}, sort_keys=True, allow_nan=False, separators=(",", ":")
    )
    return text.encode() + b"\n"


def plain(value: Any) -> Any:
    """Converts a value to JSON's types; numbers that are not finite become strings."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _with_numbers(value: Any) -> Any:
    """Restores numbers that are not finite; they occur only in lists of numbers."""
    if isinstance(value, dict):
        return {key: _with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [
            _NOT_FINITE.get(item, item) if isinstance(item, str) else _with_numbers(item)
            for item in value
        ]
    return value
