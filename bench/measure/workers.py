"""The workers of a block: one per side, with slices in turns on one core."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.measure import machine
from bench.measure.processes import Interpreter, Worker, WorkerError, time_running
from bench.records.catalogue import PAIR_SECONDS, Spec
from lenet5.devices import CPU, Device

BASE = -1  # the baseline's place among the sides; candidates have places from 0
_TURN_SECONDS = 0.03
# Linux stops round-robin processes for 50 ms after a use of 95 % of a second.
_PAUSE_SHARE = 0.08


@dataclass(frozen=True)
class Limits:
    """Timeouts for a worker's commands."""

    start_seconds: float = 300.0
    prepare_seconds: float = 300.0
    slice_seconds: float = 120.0
    compile_seconds: float = 120.0  # instead of both, for a workload with a budget of its own


@dataclass(frozen=True)
class Bench:
    """Settings for the measurement of blocks.

    Attributes:
        folder: private folder with the workers' files.
        cores: cores of all sides: the measuring one, or all cores without pinning.
        start_cores: cores for imports and builds of two sides at a time.
        all_cores: cores for workloads with another number of threads, without pinning.
        threads: number of TensorFlow threads, unless the workload has another.
        pair_seconds: duration of a workload's slices in a block, for two sides.
        limits: timeouts.
        call_steps: steps of each call of a slice, by workload and side; empty: one call with equal
            steps. Calibration uses it to slow a candidate down.
        device: device of all sides.
    """

    folder: Path
    cores: tuple[int, ...]
    start_cores: tuple[tuple[int, ...], tuple[int, ...]]
    all_cores: tuple[int, ...]
    threads: int = 1
    pair_seconds: float = PAIR_SECONDS
    limits: Limits = field(default_factory=Limits)
    call_steps: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    device: Device = CPU


class SideError(Exception):
    """A worker's error, with the place of its side."""

    def __init__(self, place: int, error: WorkerError) -> None:
        super().__init__(error.reason)
        self.place = place
        self.error = error


