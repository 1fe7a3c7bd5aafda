"""Measures a block: fresh workers for the baseline and its candidates, and many rounds."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from bench.measure import machine
from bench.measure.processes import Interpreter, WorkerError, time_import
from bench.measure.rounds import Measured, measure_rounds, one_sample
from bench.measure.workers import BASE, Bench, SideError, Workers, turned
from bench.records.blocks import (
    BASELINE,
    CANDIDATE,
    NOT_MEASURED,
    Block,
    BlockTask,
    Failure,
    Samples,
    SideSamples,
    Witness,
)
from bench.records.catalogue import (
    DEVICE_MEMORY,
    FIRST_STEP,
    IMPORT,
    MEMORY,
    SLICE,
    Spec,
)

_GROWTH_CALLS = 20
_OF_THREADS = ("scheduling", "threads")  # these depend on a workload's number of threads

_Checks = Mapping[int, tuple[float, ...]]


class BlockRecorder:
    """Measures a block; partial results are available at any time, also after Ctrl-C.

    All candidates share the baseline's slices: a round is a slice of each side, back to back.
    """

    def __init__(
        self,
        bench: Bench,
        sides: Mapping[int, Interpreter],
        task: BlockTask,
        steps: dict[str, int],
    ) -> None:
        """Prepares a block.

        Args:
            bench: folder, cores and limits.
            sides: interpreters of the baseline at `BASE`, and of the candidates at their places.
            task: task with the workloads of each candidate.
            steps: steps of a slice by workload; missing entries are added, fixed by the baseline.
        """
        specs = task.specs
        self._bench = bench
        self._core = bench.cores[0] if len(bench.cores) == 1 else None
        self._sides = sides
        self._steps = steps
        self._numbers = task.numbers
        self._order = [*turned([BASE, *specs], task.turn)]
        self._wanted: dict[str, list[int]] = {}
        for place, own in specs.items():
            for spec in own:
                self._wanted.setdefault(spec.name, [BASE]).append(place)
        every = {spec.name: spec for own in specs.values() for spec in own}.values()
        shared = [spec for spec in every if not spec.own_budget_seconds]
        self._slices = [spec for spec in shared if spec.kind in (SLICE, FIRST_STEP)]
        self._probes = [spec for spec in shared if spec.kind not in (SLICE, FIRST_STEP)]
        self._apart = [spec for spec in every if spec.own_budget_seconds]
        self._own_seconds: dict[str, float] = {}
        shuffle = random.Random(f"{task.seed} {task.turn}").shuffle  # noqa: S311 - not a secret
        shuffle(self._slices)
        shuffle(self._probes)
        self._samples: dict[int, dict[str, Samples]] = {place: {} for place in specs}
        self._failures: dict[int, list[Failure]] = {place: [] for place in specs}
        self._out: set[int] = set()
        self._witnesses: list[Witness] = []
        self._versions: dict[int, Mapping[str, Any]] = {}
        self._started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._start = time.monotonic()

    @property
    def versions(self) -> Mapping[int, Mapping[str, Any]]:
        """Versions reported by each side's worker after its start."""
        return self._versions

    def blocks(self, quickest_control: float | None = None) -> list[Block]:
        """Returns the measurements so far: a block of each candidate, with its share of time."""
        quickest = min(
            [w.control_seconds for w in self._witnesses]
            + ([quickest_control] if quickest_control else []),
            default=1.0,
        )
        base = self._order.index(BASE)
        passed = time.monotonic() - self._start - sum(self._own_seconds.values())
        seconds = passed / len(self._samples)
        return [
            Block(
                candidate=place,
                number=self._numbers[place],
                first=BASELINE if base < self._order.index(place) else CANDIDATE,
                started=self._started,
                seconds=seconds,
                samples=dict(samples),
                failures=tuple(self._failures[place]),
                witnesses=tuple(self._witnesses),
                disturbed=machine.disturbances(self._witnesses, quickest),
                own_seconds={
                    name: spent / (len(self._wanted[name]) - 1)
                    for name, spent in self._own_seconds.items()
                    if place in self._wanted[name]
                },
            )
            for place, samples in self._samples.items()
        ]

    def measure(self) -> None:
        """Measures every workload; a failure removes no samples of other workloads or sides."""
        self._witnesses.append(machine.witness(self._core, None, 0.0, self._bench.device))
        for kind in sorted(set(map(self._kind, self._slices))):
            group = [spec for spec in self._slices if self._kind(spec) == kind]
            group.sort(key=lambda spec: spec.kind != FIRST_STEP)  # it needs a fresh worker
            while group:
                group = self._measure_in_workers(group, *kind)
        for spec in self._probes:
            self._measure_probe(spec)
        for spec in self._apart:
            start = time.monotonic()
            try:
                self._measure_apart(spec)
            finally:
                self._own_seconds[spec.name] = time.monotonic() - start

    def _measure_apart(self, spec: Spec) -> None:
        """Measures a workload in workers of its own, whose limits end no other workload."""
        limits = self._bench.limits
        own = replace(
            limits, prepare_seconds=limits.compile_seconds, slice_seconds=limits.compile_seconds
        )
        bench = replace(self._bench, limits=own)
        if spec.kind == SLICE:
            self._measure_in_workers([spec], *self._kind(spec), bench)
        else:
            self._measure_first_fit(spec, bench)

    def _kind(self, spec: Spec) -> tuple[int, int]:
        """Returns the threads and the logical CPUs of a workload's workers."""
        return spec.threads or self._bench.threads, spec.logical_cpus

    def _measure_in_workers(
        self, group: list[Spec], threads: int, logical_cpus: int, bench: Bench | None = None
    ) -> list[Spec]:
        """Measures workloads in fresh workers; returns the remaining ones after a crash.

        Args:
            group: workloads.
            threads: number of TensorFlow threads.
            logical_cpus: number of logical CPU devices.
            bench: settings for a workload with a budget of its own.
        """
        asked = {place for spec in group for place in self._wanted[spec.name]} - self._out
        if len(asked) < 2 or BASE not in asked:
            return []
        sides = {place: self._sides[place] for place in self._order if place in asked}
        with contextlib.ExitStack() as stack:
            try:
                workers = Workers(
                    *(bench or self._bench, sides, threads, stack),
                    logical_cpus=logical_cpus,
                    huge_pages=True,
                )
            except SideError as error:
                self._note(error, "" if bench is None else group[0].name, asked)
                if bench is None:
                    self._out.add(error.place)
                return group
            for place, said in self._said(workers).items():
                before = self._versions.get(place, {})
                own = {key: said[key] for key in said if key not in _OF_THREADS}
                usual = threads == self._bench.threads
                self._versions[place] = said if usual else {**own, **before}
            for done, spec in enumerate(group, start=1):
                if not self._measure_slices(spec, workers):
                    return group[done:]
        return []

    def _said(self, workers: Workers) -> Mapping[int, Mapping[str, Any]]:
        """Returns the workers' versions; a worker sees one GPU and cannot know its number."""
        name = {"device": self._bench.device.name} if self._bench.device.is_gpu else {}
        return {place: {**said, **name} for place, said in workers.versions.items()}

    def _measure_slices(self, spec: Spec, workers: Workers) -> bool:
        """Measures a workload, without failing candidates; returns whether all workers survive."""
        all_live = True
        places = [place for place in self._places(spec) if place in workers.versions]
        while len(places) > 1:
            try:
                checks = {} if spec.kind == FIRST_STEP else workers.prepare(spec, places)
                with self._witnessing():
                    self._keep(spec, self._measure_rounds(spec, workers, places), checks)
                break
            except SideError as error:
                self._note(error, spec.name, places)
                all_live = all_live and not error.error.gone
                places.remove(error.place)
                if error.place == BASE or spec.kind == FIRST_STEP:  # not repeatable
                    break
        return all_live

    def _measure_rounds(self, spec: Spec, workers: Workers, places: Sequence[int]) -> Measured:
        if spec.kind == FIRST_STEP:
            workers.move_together(places)
            return {place: one_sample(workers.ask(place, "first_step")) for place in places}
        return measure_rounds(spec, workers, places, self._bench, self._steps)

    def _measure_probe(self, spec: Spec) -> None:
        """Measures a workload in separate processes, without failing candidates."""
        places = [place for place in self._places(spec) if place not in self._out]
        while len(places) > 1 and BASE in places:
            with self._witnessing():
                try:
                    self._keep(spec, self._probe(spec, places), {})
                    break
                except SideError as error:
                    self._note(error, spec.name, places)
                    places.remove(error.place)

    def _measure_first_fit(self, spec: Spec, bench: Bench) -> None:
        """Measures the first `fit` of each side, alone on the device.

        A candidate that is not back in time has failed only if its time exceeds the margin: the
        baseline took less than the limit divided by the margin. Otherwise nothing was measured.
        """
        places = [place for place in self._places(spec) if place not in self._out]
        if len(places) < 2 or BASE not in places:
            return
        found: Measured = {}
        errors: dict[int, SideError] = {}
        with self._witnessing():
            for place in places:
                try:
                    found[place] = self._first_fit(spec, place, bench)
                except SideError as error:
                    errors[place] = error
                    if place == BASE:
                        break
        self._keep(spec, found if BASE in found else {}, {})
        base = found[BASE].values[0] if BASE in found else math.inf
        shows_a_loss = base * (spec.margin or 1.0) < bench.limits.prepare_seconds
        for place, failed in errors.items():
            if place == BASE or BASE in found:
                noted = failed if shows_a_loss else _doubted(failed, base)
                self._note(noted, spec.name, places)

    def _first_fit(self, spec: Spec, place: int, bench: Bench) -> SideSamples:
        with contextlib.ExitStack() as stack:
            workers = Workers(bench, {place: self._sides[place]}, bench.threads, stack)
            return one_sample(workers.ask_each("first_fit", **(spec.arguments or {}))[place])

    def _probe(self, spec: Spec, places: Sequence[int]) -> Measured:
        """Measures imports and a GPU's memory one after the other, memory of all sides at once."""
        if spec.kind == IMPORT:
            return {place: one_sample({"value": self._import_seconds(place)}) for place in places}
        sides = {place: self._sides[place] for place in places}
        with contextlib.ExitStack() as stack:
            workers = Workers(self._bench, sides, self._bench.threads, stack)
            if spec.kind == DEVICE_MEMORY:  # its work chooses algorithms by their time
                answers = workers.ask_each(spec.kind)
            else:
                arguments = {} if spec.kind == MEMORY else {"calls": _GROWTH_CALLS}
                answers = workers.ask_all(spec.kind, **arguments)
        return {place: one_sample(answer) for place, answer in answers.items()}

    def _import_seconds(self, place: int) -> float:
        bench = self._bench
        try:
            return time_import(
                self._sides[place], bench.folder, bench.cores, bench.limits.start_seconds
            )
        except WorkerError as error:
            raise SideError(place, error) from None

    def _places(self, spec: Spec) -> list[int]:
        """Returns the sides with this workload, in the block's order."""
        return [place for place in self._order if place in self._wanted[spec.name]]

    def _keep(self, spec: Spec, measured: Measured, checks: _Checks) -> None:
        for place in measured:
            if place != BASE:
                both = measured[BASE], measured[place]
                own = checks.get(BASE, ()), checks.get(place, ())
                self._samples[place][spec.name] = Samples(*both, *own)

    @contextlib.contextmanager
    def _witnessing(self) -> Iterator[None]:
        """Adds a witness for the enclosed work; the workers' CPU time is not a disturbance."""
        before, ours_before = machine.ticks(self._core), machine.children_cpu_seconds()
        yield
        ours = machine.children_cpu_seconds() - ours_before
        self._witnesses.append(machine.witness(self._core, before, ours, self._bench.device))

    def _note(self, error: SideError, workload: str, places: Iterable[int]) -> None:
        """Records a failure; the baseline's counts for every candidate compared with it."""
        is_base = error.place == BASE
        side = BASELINE if is_base else CANDIDATE
        failure = Failure(side, workload, error.error.reason, error.error.output)
        for place in places if is_base else [error.place]:
            if place != BASE:
                self._failures[place].append(failure)


