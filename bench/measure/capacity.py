"""Number of parallel trainings, limited by cores, a container's CPU quota and memory.

Files of control groups, version 1 or 2, list a container's limits. A group's limit applies to all
groups below it, so the process's own group and all its parents are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from bench.measure import machine
from lenet5.errors import InputError
from lenet5.run_directory import usable_cores

MOST_PROCESSES = 256
# Peak memory with TensorFlow 2.21.0 and Keras 3.15.1: recipe fast 1,211 to 1,221 MiB with engine
# keras and 1,252 MiB with graph (3 seeds each); best and original 1,195 to 1,252 MiB in 2 epochs
# (1 seed each). Of these, 396 MiB are files shared by processes. The limit includes a reserve for
# other versions.
PER_TRAINING_BYTES = 3 * 2**29


def processes_at_once(
    cores: int, quota_cores: float | None, memory_bytes: int, per_training_bytes: int
) -> int:
    """Returns the number of single-threaded trainings without contention; at least 1.

    Args:
        cores: number of cores available to this process.
        quota_cores: a container's quota in CPU seconds per second; None: no quota.
        memory_bytes: available memory.
        per_training_bytes: memory of a training process.
    """
    by_quota = cores if quota_cores is None else int(quota_cores)
    return max(min(cores, by_quota, memory_bytes // per_training_bytes), 1)


def processes(asked: int | None) -> int:
    """Returns the requested number of processes; by default this machine's capacity.

    Raises:
        InputError: the requested number is not 1 to 256.
    """
    if asked is None:
        return min(default_processes(), MOST_PROCESSES)
    if not 1 <= asked <= MOST_PROCESSES:
        raise InputError(f"--processes is {asked}, expected 1 to {MOST_PROCESSES}")
    return asked


def default_processes(root: Path = Path("/")) -> int:
    """Returns `processes_at_once` from affinity, quota, free memory and the group's limit."""
    limit = memory_limit(root)
    free = machine.available_memory_bytes()
    return processes_at_once(
        usable_cores(),
        quota_cores(root),
        free if limit is None else min(free, limit),
        PER_TRAINING_BYTES,
    )


def quota_cores(root: Path) -> float | None:
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


def memory_limit(root: Path) -> int | None:
    """Returns this process's tightest memory limit in bytes; None without one.

    Version 1 reports a number near 2**63 for no limit; it has no effect.

    Args:
        root: parent folder of `proc` and `sys`.
    """
    names = ("memory.max", "memory.limit_in_bytes")
    found = [_number(_text(group / name)) for group in _groups(root, "memory") for name in names]
    return min((limit for limit in found if limit), default=None)


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
