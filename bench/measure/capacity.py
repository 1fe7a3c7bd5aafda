"""Number of parallel trainings, limited by cores, a container's CPU quota and memory."""

from __future__ import annotations

from pathlib import Path

from bench.measure import machine
from lenet5.control_groups import ROOT, memory_limit
from lenet5.devices import CPU, Device
from lenet5.environment import usable_cores
from lenet5.errors import InputError

MOST_PROCESSES = 256
# Peak memory with TensorFlow 2.21.0 and Keras 3.15.1: recipe fast 1,211 to 1,221 MiB with engine
# keras and 1,252 MiB with graph (3 seeds each); best and original 1,195 to 1,252 MiB in 2 epochs
# (1 seed each). Of these, 396 MiB are files shared by processes. The limit includes a reserve for
# other versions.
PER_TRAINING_BYTES = 3 * 2**29


def processes(asked: int | None, device: Device = CPU) -> int:
    """Returns the requested number of processes; by default the device's capacity.

    Args:
        asked: value of `--processes`; None: one on a GPU, and on the CPU `default_processes`.
        device: device of the trainings.

    Raises:
        InputError: the requested number is not 1 to 256.
    """
    if asked is None and device.is_gpu:
        return 1  # several would share the GPU's time and memory
    if asked is None:
        return min(default_processes(), MOST_PROCESSES)
    if not 1 <= asked <= MOST_PROCESSES:
        raise InputError(f"--processes is {asked}, expected 1 to {MOST_PROCESSES}")
    return asked


def default_processes(root: Path = ROOT) -> int:
    """Returns the number of single-threaded trainings without contention; at least 1.

    Args:
        root: parent folder of `proc` and `sys`.
    """
    free = machine.available_memory_bytes()
    limit = memory_limit(root)
    memory = free if limit is None else min(free, limit)
    return max(min(usable_cores(root), memory // PER_TRAINING_BYTES), 1)
