"""The machine: its properties, the measuring core, and other activity."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from bench.measure import gpus
from bench.measure.processes import running_on
from bench.records.blocks import GpuWitness, Witness
from lenet5.control_groups import throttled_periods
from lenet5.devices import CPU, Device
from lenet5.environment import cpu_model, usable_cores

# Limits of a quiet block: of the maximum of steal, others and throttled periods, of the median of
# the control; on a GPU, of the share of witnesses with a reason for slower clocks, of the maximum
# share of time at a limit, and of the maximum number of other processes.
MOST_STEAL = 0.05
MOST_OTHERS = 0.05
MOST_CONTROL_RATIO = 1.5
MOST_THROTTLED = 0.05
MOST_SLOWED_WITNESSES = 0.0
MOST_LIMITED = 0.05
MOST_FOREIGN = 0

_CONTROL_SIZE = 160
_CONTROL_REPEATS = 40


def describe(device: Device = CPU) -> dict[str, Any]:
    """Returns properties that comparable results share; no host name, clock rate or boot time.

    Args:
        device: the device in use; a GPU adds `gpu`, from `bench.measure.gpus.describe`.

    Raises:
        InputError: the GPU cannot be described.
    """
    described = {
        "cpu": cpu_model(),
        "flags": _cpu_flags(),
        "usable_cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }
    return {**described, "gpu": gpus.describe(device)} if device.is_gpu else described


def cores() -> tuple[int, ...]:
    """Returns the cores of this process: the last one measures, the parent uses the first.

    Empty if the system cannot pin a process.
    """
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def available_memory_bytes() -> int:
    """Returns the memory available without swapping, regardless of a container's limit."""
    return int(psutil.virtual_memory().available)


@dataclass(frozen=True)
class Ticks:
    """Seconds on the measuring core since the kernel's start, counted by the kernel in ticks.

    Attributes:
        total: seconds of all kinds.
        idle: seconds without work, including waits for a disk.
        steal: seconds given to others by the hypervisor; None if the system does not report them.
        periods: enforcement periods of a CPU quota.
        throttled: periods in which the quota stopped this container.
    """

    total: float
    idle: float
    steal: float | None
    periods: int = 0
    throttled: int = 0


def ticks(core: int | None) -> Ticks:
    """Returns the ticks of a core, or of all cores for `None`; zeros without a report."""
    quota = throttled_periods()
    try:
        # psutil skips offline cores: core 3 may have index 2.
        times = psutil.cpu_times() if core is None else psutil.cpu_times(percpu=True)[core]
    except (IndexError, OSError):
        return Ticks(0, 0, None, *quota)
    guests = getattr(times, "guest", 0) + getattr(times, "guest_nice", 0)  # `user` includes them
    idle = times.idle + getattr(times, "iowait", 0)
    return Ticks(sum(times) - guests, idle, getattr(times, "steal", None), *quota)


def children_cpu_seconds() -> float:
    """Returns the CPU seconds of this process and its children, including running ones."""
    own = os.times()
    seconds = own.user + own.system + own.children_user + own.children_system
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # the child has ended
            used = child.cpu_times()
            seconds += used.user + used.system + used.children_user + used.children_system
    return float(seconds)


def witness(
    core: int | None, before: Ticks | None, ours_seconds: float, device: Device = CPU
) -> Witness:
    """Returns the machine's activity since `before`.

    Args:
        core: measuring core; `None`: all cores.
        before: earlier ticks of the core; `None` for the first witness.
        ours_seconds: CPU seconds of the workers on the core since then.
        device: the measured device.
    """
    gpu = gpus.witness(device) if device.is_gpu else None  # first: an idle GPU tells less
    load = psutil.getloadavg()[0]
    steal = others = throttled = None
    if before is not None:
        now = ticks(core)
        passed = now.total - before.total
        if passed > 0:
            stolen = (now.steal or 0) - (before.steal or 0)
            steal = None if now.steal is None else stolen / passed
            busy = passed - (now.idle - before.idle) - stolen
            others = max(busy - ours_seconds, 0) / passed
        if now.periods > before.periods:
            throttled = (now.throttled - before.throttled) / (now.periods - before.periods)
    return Witness(_control_seconds(core), load, steal, others, throttled, gpu)


def disturbances(witnesses: Sequence[Witness], quickest_control: float) -> tuple[str, ...]:
    """Returns the disturbances of a block in words; empty for a quiet block.

    Args:
        witnesses: witnesses of the block.
        quickest_control: minimum seconds of the control calculation in the comparison.
    """
    found = []
    steal = max((w.steal for w in witnesses if w.steal is not None), default=0)
    others = max((w.others for w in witnesses if w.others is not None), default=0)
    throttled = max((w.throttled for w in witnesses if w.throttled is not None), default=0)
    # The median: a slow moment affects both sides of its pairs, a slow block may not.
    control = median(w.control_seconds for w in witnesses) / quickest_control if witnesses else 1
    if steal > MOST_STEAL:
        found.append(f"{100 * steal:.0f} % of the core's time was stolen")
    if others > MOST_OTHERS:
        found.append(f"other processes used {100 * others:.0f} % of the core")
    if throttled > MOST_THROTTLED:
        found.append(f"the CPU quota stopped the container in {100 * throttled:.0f} % of periods")
    if control > MOST_CONTROL_RATIO:
        found.append(f"the control calculation took {control:.1f} times its quickest")
    return (*found, *_gpu_disturbances([w.gpu for w in witnesses if w.gpu is not None]))


def _gpu_disturbances(witnesses: Sequence[GpuWitness]) -> list[str]:
    """Returns what disturbed a block on a GPU; nothing for the CPU, which has no such witnesses."""
    told = [w.reasons for w in witnesses if w.reasons is not None]
    counts = Counter(reason for reasons in told for reason in reasons)
    slowed = [
        f"{reason} in {count} of {len(told)} witnesses"
        for reason, count in counts.items()
        if count / len(told) > MOST_SLOWED_WITNESSES
    ]
    found = [f"the GPU was slowed: {', '.join(slowed)}"] if slowed else []
    for limit in dict.fromkeys(name for w in witnesses for name in w.limited):
        shares = _limited_shares([w.limited[limit] for w in witnesses if limit in w.limited])
        if (share := max(shares, default=0)) > MOST_LIMITED:
            found.append(f"its {limit} limit slowed the GPU for {100 * share:.0f} % of the time")
    foreign = max((w.foreign for w in witnesses if w.foreign is not None), default=0)
    if foreign > MOST_FOREIGN:
        found.append(f"{foreign} other process{'' if foreign == 1 else 'es'} used the GPU")
    return found


def _limited_shares(moments: Sequence[tuple[float, float]]) -> list[float]:
    """Returns shares of slowness between witnesses, unless the driver began to count anew."""
    return [
        (slow - slow_before) / (now - before)
        for (before, slow_before), (now, slow) in pairwise(moments)
        if now > before and slow >= slow_before
    ]


def _control_seconds(core: int | None) -> float:
    """Returns the median time of a fixed calculation in NumPy, on the measuring core."""
    matrix = np.random.RandomState(0).rand(_CONTROL_SIZE, _CONTROL_SIZE)
    seconds = []
    with running_on([] if core is None else [core]):
        for _ in range(_CONTROL_REPEATS):
            start = time.perf_counter()
            np.sort(matrix, axis=0)
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def _cpu_flags() -> list[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return sorted(line.split(":", 1)[1].split())
    except OSError:
        pass
    return []
