"""Limits of a container or of a service, from Linux's control groups of version 1 or 2.

A group's limit applies to all groups below it, so the process's own group and all its parents are
read. Elsewhere there are no groups and no limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def quota_cores(root: Path = ROOT) -> float | None:
    """Returns this process's tightest quota in CPU seconds per second; None without one.

    Args:
        root: parent folder of `proc` and `sys`.
    """
    found = [
        quota / period
        for quota, period in map(_quota_and_period, _groups(root, "cpu"))
        if quota and period
    ]
    return min(found, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Returns this process's tightest memory limit in bytes; None without one.

    Version 1 reports a number near 2**63 for no limit; it has no effect.

    Args:
        root: parent folder of `proc` and `sys`.
    """
    names = ("memory.max", "memory.limit_in_bytes")
    found = [_number(_text(group / name)) for group in _groups(root, "memory") for name in names]
    return min((limit for limit in found if limit), default=None)


def throttled_periods(root: Path = ROOT) -> tuple[int, int]:
    """Returns the enforcement periods so far, and those in which a quota stopped this process.

    Both are sums over its groups with a quota, 0 without one.

    Args:
        root: parent folder of `proc` and `sys`.
    """
    periods = throttled = 0
    for group in _groups(root, "cpu"):
        words = _text(group / "cpu.stat").split()
        figures = dict(zip(words[::2], words[1::2], strict=False))
        periods += _number(figures.get("nr_periods", "")) or 0
        throttled += _number(figures.get("nr_throttled", "")) or 0
    return periods, throttled


def _quota_and_period(group: Path) -> tuple[int | None, int | None]:
    """Returns microseconds of CPU per period, and of the period; version 1 has a file for each."""
    words = _text(group / "cpu.max").split()
    if len(words) == 2:
        return _number(words[0]), _number(words[1])
    quota, period = (_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return _number(quota), _number(period)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yields the folders of this process's groups and of their parents; some may not exist.

    In a container, a group's path may be the host's; the top folder is the container's group then.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if (number, controllers) == ("0", ""):
            mounts = {".", "unified"}  # `unified` if version 1 is mounted too
        elif controller in controllers.split(","):
            mounts = {controllers, controller}
        else:
            continue
        inner = PurePosixPath(group.strip("/"))
        if ".." in inner.parts:  # a group outside the container's view
            inner = PurePosixPath()
        for mount in sorted(mounts):
            top = root / "sys/fs/cgroup" / mount
            yield from (top / folder for folder in (inner, *inner.parents))


def _number(text: str) -> int | None:
    """Returns a limit above 0; None for `max`, -1 and any other text."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if number > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
