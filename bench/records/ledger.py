"""A ledger: a header that says what is asked, then one record a line, appended and flushed to disk.

A kill loses at most the line that was being written: it is left out when the file is read, and cut
off when it is appended to. A later header takes the place of an earlier one.
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
from lenet5.run_directory import writing, written_whole

SCHEMA = 3
HEADER, END = "header", "end"
# JSON has no such numbers; a loss that is none is a finding, not damage.
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Record = tuple[str, Any]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Content:
    """What a ledger holds.

    Attributes:
        header: the last one.
        records: the others by name, in the order in which they came.
        is_complete: whether it ended by itself, after its last header.
        is_torn: whether its last line was cut off, and is left out.
    """

    header: Mapping[str, Any]
    records: Sequence[Record]
    is_complete: bool
    is_torn: bool


class Ledger:
    """Appends to a ledger, which is made where it is not there; no other process can meanwhile."""

    def __init__(self, file: FileIO, path: Path, kind: str) -> None:
        self._file = file
        self._path = path
        self._kind = kind

    def append(self, name: str, content: object) -> None:
        """Appends a record; it is on the disk when this returns.

        Raises:
            InputError: it cannot be written.
        """
        with writing(self._path):
            if not self._file.tell():
                self._write(_line("ledger", {"kind": self._kind, "schema": SCHEMA}))
            self._write(_line(name, content))
            os.fsync(self._file.fileno())

    def _write(self, line: bytes) -> None:
        while line:  # a full disk may take a part
            line = line[self._file.write(line) :]


@contextmanager
def appending(path: Path, kind: str, cache: Path) -> Iterator[Ledger]:
    """Opens a ledger to append to; one that nothing was appended to is not left behind.

    Args:
        path: of the file; its folder is made.
        kind: of what is kept, such as `speed`.
        cache: folder that locks are kept in, so that none lies beside the file.

    Raises:
        InputError: another process appends to it, it is no ledger, or it cannot be written.
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
    """Writes a ledger whole, in place of an earlier file.

    Raises:
        InputError: it cannot be written.
    """
    lines = [_line(*record) for record in (("ledger", {"kind": kind, "schema": SCHEMA}), *records)]
    with written_whole(path) as partial:
        partial.write_bytes(b"".join(lines))


def read(path: Path, kind: str) -> Content:
    """Reads a ledger.

    Raises:
        InputError: it is missing, damaged, of another kind or schema, or has no header.
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
                raise InputError(f"{path}: is damaged: line {number} is no record")
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
    """What a ledger is of, as its first line says; empty where it is none."""
    try:
        return str(_lines(path)[0].get("kind", ""))
    except InputError:
        return ""


def made(kind: type[Made], content: object) -> Made:
    """A data class of what was read.

    Raises:
        ValueError: a field is missing or has another type; says which.
    """
    # pydantic does not go with TensorFlow before 2.14, which forbids its typing_extensions.
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
            raise InputError(f"{path}: another process adds to it, let that end first") from None
    try:
        yield
    finally:
        lock.release()


def _lines(path: Path) -> list[Any]:
    """The first line's content, then a record or None for each other line."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    first, *lines = text.split(b"\n")
    opening = _record(first)
    if opening is None or opening[0] != "ledger" or not isinstance(opening[1], dict):
        raise InputError(f"{path}: is damaged or no ledger")
    if lines and not lines[-1]:  # the last line has its end
        lines.pop()
    return [opening[1], *map(_record, lines)]


def _record(line: bytes) -> Record | None:
    try:
        content = json.loads(line, parse_constant=_refuse)
        ((name, value),) = content.items()
    except (ValueError, AttributeError, RecursionError):
        return None
    return name, _with_numbers(value)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _line(name: str, content: object) -> bytes:
    text = json.dumps(
        {name: plain(content)}, sort_keys=True, allow_nan=False, separators=(",", ":")
    )
    return text.encode() + b"\n"


def plain(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite become words."""
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
    """Numbers again; they stand in rows of numbers alone."""
    if isinstance(value, dict):
        return {key: _with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [
            _NOT_FINITE.get(item, item) if isinstance(item, str) else _with_numbers(item)
            for item in value
        ]
    return value
