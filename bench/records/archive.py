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
from bench.records.stages import OPTION
from bench.records.trainings import Comparison, Trainings
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
class StoredSeeds:
    """A run of accuracy in an archive.

    Attributes:
        path: path below the archive, with `/`.
        moment: start of the run, in UTC.
        sets: seeds of the baseline or the reference, then of each candidate.
        terms: margin and pairing.
    """

    path: str
    moment: datetime
    sets: tuple[Trainings, ...]
    terms: Comparison


@dataclass(frozen=True)
class Omitted:
    """A file that is not part of the history.

    Attributes:
        path: path below the archive, with `/`.
        reason: one line.
    """

    path: str
    reason: str


Item = Stored | StoredSeeds | Omitted


def read_archive(folder: Path) -> Iterator[Item]:
    """Yields each comparison below a folder, by path; one at a time, since they may be large.

    Other files of this suffix, damaged ones, references and second copies of a run are named
    instead. A report holds a copy of its run with fewer samples (`condensed`), which has the same
    verdicts.

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
            found = _read(path, name)
        except InputError as error:
            yield Omitted(name, _reason(str(error), path))
            continue
        identity = _identity(found)
        if identity in known:
            yield Omitted(name, f"the same run as {known[identity]}")
        else:
            known[identity] = name
            yield found


_STAGE = "a stage of a bisection: its levels are no runs of one track"


def _read(path: Path, name: str) -> Stored | StoredSeeds:
    if trainings.holds_trainings(path):
        sets, terms = trainings.read_comparison(path)
        if terms.stage is not None:
            raise InputError(_STAGE)
        return StoredSeeds(name, _moment(sets[-1].started), tuple(sets), terms)
    found = results.read(path)
    if OPTION in found.options:
        raise InputError(_STAGE)
    return Stored(name, _moment(found.started), found)


def _reason(message: str, path: Path) -> str:
    """Returns a message without the file's path, which the list names already."""
    return short_line(message.removeprefix(f"{path}: "))


def _identity(found: Stored | StoredSeeds) -> str:
    """Digest of what every copy of a run shares: its start, machine, sides and blocks' starts."""
    if isinstance(found, StoredSeeds):
        sets = [
            (each.started, each.machine, each.side.request, each.side.lock, len(each.seeds))
            for each in found.sets
        ]
        return _digest(sets)
    run = found.results
    return _digest(
        (
            run.started,
            run.machine,
            [(side.request, side.lock) for side in (run.baseline, *run.candidates)],
            sorted(run.workloads),
            [(block.candidate, block.number, block.started) for block in run.blocks],
        )
    )


def _digest(content: object) -> str:
    text = json.dumps(ledger.plain(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _moment(text: str) -> datetime:
    """Returns a moment of ISO 8601 in UTC. Without an offset it is UTC.

    Raises:
        InputError: the text is no such moment.
    """
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise InputError(f"has no date of its start: {short_line(text, 50)}") from None
