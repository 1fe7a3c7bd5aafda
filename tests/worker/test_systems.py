"""Workers run on systems without /proc, and report unsupported measurements."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import speed
from bench.environments.request import parse_request
from bench.measure import capacity, machine
from bench.measure.processes import running_on
from bench.plans.speed import Terms
from bench.records.blocks import NOT_MEASURED
from bench.worker import main


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Simulates a system without /proc, process pinning and scheduling policies."""
    monkeypatch.setattr(main, "_STATUS", tmp_path / "nothing")
    for name in ("sched_getaffinity", "sched_setaffinity", "sched_setscheduler"):
        monkeypatch.delattr(os, name, raising=False)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_on_linux_peak_memory_comes_from_proc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The peak of `getrusage` may belong to the parent process."""
    monkeypatch.setattr(main, "_STATUS", tmp_path / "status")
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t 1024 kB\n")
    assert main._peak_mib() == 2


@pytest.mark.usefixtures("no_proc")
@pytest.mark.parametrize(
    ("platform", "told"), [("darwin", 300 * 2**20), ("freebsd14", 300 * 2**10)]
)
def test_on_other_systems_peak_memory_comes_from_getrusage(
    platform: str, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=told))
    assert main._peak_mib() == 300


@pytest.mark.usefixtures("no_proc")
def test_growth_is_reported_as_not_measured(tmp_path: Path) -> None:
    """The report precedes any TensorFlow work."""
    answer = main._answer(main.Side(tmp_path), {"do": "growth", "calls": 3})
    assert answer == {"error": f"{NOT_MEASURED}needs Linux's /proc"}


@pytest.mark.usefixtures("no_proc")
def test_a_worker_skips_unsupported_pinning_and_scheduling(tmp_path: Path) -> None:
    assert main.Side(tmp_path).move([0]) == {}
    assert main._schedule_apart(pinned=True) == "default"


def test_a_worker_without_a_thread_list_is_pinned_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> list[str]:
        raise FileNotFoundError

    moved: list[tuple[int, Sequence[int]]] = []
    monkeypatch.setattr(os, "listdir", missing)
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda *arguments: moved.append(arguments), raising=False
    )
    assert main.Side(tmp_path).move([1]) == {}
    assert moved == [(0, [1])]


def test_the_parent_death_signal_is_set_only_on_linux(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On other systems, the closed socket ends the worker."""

    def refuse(_: object) -> None:
        pytest.fail("prctl is Linux's")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    main._die_with(parent=-1)


@pytest.mark.usefixtures("no_proc")
def test_the_parent_works_without_pinning_to_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system places both sides; the number of trainings equals the number of cores."""
    assert machine.cores() == ()
    with running_on([0]):
        pass
    this = parse_request(".")
    bench = speed.bench_of(Terms(this, (this,), {}), tmp_path)
    assert (bench.cores, bench.start_cores, bench.all_cores) == ((), ((), ()), ())
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr("bench.measure.machine.available_memory_bytes", lambda: 2**40)
    assert capacity.default_processes(tmp_path) == 6
