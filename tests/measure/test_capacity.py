"""Cores, container quota and memory limit the number of parallel trainings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.measure import capacity
from bench.measure.capacity import (
    default_processes,
    memory_limit,
    processes,
    processes_at_once,
    quota_cores,
)
from lenet5.errors import InputError

GIB = 2**30
UNLIMITED = "9223372036854771712\n"  # value in version 1 with pages of 4 KiB


def tree(root: Path, groups: str, files: Mapping[str, str]) -> Path:
    """Creates a root folder with `/proc/self/cgroup` and files below `/sys/fs/cgroup`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cores", "quota", "memory_gib", "expected"),
    [
        (8, None, 64, 8),
        (8, 2.0, 64, 2),
        (8, 2.9, 64, 2),  # a third process would wait for the others
        (8, 0.5, 64, 1),
        (2, 16.0, 64, 2),
        (8, None, 3.9, 3),
        (8, None, 0.5, 1),  # at least one process
        (8, 4.0, 2, 2),
    ],
)
def test_the_scarcest_resource_limits_the_processes(
    cores: int, quota: float | None, memory_gib: float, expected: int
) -> None:
    assert processes_at_once(cores, quota, int(memory_gib * GIB), GIB) == expected


V1 = "9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n2:cpuset:/\n"


@pytest.mark.parametrize(
    ("groups", "files", "quota", "limit"),
    [
        pytest.param(
            "0::/\n",
            {"cpu.max": "150000 100000\n", "memory.max": "2147483648\n"},
            *(1.5, 2 * GIB),
            id="version 2",
        ),
        pytest.param("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, None, None),
        pytest.param(
            "0::/a/b/c\n",
            {
                "a/cpu.max": "50000 25000\n",
                "a/b/cpu.max": "max 100000\n",
                "a/b/c/cpu.max": "400000 100000\n",
                "a/b/c/memory.max": "max\n",
                "a/b/memory.max": f"{4 * GIB}\n",
                "a/memory.max": f"{8 * GIB}\n",
                "other/memory.max": "1\n",
            },
            *(2.0, 4 * GIB),
            id="the tightest of nested groups",
        ),
        pytest.param(
            V1,
            {
                "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "memory/docker/abc/memory.limit_in_bytes": f"{3 * GIB}\n",
                "memory/memory.limit_in_bytes": UNLIMITED,
            },
            *(2.5, 3 * GIB),
            id="version 1",
        ),
        pytest.param(
            V1,
            {
                "cpu/cpu.cfs_quota_us": "100000\n",
                "cpu/cpu.cfs_period_us": "50000\n",
                "memory/memory.limit_in_bytes": f"{GIB}\n",
            },
            *(2.0, GIB),
            id="a container that is told its path on the host",
        ),
        pytest.param(
            "1:name=systemd:/x\n4:memory:/x\n0::/x\n",
            {"memory/x/memory.limit_in_bytes": f"{GIB}\n", "unified/x/cpu.max": "100000 100000\n"},
            *(1.0, GIB),
            id="both versions",
        ),
        pytest.param(
            "0::/../../other\n", {"memory.max": f"{GIB}\n"}, None, GIB, id="outside of what it sees"
        ),
        pytest.param(
            "rubbish\n\n::\n0::/x\n",
            {"x/cpu.max": "lots\n", "x/memory.max": "\0", "cpu.max": "5 0\n", "memory.max": "-7"},
            *(None, None),
            id="garbage",
        ),
        pytest.param("0::/x\n", {}, None, None, id="no files"),
    ],
)
def test_limits_are_read_from_control_groups(
    groups: str, files: Mapping[str, str], quota: float | None, limit: int | None, tmp_path: Path
) -> None:
    root = tree(tmp_path, groups, files)
    assert quota_cores(root) == quota
    assert memory_limit(root) == limit


def test_a_system_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert quota_cores(tmp_path) is None
    assert memory_limit(tmp_path) is None


def test_the_default_number_of_processes_fits_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free memory applies if it is below the control group's limit."""
    monkeypatch.setattr(capacity, "usable_cores", lambda: 64)
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
