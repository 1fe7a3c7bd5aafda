"""Workers run where there is no /proc, and say what cannot be measured there."""

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
    """A system without /proc, that pins no process and sets no scheduling."""
    monkeypatch.setattr(main, "_STATUS", tmp_path / "nothing")
    for name in ("sched_getaffinity", "sched_setaffinity", "sched_setscheduler"):
        monkeypatch.delattr(os, name, raising=False)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_on_linux_the_peak_is_that_of_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not that of `getrusage`, which may be of the process that started this one."""
    monkeypatch.setattr(main, "_STATUS", tmp_path / "status")
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t 1024 kB\n")
    assert main._peak_mib() == 2


@pytest.mark.usefixtures("no_proc")
@pytest.mark.parametrize(
    ("platform", "told"), [("darwin", 300 * 2**20), ("freebsd14", 300 * 2**10)]
)
def test_elsewhere_the_peak_is_what_getrusage_tells(
    platform: str, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=told))
    assert main._peak_mib() == 300


@pytest.mark.usefixtures("no_proc")
def test_growth_is_told_to_be_not_measured(tmp_path: Path) -> None:
    """Before TensorFlow works for it."""
    answer = main._answer(main.Side(tmp_path), {"do": "growth", "calls": 3})
    assert answer == {"error": f"{NOT_MEASURED}needs Linux's /proc"}


@pytest.mark.usefixtures("no_proc")
def test_a_worker_moves_and_schedules_itself_nowhere(tmp_path: Path) -> None:
    assert main.Side(tmp_path).move([0]) == {}
    assert main._schedule_apart(pinned=True) == "default"


def test_a_worker_whose_threads_are_not_told_moves_as_it_is(
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


def test_only_linux_is_asked_to_end_a_worker_with_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Elsewhere its closed socket ends it."""

    def refuse(_: object) -> None:
        pytest.fail("prctl is Linux's")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    main._die_with(parent=-1)


@pytest.mark.usefixtures("no_proc")
def test_the_parent_does_without_cores_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides run where the system puts them; trainings are as many as there are cores."""
    assert machine.cores() == ()
    with running_on([0]):
        pass
    this = parse_request(".")
    bench = speed._bench(Terms(this, (this,), {}), tmp_path)
    assert (bench.cores, bench.start_cores, bench.all_cores) == ((), ((), ()), ())
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr("bench.measure.machine.available_memory_bytes", lambda: 2**40)
    assert capacity.default_processes(tmp_path) == 6
