"""Dates of nightly builds."""

from __future__ import annotations

import contextlib
import re
import zipfile
from datetime import date
from pathlib import Path

_DATED = re.compile(r"\.dev(\d{4})(\d{2})(\d{2})\d*(\+.*)?$")
_UNKNOWN = date(1980, 1, 1)  # of reproducible archives


def date_in_version(version: str) -> date | None:
    """Returns the date in a version such as `2.23.0.dev20261026`; None without a valid one."""
    if found := _DATED.search(version):
        with contextlib.suppress(ValueError):
            return date(*map(int, found.groups()[:3]))
    return None


def date_of_wheel(wheel: Path) -> date | None:
    """Returns the date of a wheel's newest file; None if the wheel hides it."""
    with zipfile.ZipFile(wheel) as archive:
        newest = max((item.date_time for item in archive.infolist()), default=(1980, 1, 1))
    with contextlib.suppress(ValueError):
        found = date(*newest[:3])
        return found if found > _UNKNOWN else None
    return None
