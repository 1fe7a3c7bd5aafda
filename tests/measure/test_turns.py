"""Long slices in turns: a side is stopped while the other runs, and its stops are not timed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.measure.blocks import measure_blocks
from bench.measure.processes import Interpreter, Worker, WorkerError, time_running
from bench.measure.workers import BASE, Bench, Limits, Workers
from bench.records import catalogue
from bench.records.blocks import BlockTask, Samples, Witness
from tests.measure.stub_worker import stub_python

FIT = "fit[b32]"


def measured(folder: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> Samples:
    """Returns a block's samples of `fit[b32]`, with the fault on both sides."""
    monkeypatch.setattr("bench.measure.machine.witness", lambda *_: Witness(1e-4, load=0.0))
    (folder / "home").mkdir()
    limits = Limits(start_seconds=5, prepare_seconds=5, slice_seconds=5)
    side = Interpreter(stub_python(folder), {"TF_STUB_FAULT": f"slice {FIT} {fault}"})
    task = BlockTask({0: [catalogue.WORKLOADS[FIT]]}, {0: 0}, steps={FIT: 150})
    bench = Bench(folder, (), ((), ()), (), pair_seconds=0, limits=limits)
    (measured,) = measure_blocks([task], bench, {BASE: side, 0: side})
    return measured.block.samples[FIT]


@pytest.mark.parametrize(
    ("pauses", "seconds"),
    [
        ([], 10),
        ([(101, 102), (105, 108)], 6),
        ([(90, 99), (111, 120)], 10),  # before the start, after the end
        ([(95, 101), (109, 130)], 8),
        ([(95, 120)], 0),
        ([(90, 100), (100, 100), (110, 110), (110, 111)], 10),
    ],
)
def test_only_pauses_within_a_slice_are_subtracted(
    pauses: Sequence[tuple[float, float]], seconds: float
) -> None:
    assert time_running(100, 110, pauses) == seconds


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="macOS does not tell when it has stopped")
def test_a_stopped_worker_stays_stopped_until_continued(tmp_path: Path) -> None:
    """Stops can be repeated, even after the process has ended."""
    (tmp_path / "home").mkdir()
    side = Interpreter(stub_python(tmp_path), {"TF_STUB_FAULT": f"slice {FIT} crash"})
    with Worker(side, tmp_path) as worker:
        process = psutil.Process(worker.pid)
        for _ in range(5):
            worker.stop()
            assert process.status() == psutil.STATUS_STOPPED
            worker.go_on()
        worker.send("slice", workload=FIT, steps=1)
        with pytest.raises(WorkerError, match="killed by SIGSEGV"):
            worker.receive(5)
        worker.stop()
        worker.go_on()


def test_the_sides_take_turns_within_a_long_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each side is stopped while the other runs, and the time of its stops is subtracted."""
    stopped: list[int] = []
    stop = Worker.stop

    def noted(self: Worker) -> None:
        stopped.append(self.pid)
        stop(self)

    monkeypatch.setattr(Worker, "stop", noted)
    seconds: list[float] = []
    slices_in_turns = Workers.slices_in_turns

    def timed(self: Workers, *arguments: Any) -> Any:
        start = time.perf_counter()
        answers = slices_in_turns(self, *arguments)
        seconds.append(time.perf_counter() - start)
        return answers

    monkeypatch.setattr(Workers, "slices_in_turns", timed)
    samples = measured(tmp_path, "busy", monkeypatch)
    # Six turns of 30 ms each: every turn but the last ends with a stop.
    assert len(stopped) > 4 * 2 * 3
    assert stopped.count(stopped[0]) == pytest.approx(len(stopped) / 2, rel=0.3)
    # The sum of both sides is the elapsed time; with its stops, each side would have nearly all.
    assert sum(samples.baseline.values + samples.candidate.values) < 1.3 * sum(seconds)


def test_stops_after_a_slice_are_not_subtracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late answer arrives turns after the end of the slice, with stops in between."""
    samples = measured(tmp_path, "late", monkeypatch)
    for side in (samples.baseline, samples.candidate):
        for seconds, cpu_seconds in zip(side.values, side.cpu_seconds, strict=True):
            assert seconds > 0.95 * cpu_seconds
