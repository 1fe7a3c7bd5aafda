"""Detection and description of other work on the machine during a measurement."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NamedTuple

import psutil
import pytest

from bench.measure import machine
from bench.measure.machine import Ticks
from bench.records.blocks import GpuWitness, Witness
from lenet5.devices import Device
from tests.measure.fake_nvml import DESCRIBED, H200, NVMLError, install

GPU = Device("gpu:0", "0")


class Linux(NamedTuple):
    """CPU times of a core as psutil reports them on Linux, in seconds."""

    user: float = 0
    nice: float = 0
    system: float = 0
    idle: float = 0
    iowait: float = 0
    irq: float = 0
    softirq: float = 0
    steal: float = 0
    guest: float = 0
    guest_nice: float = 0


class MacOs(NamedTuple):
    """CPU times of a core as psutil reports them on macOS, in seconds."""

    user: float
    nice: float
    system: float
    idle: float


def tell(monkeypatch: pytest.MonkeyPatch, *cores: Any) -> None:
    """Sets the reported CPU times of the cores, and their sums as total."""
    sums = type(cores[0])(*map(sum, zip(*cores, strict=True)))
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu=False: [*cores] if percpu else sums)
    monkeypatch.setattr(machine, "_control_seconds", lambda _: 1e-4)


TWO = (
    Linux(user=1, system=0.5, idle=7, iowait=1, steal=0.1, guest=0.4),
    Linux(user=4, system=0.5, idle=6, steal=0.3, guest=1, guest_nice=0.2),
)


def test_ticks_are_of_one_core_or_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU time of guest systems appears in two fields but counts once."""
    tell(monkeypatch, *TWO)
    one, both = machine.ticks(1), machine.ticks(None)
    assert (one.total, one.idle, one.steal) == pytest.approx((10.8, 6, 0.3))
    assert (both.total, both.idle, both.steal) == pytest.approx((20.4, 14, 0.4))
    assert machine.ticks(7) == Ticks(0, 0, None)


def test_steal_and_others_are_shares_of_the_time_since_the_last_witness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 10 s, 0.2 s are stolen and 4.8 s busy, including 4.3 s of the workers."""
    tell(monkeypatch, *TWO)
    seen = machine.witness(1, Ticks(total=0.8, idle=1, steal=0.1), ours_seconds=4.3)
    assert (seen.steal, seen.others) == pytest.approx((0.02, 0.05))
    assert machine.witness(1, None, 0.0).steal is None


def test_steal_is_unknown_on_a_system_that_does_not_report_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An unknown steal differs from 0."""
    tell(monkeypatch, MacOs(user=4, nice=0, system=1, idle=5))
    seen = machine.witness(None, Ticks(total=0, idle=0, steal=None), ours_seconds=4.5)
    assert seen.steal is None
    assert seen.others == pytest.approx(0.05)


def test_throttling_is_a_share_of_the_periods_since_the_last_witness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tell(monkeypatch, *TWO)
    monkeypatch.setattr(machine, "throttled_periods", lambda: (100, 12))
    before = machine.ticks(1)
    assert machine.witness(1, before, 0.0).throttled is None  # no period passed
    monkeypatch.setattr(machine, "throttled_periods", lambda: (140, 22))
    assert machine.witness(1, before, 0.0).throttled == 0.25


def test_a_witness_works_without_cpu_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_: object) -> None:
        raise FileNotFoundError("/proc/stat")

    monkeypatch.setattr(psutil, "cpu_times", refuse)
    monkeypatch.setattr(machine, "_control_seconds", lambda _: 1e-4)
    before = machine.ticks(None)
    seen = machine.witness(None, before, 1.0)
    assert (before, seen.steal, seen.others) == (Ticks(0, 0, None), None, None)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (Witness(1e-4, 0.5, steal=0.01, others=0.02), ()),
        (Witness(1e-4, 9.0, steal=0.01, others=0.02), ()),  # load may be on other cores
        (Witness(1e-4, 0.5, steal=0.12), ("12 % of the core's time was stolen",)),
        (Witness(1e-4, 0.5, others=0.4), ("other processes used 40 % of the core",)),
        (
            Witness(1e-4, 0.5, throttled=0.25),
            ("the CPU quota stopped the container in 25 % of periods",),
        ),
        (Witness(1e-4, 0.5, throttled=0.01), ()),
        (Witness(9e-4, 0.5), ()),  # one slow moment
    ],
)
def test_a_disturbance_is_described_in_words(seen: Witness, told: tuple[str, ...]) -> None:
    quiet = Witness(1e-4, 0.5)
    assert machine.disturbances([quiet, seen, quiet], 1e-4) == told


