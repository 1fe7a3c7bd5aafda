"""Environments that the cache keeps: their list, and their removal."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from bench.environments.cache.entries import (
    COMPLETE,
    InUseError,
    alone,
    bytes_in,
    complete,
    environments_in,
    last_mark,
)
from lenet5.errors import InputError
from lenet5.run_directory import read_json

_RECENT = timedelta(hours=1)


@dataclass(frozen=True)
class Kept:
    """An environment in the cache.

    Attributes:
        folder: its folder; the name is its key.
        request: request that built it; empty for the remains of an interrupted build.
        size_bytes: bytes on the disk.
        used: moment of its last use, in UTC.
        is_in_use: whether a process has marked it as in use.
    """

    folder: Path
    request: str
    size_bytes: int
    used: datetime
    is_in_use: bool

    @property
    def key(self) -> str:
        """Its key."""
        return self.folder.name


def kept_in(cache: Path, watched: Callable[[list[Path]], Iterable[Path]] = iter) -> list[Kept]:
    """Returns the environments of a cache, the longest unused one first.

    Args:
        cache: folder of the environments.
        watched: wraps their folders, for example in a bar of progress: a large one takes a second.
    """
    resolved = _resolved(cache)
    folders = watched(environments_in(cache))
    found = [_kept(folder, resolved.get(folder.name, 0.0)) for folder in folders]
    return sorted(found, key=lambda each: (each.used, each.key))


def older_than(found: Sequence[Kept], days: int, now: datetime) -> list[Kept]:
    """Returns the environments whose last use is more than so many days ago.

    Raises:
        InputError: the number is negative.
    """
    if not 0 <= days <= timedelta.max.days:
        raise InputError(f"--remove-older-than is {days}, expected 0 or more days")
    return [each for each in found if (now - each.used).total_seconds() > days * 86400]


def named(found: Sequence[Kept], keys: Sequence[str]) -> list[Kept]:
    """Returns the environments of these keys, or of beginnings of keys.

    Raises:
        InputError: a key is unknown, or the beginning of several.
    """
    chosen = {}
    for key in keys:
        those = [each for each in found if key and each.key.startswith(key)]
        if len(those) != 1:
            told = f"begins {len(those)} keys: give more of it" if those else "no such environment"
            raise InputError(f"--remove {key}: {told}")
        chosen[those[0].key] = those[0]
    return list(chosen.values())


def remove(kept: Kept, now: datetime) -> int:
    """Removes an environment, under the lock of its build; returns the freed bytes.

    Raises:
        InUseError: a process builds or uses it, or may use it: it was used within the last hour,
            and no lock tells more.
        InputError: a file cannot be removed.
    """
    lock = FileLock(f"{kept.folder}.lock")  # stays: another process may wait for it
    try:
        with lock.acquire(timeout=0), alone(kept.folder) as is_sure:
            if not is_sure and now - _moment(last_mark(kept.folder)) < _RECENT:
                raise InUseError("used within the last hour")
            freed = bytes_in(kept.folder)
            (kept.folder / COMPLETE).unlink(missing_ok=True)  # first: half of it is no environment
            shutil.rmtree(kept.folder)
            return freed
    except Timeout:
        raise InUseError("a process builds it") from None
    except OSError as error:
        place = error.filename or kept.folder
        raise InputError(f"{place}: cannot be removed: {error.strerror or error}") from None


def _kept(folder: Path, resolved: float) -> Kept:
    request = ""
    if complete(folder):
        request = str(read_json(folder / COMPLETE).get("request", ""))
    try:
        with alone(folder):
            is_in_use = False
    except InUseError:
        is_in_use = True
    used = _moment(max(last_mark(folder), resolved) or folder.stat().st_mtime)
    return Kept(folder, request, bytes_in(folder), used, is_in_use)


def _resolved(cache: Path) -> dict[str, float]:
    """Returns the time of each key's last resolution: a use, also in older caches."""
    times: dict[str, float] = {}
    for path in (cache / "requests").glob("*.json"):
        with contextlib.suppress(InputError, OSError):
            key = str(read_json(path).get("key"))
            times[key] = max(times.get(key, 0.0), path.stat().st_mtime)
    return times


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
