"""Accepted steps: a TOML file in the user's repository, written by hand.

[[step]]
series = "fit_call of tf-nightly on AMD EPYC, 2 cores"  # as the page names it
date = 2026-11-20  # a day within the range of the step
reason = "Keras validates its arguments since 3.9"
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from lenet5.errors import InputError
from lenet5.printable import short_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT = "bench-accepted.toml"
_KEYS = {"series", "date", "reason"}


@dataclass(frozen=True)
class Accepted:
    """A step that its reader knows and accepts.

    Attributes:
        series: name of the series, as the page shows it.
        day: a day within the step's range, in UTC.
        reason: why the step is accepted; not empty.
    """

    series: str
    day: date
    reason: str


def read_accepted(path: Path) -> list[Accepted]:
    """Reads accepted steps, in the order of the file.

    Raises:
        InputError: the file cannot be read, is not TOML, or has an entry of another form.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise InputError(f"{path}: is not TOML: {short_line(error)}") from None
    unknown = sorted(set(content) - {"step"})
    if unknown:
        raise InputError(f"{path}: unknown key {short_line(unknown[0], 50)}, expected [[step]]")
    steps = content.get("step", [])
    if not isinstance(steps, list):
        raise InputError(f"{path}: step is not a list: write [[step]] before each entry")
    return [_accepted(path, number, entry) for number, entry in enumerate(steps, start=1)]


def _accepted(path: Path, number: int, entry: Any) -> Accepted:
    where = f"{path}: step {number}"
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        raise InputError(f"{where}: expected exactly the keys date, reason and series")
    series, day, reason = entry["series"], entry["date"], entry["reason"]
    if isinstance(day, str):
        try:
            day = date.fromisoformat(day)
        except ValueError:
            day = None
    if isinstance(day, datetime) or not isinstance(day, date):
        raise InputError(f"{where}: date is not a day such as 2026-11-20")
    for key, text in (("series", series), ("reason", reason)):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: {key} is empty or not a text")
    return Accepted(series, day, short_line(reason))
