"""What the machine does beside a measurement is seen, and told in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.measure import machine
from bench.measure.machine import Ticks
from bench.records.blocks import Witness

STAT = """\
cpu  500 0 100 1400 0 0 0 40 0 0
cpu0 100 0 50 800 0 0 0 10 0 0
cpu1 400 0 50 600 0 0 0 30 0 0
intr 12345
"""


@pytest.fixture
def stat(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self: STAT if str(self) == "/proc/stat" else read(self)
    )
    monkeypatch.setattr(machine, "_control_seconds", lambda _: 1e-4)
    monkeypatch.setattr(os, "sysconf", lambda _: 100)


@pytest.mark.usefixtures("stat")
def test_ticks_are_of_one_core_or_of_all() -> None:
    assert machine.ticks(1) == Ticks(total=1080, idle=600, steal=30)
    assert machine.ticks(None) == Ticks(total=2040, idle=1400, steal=40)
    assert machine.ticks(7) == Ticks(0, 0, 0)


@pytest.mark.usefixtures("stat")
def test_steal_and_others_are_shares_of_the_time_since_the_last_witness() -> None:
    """Of 1,000 ticks 20 were stolen and 480 busy, 4.3 s of them by the workers."""
    seen = machine.witness(1, Ticks(total=80, idle=100, steal=10), ours_seconds=4.3)
    assert (seen.steal, seen.others) == pytest.approx((0.02, 0.05))
    assert machine.witness(1, None, 0.0).steal is None


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (Witness(1e-4, 0.5, steal=0.01, others=0.02), ()),
        (Witness(1e-4, 9.0, steal=0.01, others=0.02), ()),  # load may be on other cores
        (Witness(1e-4, 0.5, steal=0.12), ("12 % of the core's time was stolen",)),
        (Witness(1e-4, 0.5, others=0.4), ("other processes used 40 % of the core",)),
        (Witness(9e-4, 0.5), ()),  # one slow moment
    ],
)
def test_a_disturbance_is_told_in_words(seen: Witness, told: tuple[str, ...]) -> None:
    quiet = Witness(1e-4, 0.5)
    assert machine.disturbances([quiet, seen, quiet], 1e-4) == told


def test_a_block_whose_control_is_mostly_slow_is_disturbed() -> None:
    seen = [Witness(seconds, 0.5) for seconds in (1e-4, 1.8e-4, 9e-4)]
    told = ("the control calculation took 1.8 times its quickest",)
    assert machine.disturbances(seen, 1e-4) == told


def test_the_workers_own_cpu_is_not_anothers() -> None:
    """That of a running child counts as of one that has ended."""
    before = machine.children_cpu_seconds()
    busy = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        running = machine.children_cpu_seconds() - before
        child.communicate(b"\n")
    ended = machine.children_cpu_seconds() - before
    assert running == pytest.approx(ended, abs=0.1)
    assert ended > 0.175  # what either clock shows may be a tick of 10 ms short


def test_the_machine_is_described_without_what_changes_or_names_it() -> None:
    described = machine.describe()
    assert described["usable_cores"] >= 1
    assert described["memory_gib"] >= 1
    assert set(described) == {"cpu", "flags", "usable_cores", "memory_gib", "system"}
    assert machine.describe() == described
