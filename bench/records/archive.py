"""An archive: a folder with the ledgers of many runs, at any depth, as a CI server keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from bench.records import ledger, results, trainings
from bench.records.blocks import Results
from lenet5.errors import InputError
from lenet5.printable import short_line

PATTERN = "*.jsonl"


@dataclass(frozen=True)
class Stored:
    """A run's results in an archive.

    Attributes:
        path: path below the archive, with `/`.
        moment: start of the run, in UTC.
        results: terms and blocks.
    """

    path: str
    moment: datetime
    results: Results


@dataclass(frozen=True)
class Omitted:
    """A file that is not part of the history.

    Attributes:
        path: path below the archive, with `/`.
        reason: one line.
    """

    path: str
    reason: str


def read_archive(folder: Path) -> Iterator[Stored | Omitted]:
    """Yields each speed ledger below a folder, by path; one at a time, since they may be large.

    Other files of this suffix, damaged ones and second copies of a run are named instead. A report
    holds a copy of its run with fewer samples (`condensed`), which has the same verdicts.

    Raises:
        InputError: the folder is missing, or holds no file of this suffix.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    paths = sorted(path for path in folder.rglob(PATTERN) if path.is_file())
    if not paths:
        raise InputError(f"{folder}: holds no ledger ({PATTERN})")
    known: dict[str, str] = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            found = _read(path)
        except InputError as error:
            yield Omitted(name, _reason(str(error), path))
            continue
        identity = _identity(found)
        if identity in known:
            yield Omitted(name, f"the same run as {known[identity]}")
            continue
        moment = _moment(found.started)
        if moment is None:
            yield Omitted(name, f"has no date of its start: {short_line(found.started, 50)}")
            continue
        known[identity] = name
        yield Stored(name, moment, found)


def _read(path: Path) -> Results:
    kind = ledger.kind_of(path)
    if kind == trainings.KIND:
        raise InputError("holds results of accuracy")
    return results.read(path)


def _reason(message: str, path: Path) -> str:
    """Returns a message without the file's path, which the list names already."""
    return short_line(message.removeprefix(f"{path}: "))


def _identity(found: Results) -> str:
    """Digest of what every copy of a run shares: its start, machine, sides and blocks' starts."""
    content = (
        found.started,
        ledger.plain(found.machine),
        [(side.request, side.lock) for side in (found.baseline, *found.candidates)],
        sorted(found.workloads),
        [(block.candidate, block.number, block.started) for block in found.blocks],
    )
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _moment(text: str) -> datetime | None:
    """Returns a moment of ISO 8601 in UTC; None for another text. Without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