class Workers:
    """One worker per side, started on separate cores and measured on one core.

    On a GPU the sides share the device: each worker takes as much of its memory as it needs, and
    waits until the device has finished before it answers. They are not pinned.
    """

    def __init__(
        self,
        bench: Bench,
        sides: Mapping[int, Interpreter],
        threads: int,
        stack: contextlib.ExitStack,
        *,
        logical_cpus: int = 1,
        huge_pages: bool = False,  # off for measurements of memory
    ) -> None:
        """Starts the workers, one per set of start cores at a time.

        Raises:
            SideError: a worker did not start.
        """
        self._limits = bench.limits
        usual = threads == bench.threads
        # A GPU's libraries choose their algorithms by time, without another side beside them.
        self._prepared_at_once = 1 if bench.device.is_gpu else 2
        self._together = bench.cores if usual else bench.all_cores
        self._apart = bench.start_cores if usual else (bench.all_cores, bench.all_cores)
        self._workers: dict[int, Worker] = {}
        for place, interpreter in sides.items():
            try:
                worker = Worker(interpreter, bench.folder, huge_pages=huge_pages)
            except WorkerError as error:
                raise SideError(place, error) from None
            self._workers[place] = stack.enter_context(worker)
        try:
            answers = self._ask_apart(
                *("start", list(sides), bench.limits.start_seconds),
                threads=threads,
                logical_cpus=logical_cpus,
                device=sides[next(iter(sides))].start_device,  # of all sides
            )
        except SideError as error:
            told = _explained(error, sides[error.place], bench, threads)
            raise SideError(error.place, told) from None
        self.versions = {place: answer["versions"] for place, answer in answers.items()}
        for place, said in self.versions.items():
            try:
                sides[place].check_started(said)
            except WorkerError as error:
                raise SideError(place, error) from None
        self._has_quota = any(
            said.get("scheduling") != "default" for said in self.versions.values()
        )

    def prepare(self, spec: Spec, places: Sequence[int]) -> dict[int, tuple[float, ...]]:
        """Builds a workload on each side, and returns the check figures."""
        answers = self._ask_apart(
            "prepare",
            places,
            self._limits.prepare_seconds,
            at_once=self._prepared_at_once,
            workload=spec.name,
            builder=spec.builder,
            arguments=dict(spec.arguments or {}),
        )
        self.move_together(places)
        return {place: tuple(answer["check"]) for place, answer in answers.items()}

    def move_together(self, places: Sequence[int]) -> None:
        """Moves sides to the measuring core."""
        for place in places:
            self.ask(place, "move", cores=list(self._together))

    def slice(self, place: int, workload: str, steps: int) -> dict[str, Any]:
        """Runs a slice on a side, then leaves the core idle for a moment if necessary."""
        answer = self.ask(place, "slice", workload=workload, steps=steps)
        self._leave_core_alone(answer["value"])
        return answer

    def slices(self, workload: str, steps: Mapping[int, int]) -> dict[int, dict[str, Any]]:
        """Runs a slice on each side, one after the other in the order of `steps`."""
        return {place: self.slice(place, workload, count) for place, count in steps.items()}

    def slices_in_turns(self, workload: str, steps: Mapping[int, int]) -> dict[int, dict[str, Any]]:
        """Runs a slice on each side, in turns: each is stopped while another runs.

        A disturbance of half a second then affects all sides, as with short slices. The time of a
        side's stops is subtracted from its slice.

        Raises:
            SideError: a side failed.
        """
        workers = {place: self._workers[place] for place in steps}
        for place, worker in workers.items():
            worker.stop()
            worker.send("slice", workload=workload, steps=steps[place])
        ran = dict.fromkeys(steps, 0.0)
        stopped_at: dict[int, float] = {}
        pauses: dict[int, list[tuple[float, float]]] = {place: [] for place in steps}
        answers: dict[int, dict[str, Any]] = {}
        errors: dict[int, WorkerError] = {}
        while len(answers) + len(errors) < len(workers):
            for place, worker in workers.items():
                if place in answers or place in errors:
                    continue
                left = self._limits.slice_seconds - ran[place]
                is_last = len(answers) + len(errors) == len(workers) - 1
                start = time.perf_counter()
                pauses[place].append((stopped_at.get(place, start), start))
                worker.go_on()
                has_answer = worker.has_answer(left if is_last else min(_TURN_SECONDS, left))
                if not has_answer:
                    worker.stop()
                stopped_at[place] = time.perf_counter()
                ran[place] += stopped_at[place] - start
                try:
                    if has_answer:
                        answers[place] = worker.receive(self._limits.slice_seconds)
                    elif ran[place] >= self._limits.slice_seconds:
                        raise worker.hung(self._limits.slice_seconds, is_ours=True)
                except WorkerError as error:
                    errors[place] = error
                self._leave_core_alone(stopped_at[place] - start)
        for place, answer in answers.items():
            # From the worker's own start and end: its answer may arrive a turn after the slice.
            answer["value"] = time_running(answer["start"], answer["end"], pauses[place])
            if not answer["value"] > 0:
                told = "sent an invalid answer: a slice within its own pauses"
                errors[place] = WorkerError(told, workers[place].output(), gone=False)
        _raise_first(errors)
        return answers

    def ask(self, place: int, do: str, **arguments: Any) -> dict[str, Any]:
        """Sends a command to one side, and returns the answer.

        Raises:
            SideError: the side failed.
        """
        try:
            return self._workers[place].ask(self._limits.slice_seconds, do, **arguments)
        except WorkerError as error:
            raise SideError(place, error) from None

    def ask_all(self, do: str, **arguments: Any) -> dict[int, dict[str, Any]]:
        """Sends an untimed command to all sides at once, and returns the answers.

        Raises:
            SideError: a side failed.
        """
        return self._ask_at_once(do, list(self._workers), self._limits.prepare_seconds, arguments)

    def ask_each(self, do: str, **arguments: Any) -> dict[int, dict[str, Any]]:
        """Sends an untimed command to one side after the other, and returns the answers.

        Raises:
            SideError: a side failed.
        """
        answers: dict[int, dict[str, Any]] = {}
        for place in self._workers:
            answers |= self._ask_at_once(do, [place], self._limits.prepare_seconds, arguments)
        return answers

    def _ask_apart(
        self, do: str, places: Sequence[int], seconds: float, *, at_once: int = 2, **arguments: Any
    ) -> dict[int, dict[str, Any]]:
        """Sends a command to `at_once` sides at a time, each on separate cores."""
        answers: dict[int, dict[str, Any]] = {}
        for first in range(0, len(places), at_once):
            both = dict(zip(places[first : first + at_once], self._apart, strict=False))
            if do == "start":
                own = {place: {"cores": list(cores)} for place, cores in both.items()}
            else:
                own = {place: {} for place in both}
                for place, cores in both.items():
                    self.ask(place, "move", cores=list(cores))
            answers |= self._ask_at_once(do, list(both), seconds, arguments, own)
        return answers

    def _ask_at_once(
        self,
        do: str,
        places: Sequence[int],
        seconds: float,
        arguments: Mapping[str, Any],
        own: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> dict[int, dict[str, Any]]:
        for place in places:
            self._workers[place].send(do, **arguments, **(own or {}).get(place, {}))
        answers: dict[int, dict[str, Any]] = {}
        errors: dict[int, WorkerError] = {}
        for place in places:
            try:
                answers[place] = self._workers[place].receive(seconds)
            except WorkerError as error:
                errors[place] = error
        _raise_first(errors)
        return answers

    def _leave_core_alone(self, used_seconds: float) -> None:
        if self._has_quota:
            time.sleep(_PAUSE_SHARE * used_seconds)


def bench_here(
    folder: Path,
    *,
    threads: int,
    pair_seconds: float = PAIR_SECONDS,
    limits: Limits | None = None,
    call_steps: Mapping[str, Mapping[str, tuple[int, ...]]] | None = None,
    device: Device = CPU,
) -> Bench:
    """Returns the settings for a measurement on this machine.

    One thread on the CPU is pinned to a core. On a GPU no process is: CUDA's driver and XLA have
    threads of their own.
    """
    cores = machine.cores()
    pinned = threads == 1 and not device.is_gpu
    return Bench(
        folder=folder,
        cores=cores[-1:] if pinned else cores,
        start_cores=(cores[-1:], cores[:1]) if pinned else (cores, cores),
        all_cores=cores,
        threads=threads,
        pair_seconds=pair_seconds,
        limits=limits or Limits(),
        call_steps=call_steps or {},
        device=device,
    )


def _raise_first(errors: Mapping[int, WorkerError]) -> None:
    """Raises the baseline's error first: the candidates' state is unknown then."""
    for place in sorted(errors):
        first = errors[place]
        gone = any(error.gone for error in errors.values())
        raise SideError(place, WorkerError(first.reason, first.output, gone=gone))


def _explained(
    error: SideError, interpreter: Interpreter, bench: Bench, threads: int
) -> WorkerError:
    """Restarts a worker killed by a signal, with TensorFlow's log, which gives the reason."""
    if not error.error.reason.startswith("killed by"):
        return error.error
    talkative = replace(interpreter, log_level=0)
    try:
        with Worker(talkative, bench.folder) as worker:
            worker.ask(
                *(bench.limits.start_seconds, "start"),
                cores=[],
                threads=threads,
                device=talkative.start_device,
            )
    except WorkerError as again:
        return WorkerError(error.error.reason, again.output)
    return error.error


def turned(order: Sequence[int], number: int) -> Iterator[int]:
    """Returns the order of a round: forwards or backwards, rotated with three or more sides.

    Two sides have the order AB BA AB BA, so a slow drift affects both equally.
    """
    shift = number // 2 % len(order) if len(order) > 2 else 0
    shifted = [*order[shift:], *order[:shift]]
    return iter(shifted if number % 2 == 0 else shifted[::-1])
