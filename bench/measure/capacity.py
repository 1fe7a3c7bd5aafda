"""How many trainings run at once: as many as cores, a container's CPU quota and memory allow.

A container's limits stand in files of control groups, of version 1 or 2. Each group's limit holds
for all groups below it, so that the process's own group and all its parents are asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from bench.measure import machine
from lenet5.errors import InputError
from lenet5.run_directory import usable_cores

MOST_PROCESSES = 256
# Recipe fast held at most 1,211 to 1,221 MiB with engine keras and 1,252 MiB with graph (3 seeds
# each), best and original 1,195 to 1,252 MiB in 2 epochs (1 seed each), 396 MiB of it files that
# processes share; TensorFlow 2.21.0, Keras 3.15.1. The rest is room for other versions.
PER_TRAINING_BYTES = 3 * 2**29


def processes_at_once(
    cores: int, quota_cores: float | None, memory_bytes: int, per_training_bytes: int
) -> int:
    """Trainings of one thread each that run at once without waiting for each other; at least 1.

    Args:
        cores: that this process may use.
        quota_cores: CPU seconds a second that a container may use; None: no quota.
        memory_bytes: to be had.
        per_training_bytes: of a process that trains.
    """
    by_quota = cores if quota_cores is None else int(quota_cores)
    return max(min(cores, by_quota, memory_bytes // per_training_bytes), 1)


def processes(asked: int | None) -> int:
    """The processes that were asked for; by default as many as this machine has room for.

    Raises:
        InputError: fewer than 1 or more than 256 were asked for.
    """
    if asked is None:
        return min(default_processes(), MOST_PROCESSES)
    if not 1 <= asked <= MOST_PROCESSES:
        raise InputError(f"--processes is {asked}, expected 1 to {MOST_PROCESSES}")
    return asked


def default_processes(root: Path = Path("/")) -> int:
    """`processes_at_once` of this process: affinity, quota, free memory, and the group's limit."""
    limit = memory_limit(root)
    free = machine.available_memory_bytes()
    return processes_at_once(
        usable_cores(),
        quota_cores(root),
        free if limit is None else min(free, limit),
        PER_TRAINING_BYTES,
    )


def quota_cores(root: Path) -> float | None:
    """CPU seconds a second of the tightest quota on this process; None without one.

    Args:
        root: that `proc` and `sys` lie in.
    """
    found = [
        quota / period
        for quota, period in map(_quota_and_period, _groups(root, "cpu"))
        if quota and period
    ]
    return min(found, default=None)


def memory_limit(root: Path) -> int | None:
    """Bytes of the tightest memory limit on this process; None without one.

    Without a limit version 1 tells a number near 2**63, which bounds nothing.

    Args:
        root: that `proc` and `sys` lie in.
    """
    names = ("memory.max", "memory.limit_in_bytes")
    found = [_number(_text(group / name)) for group in _groups(root, "memory") for name in names]
    return min((limit for limit in found if limit), default=None)


def _quota_and_period(group: Path) -> tuple[int | None, int | None]:
    """Microseconds of CPU in each period: of version 2 in one file, of version 1 in two."""
    words = _text(group / "cpu.max").split()
    if len(words) == 2:
        return _number(words[0]), _number(words[1])
    quota, period = (_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return _number(quota), _number(period)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's groups and of their parents; some of them may not be there.

    In a container the path of a group may be the host's: the top folder is its own group then.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if (number, controllers) == ("0", ""):
            mounts = {".", "unified"}  # the latter where version 1 is mounted too
        elif controller in controllers.split(","):
            mounts = {controllers, controller}
        else:
            continue
        inner = PurePosixPath(group.strip("/"))
        if ".." in inner.parts:  # a group outside of what the container sees
            inner = PurePosixPath()
        for mount in sorted(mounts):
            top = root / "sys/fs/cgroup" / mount
            yield from (top / folder for folder in (inner, *inner.parents))


def _number(text: str) -> int | None:
    """A limit above 0; None for `max`, -1 and whatever else is none."""
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
