"""Ledger of a stage of numerics: bits and deviations of each level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.records import ledger
from bench.records.sides import Side
from bench.records.stages import Stage
from lenet5.errors import InputError
from lenet5.printable import short_line

KIND = "numerics"
_LEVEL = "level"


@dataclass(frozen=True)
class Computed:
    """The numerics problem in an environment.

    Attributes:
        request: request of the environment.
        side: the environment.
        bits: SHA-256 of each quantity's values as float64; empty if there are none.
        deviations: largest deviation from NumPy float64 by quantity, relative to its largest.
        problem: reason for missing values, in one line; empty otherwise.
    """

    request: str
    side: Side
    bits: Mapping[str, str]
    deviations: Mapping[str, float]
    problem: str = ""


@dataclass(frozen=True)
class Levels:
    """A stage of numerics so far.

    Attributes:
        stage: environments and changes.
        machine: the machine.
        code: SHA-256 of the workers' files.
        started: start in UTC, ISO 8601.
        computed: levels in the order of their computation.
    """

    stage: Stage
    machine: Mapping[str, Any]
    code: str
    started: str
    computed: tuple[Computed, ...] = ()


def is_begun(path: Path) -> bool:
    """Returns whether a file holds more than the torn beginning of a killed process."""
    return path.exists() and ledger.is_begun(path, KIND)


def read(path: Path) -> Levels:
    """Reads a stage of numerics.

    Raises:
        InputError: the ledger is missing or damaged, or has another kind.
    """
    content = ledger.read(path, KIND)
    try:
        found = ledger.made(Levels, content.header)
        computed = [ledger.made(Computed, item) for name, item in content.records if name == _LEVEL]
    except ValueError as error:
        raise InputError(f"{path}: is damaged: {short_line(error)}") from None
    return Levels(found.stage, found.machine, found.code, found.started, tuple(computed))


@contextmanager
def keeping(path: Path, cache: Path, begun: Levels) -> Iterator[Callable[[Computed], None]]:
    """Opens a ledger, and yields a function that appends a level.

    Raises:
        InputError: another process appends to the file, or it cannot be written.
    """
    is_new = not is_begun(path)
    with ledger.appending(path, KIND, cache) as file:
        if is_new:
            file.append(ledger.HEADER, {**ledger.plain(begun), "computed": []})
        yield lambda level: file.append(_LEVEL, level)