@dataclass(frozen=True)
class MeasuredBlock:
    """The record of one candidate in a block.

    Attributes:
        block: block with samples and failures.
        said: versions by place, reported by the workers.
        steps: steps of a slice by workload.
    """

    block: Block
    said: Mapping[int, Mapping[str, Any]]
    steps: Mapping[str, int]


def measure_blocks(
    tasks: Sequence[BlockTask], bench: Bench, sides: Mapping[int, Interpreter]
) -> Generator[MeasuredBlock, None, None]:
    """Measures blocks.

    Args:
        tasks: tasks in the order of their start.
        bench: folder, cores and limits.
        sides: interpreter and settings of each place.

    Yields:
        The record of each candidate; after Ctrl-C, the record of the unfinished block.
    """
    for task in tasks:
        steps = dict(task.steps)
        recorder = BlockRecorder(bench, sides, task, steps)
        try:
            recorder.measure()
        finally:
            for block in recorder.blocks(task.quickest_control):
                if block.samples or block.failures:
                    yield MeasuredBlock(block, recorder.versions, steps)


def _doubted(error: SideError, base_seconds: float) -> SideError:
    """Returns a candidate's timeout as `not measured`, since it shows no loss beyond the margin."""
    told = error.error
    if error.place == BASE or not told.reason.startswith("timed out"):
        return error
    reason = f"{NOT_MEASURED}{told.reason}, the baseline took {base_seconds:.3g} s"
    return SideError(error.place, WorkerError(reason, told.output, gone=told.gone))
