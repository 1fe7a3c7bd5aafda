"""A ledger: a header with the terms, then one record per line, appended and flushed to disk.

A kill loses at most the line being written: a reader drops it, and the next writer truncates it. A
later header replaces an earlier one.
"""

from __future__ import annotations

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

from lenet5.errors import InputError
from lenet5.printable import all_printable
from lenet5.run_directory import writing, written_whole

SCHEMA = 3
HEADER, END = "header", "end"
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
            InputError: the file cannot be written.
        """
        with writing(self._path):
            if not self._file.tell():
                self._write(_line("ledger", {"kind": self._kind, "schema": SCHEMA}))
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
        if path.exists():
            read(path, kind)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab", buffering=0)
        with file:
            with writing(path):
                file.truncate(path.read_bytes().rfind(b"\n") + 1)
                file.seek(0, os.SEEK_END)
            try:
                yield Ledger(file, path, kind)
            finally:
                if not file.tell():
                    path.unlink()


def write(path: Path, kind: str, records: Iterable[Record]) -> None:
    """Writes a ledger atomically, in place of an earlier file.

    Raises:
        InputError: the file cannot be written.
    """
    lines = [_line(*record) for record in (("ledger", {"kind": kind, "schema": SCHEMA}), *records)]
    with written_whole(path) as partial:
        partial.write_bytes(b"".join(lines))


def read(path: Path, kind: str) -> Content:
    """Reads a ledger.

    Raises:
        InputError: the file is missing or damaged, has another kind or schema, or lacks a header.
    """
    first, *lines = _lines(path)
    if first.get("schema") != SCHEMA:
        told = f"has schema {first.get('schema')!r}, this version reads {SCHEMA}"
        raise InputError(f"{path}: {told}")
    if first.get("kind") != kind:
        raise InputError(f"{path}: is of {first.get('kind')!r}, expected {kind!r}")
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
            raise InputError(f"{path}: another process appends to it: wait until it ends") from None
    try:
        yield
    finally:
        lock.release()


def _lines(path: Path) -> list[Any]:
    """Returns the first line's content, then a record or None for each other line."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    first, *lines = text.split(b"\n")
    opening = _record(first)
    if opening is None or opening[0] != "ledger" or not isinstance(opening[1], dict):
        raise InputError(f"{path}: is damaged or not a ledger")
    if lines and not lines[-1]:  # the last line is complete
        lines.pop()
    return [opening[1], *map(_record, lines)]


def _record(line: bytes) -> Record | None:
    try:
        content = all_printable(json.loads(line, parse_constant=_refuse))
        ((name, value),) = content.items()
        return name, _with_numbers(value)
    except (ValueError, AttributeError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


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