def test_a_block_with_mostly_slow_control_calculations_is_disturbed() -> None:
    seen = [Witness(seconds, 0.5) for seconds in (1e-4, 1.8e-4, 9e-4)]
    told = ("the control calculation took 1.8 times its quickest",)
    assert machine.disturbances(seen, 1e-4) == told


def test_cpu_time_of_workers_is_not_attributed_to_other_processes() -> None:
    """CPU time of a running child counts like that of a finished child."""
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
    assert ended > 0.175  # either clock may be a tick of 10 ms short


def test_the_machine_description_has_no_changing_or_identifying_facts() -> None:
    described = machine.describe()
    assert described["usable_cores"] >= 1
    assert described["memory_gib"] >= 1
    assert set(described) == {"cpu", "flags", "usable_cores", "memory_gib", "system"}
    assert machine.describe() == described


def test_a_machine_with_its_gpu_in_use_has_the_gpu_in_its_description(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch)
    assert machine.describe(GPU) == {**machine.describe(), "gpu": DESCRIBED}


def test_a_witness_of_the_cpu_does_not_ask_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, *TWO)
    install(monkeypatch, init=NVMLError("no driver"))
    assert machine.witness(1, None, 0.0).gpu is None
    assert machine.witness(1, None, 0.0, GPU).gpu is None  # no answer ends no measurement
    install(monkeypatch, H200.but(CurrentClocksEventReasons=0x40))
    seen = machine.witness(1, None, 0.0, device=GPU)
    assert seen.gpu == GpuWitness(("HW thermal slowdown",), {}, 41, 1980, 0)


def on_gpu(*seen: GpuWitness | None) -> list[Witness]:
    return [Witness(1e-4, 0.5, gpu=each) for each in seen]


QUIET = GpuWitness((), {"power": (100.0, 7.0)}, 41, 1980, 0)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ((QUIET, QUIET), ()),
        ((None, GpuWitness()), ()),  # the driver tells nothing
        (
            (QUIET, GpuWitness(("HW thermal slowdown",)), GpuWitness(("HW thermal slowdown",))),
            ("the GPU was slowed: HW thermal slowdown in 2 of 3 witnesses",),
        ),
        (
            (GpuWitness(), GpuWitness(("SW power cap", "HW power brake")), QUIET),
            (
                "the GPU was slowed: SW power cap in 1 of 2 witnesses, "
                "HW power brake in 1 of 2 witnesses",
            ),
        ),
        ((QUIET, GpuWitness(foreign=1)), ("1 other process used the GPU",)),
        ((QUIET, GpuWitness(foreign=3), QUIET), ("3 other processes used the GPU",)),
    ],
)
def test_a_disturbance_of_a_gpu_is_described_in_words(
    seen: tuple[GpuWitness | None, ...], told: tuple[str, ...]
) -> None:
    assert machine.disturbances(on_gpu(*seen), 1e-4) == told


def test_time_at_a_limit_between_two_witnesses_is_a_disturbance() -> None:
    """The counts are of the whole time since the driver's start; between witnesses, 4 % are few."""
    moments = [(100.0, 7.0), (110.0, 7.4), (120.0, 9.0), (130.0, 0.0), (140.0, 0.1)]
    seen = [GpuWitness((), {"power": moment}) for moment in moments]
    assert machine.disturbances(on_gpu(*seen[:2]), 1e-4) == ()
    told = ("its power limit slowed the GPU for 16 % of the time",)
    assert machine.disturbances(on_gpu(*seen), 1e-4) == told
