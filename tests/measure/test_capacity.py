"""Cores, container quota and memory limit the number of parallel trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.measure import capacity
from bench.measure.capacity import default_processes, processes
from lenet5.devices import Device
from lenet5.errors import InputError
from tests.test_control_groups import tree

GIB = 2**30


@pytest.mark.parametrize(
    ("cores", "memory_gib", "expected"),
    [
        (8, 64, 8),
        (2, 64, 2),
        (8, 3.9, 3),
        (8, 0.5, 1),  # at least one process
    ],
)
def test_the_scarcest_resource_limits_the_processes(
    cores: int,
    memory_gib: float,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capacity, "usable_cores", lambda _: cores)
    monkeypatch.setattr(capacity, "PER_TRAINING_BYTES", GIB)
    free = "bench.measure.machine.available_memory_bytes"
    monkeypatch.setattr(free, lambda: int(memory_gib * GIB))
    assert default_processes(tmp_path) == expected


def test_the_default_number_of_processes_fits_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free memory applies if it is below the control group's limit."""
    monkeypatch.setattr(capacity, "usable_cores", lambda _: 64)
    monkeypatch.setattr(capacity, "PER_TRAINING_BYTES", GIB)
    free = "bench.measure.machine.available_memory_bytes"
    root = tree(tmp_path, "0::/x\n", {"x/memory.max": f"{5 * GIB}\n"})
    monkeypatch.setattr(free, lambda: 9 * GIB)
    assert default_processes(root) == 5
    monkeypatch.setattr(free, lambda: 3 * GIB)
    assert default_processes(root) == 3
    assert default_processes(tmp_path / "nothing") == 3


@pytest.mark.parametrize("asked", [0, -1, 257])
def test_invalid_numbers_of_processes_are_rejected_in_one_line(asked: int) -> None:
    told = f"^--processes is {asked}, expected 1 to 256$"
    with pytest.raises(InputError, match=told):
        processes(asked)


def test_an_explicit_number_of_processes_is_not_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "default_processes", lambda: 3)
    assert [processes(asked) for asked in (1, 256, None)] == [1, 256, 3]


def test_one_training_at_a_time_runs_on_a_gpu_unless_more_are_requested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capacity, "default_processes", lambda: 3)
    assert [processes(asked, Device("gpu:0", "0")) for asked in (None, 2)] == [1, 2]
