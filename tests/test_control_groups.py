"""Limits of control groups, from files of both versions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from lenet5.control_groups import memory_limit, quota_cores, throttled_periods
from lenet5.environment import usable_cores

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


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        pytest.param(
            "0::/a/b\n",
            {
                "a/b/cpu.stat": "usage_usec 7\nnr_periods 40\nnr_throttled 3\nthrottled_usec 9\n",
                "a/cpu.stat": "usage_usec 9\nnr_periods 60\nnr_throttled 2\n",
                "cpu.stat": "usage_usec 9\n",
            },
            id="version 2",
        ),
        pytest.param(
            V1,
            {"cpu,cpuacct/docker/abc/cpu.stat": "nr_periods 100\nnr_throttled 5\n"},
            id="version 1",
        ),
    ],
)
def test_throttled_periods_are_counted(
    groups: str, files: Mapping[str, str], tmp_path: Path
) -> None:
    assert throttled_periods(tree(tmp_path, groups, files)) == (100, 5)


@pytest.mark.parametrize("content", ["", "nr_periods\n", "nr_periods x\nnr_throttled -1\n", "\0"])
def test_damaged_counts_of_throttled_periods_are_0(content: str, tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/\n", {"cpu.stat": content})
    assert throttled_periods(root) == throttled_periods(tmp_path / "nothing") == (0, 0)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max", 8), ("1600000", 8), ("200000", 2), ("290000", 2), ("50000", 1)],
)
def test_usable_cores_are_within_the_quota(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process more than whole cores of the quota would wait for the others."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cores(tree(tmp_path, "0::/\n", {"cpu.max": f"{quota} 100000\n"})) == cores
    assert usable_cores(tmp_path / "nothing") == 8
