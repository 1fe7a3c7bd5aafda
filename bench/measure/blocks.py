"""One block: fresh workers for both sides, many pairs, and what went wrong on the way."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.measure import machine
from bench.measure.processes import (
    Interpreter,
    Worker,
    WorkerError,
    time_import,
    time_running,
)
from bench.records.blocks import (
    BASELINE,
    CANDIDATE,
    SIDES,
    Block,
    Failure,
    Samples,
    SideSamples,
    Witness,
)
from bench.records.catalogue import FIRST_STEP, GROWTH, IMPORT, MEMORY, PAIR_SECONDS, SLICE, Spec

_WARM_UP_SLICES = 2
_TURN_SECONDS = 0.03
_LEAST_PAIRS = 4
_GROWTH_CALLS = 20
_OF_THREADS = ("scheduling", "threads")  # workloads with threads of their own differ in these
# Linux stops round-robin processes for 50 ms once they have used 95 % of a second.
_PAUSE_SHARE = 0.08


@dataclass(frozen=True)
class Limits:
    """After how many seconds a worker counts as hung."""

    start_seconds: float = 300.0
    prepare_seconds: float = 300.0
    slice_seconds: float = 120.0


@dataclass(frozen=True)
class Bench:
    """Where and how blocks are measured.

    Attributes:
        folder: private, with the workers' files.
        cores: that both sides run on: the measuring one alone, or all where they are not pinned.
        start_cores: where the first and the second side import and build at the same time.
        all_cores: for workloads of another number of threads, which are not pinned.
        threads: TensorFlow's, unless the workload says otherwise.
        pair_seconds: how long a workload's pairs go on in a block.
        limits: of patience.
        call_steps: steps of the calls that a slice is made of, by workload and side, where they
            are not one call of the same steps: how calibration slows a candidate down.
    """

    folder: Path
    cores: tuple[int, ...]
    start_cores: tuple[tuple[int, ...], tuple[int, ...]]
    all_cores: tuple[int, ...]
    threads: int = 1
    pair_seconds: float = PAIR_SECONDS
    limits: Limits = field(default_factory=Limits)
    call_steps: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)


class _SideError(Exception):
    """A worker's error, and whose it is."""

    def __init__(self, side: str, error: WorkerError) -> None:
        super().__init__(error.reason)
        self.side = side
        self.error = error


class BlockRecorder:
    """Measures a block; what it has so far can be had at any time, also after Ctrl-C."""

    def __init__(
        self,
        bench: Bench,
        sides: Mapping[str, Interpreter],
        specs: Sequence[Spec],
        steps: dict[str, int],
        *,
        candidate: int,
        number: int,
        seed: int,
    ) -> None:
        """Plans a block.

        Args:
            bench: where and how.
            sides: `baseline` and `candidate`.
            specs: the workloads to measure.
            steps: of a slice by workload; what is missing is fixed here, by the baseline.
            candidate: its place among the candidates.
            number: of the candidate's blocks, from 0: odd ones begin with the candidate.
            seed: of the order of the workloads.
        """
        self._bench = bench
        self._core = bench.cores[0] if len(bench.cores) == 1 else None
        self._sides = sides
        self._steps = steps
        self._candidate = candidate
        self._number = number
        self._order = SIDES if number % 2 == 0 else SIDES[::-1]
        self._slices = [spec for spec in specs if spec.kind in (SLICE, FIRST_STEP)]
        self._probes = [spec for spec in specs if spec.kind in (IMPORT, MEMORY, GROWTH)]
        shuffle = random.Random(f"{seed} {candidate} {number}").shuffle  # noqa: S311 - no secret
        shuffle(self._slices)
        shuffle(self._probes)
        self._samples: dict[str, Samples] = {}
        self._failures: list[Failure] = []
        self._witnesses: list[Witness] = []
        self._versions: dict[str, Mapping[str, Any]] = {}
        self._started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._start = time.monotonic()

    @property
    def versions(self) -> Mapping[str, Mapping[str, Any]]:
        """What each side's worker said of itself, once it has started."""
        return self._versions

    def block(self, quickest_control: float | None = None) -> Block:
        """What was measured up to now."""
        quickest = min(
            [w.control_seconds for w in self._witnesses]
            + ([quickest_control] if quickest_control else []),
            default=1.0,
        )
        return Block(
            candidate=self._candidate,
            number=self._number,
            first=self._order[0],
            started=self._started,
            seconds=time.monotonic() - self._start,
            samples=dict(self._samples),
            failures=tuple(self._failures),
            witnesses=tuple(self._witnesses),
            disturbed=machine.disturbances(self._witnesses, quickest),
        )

    def measure(self) -> None:
        """Measures every workload; one that fails costs no other its samples."""
        self._witnesses.append(machine.witness(self._core, None, 0.0))
        for threads in sorted({spec.threads or self._bench.threads for spec in self._slices}):
            group = [s for s in self._slices if (s.threads or self._bench.threads) == threads]
            group.sort(key=lambda spec: spec.kind != FIRST_STEP)  # it is one in a fresh worker only
            while group:
                group = self._measure_in_workers(group, threads)
        for spec in self._probes:
            with self._witnessing():
                try:
                    self._samples[spec.name] = self._probe(spec)
                except _SideError as error:
                    self._note(error, spec.name)

    def _measure_in_workers(self, group: list[Spec], threads: int) -> list[Spec]:
        """Measures workloads in one pair of workers; gives what is left when one of them dies."""
        with contextlib.ExitStack() as stack:
            try:
                pair = _Pair(self._bench, self._sides, self._order, threads, stack, huge_pages=True)
            except _SideError as error:
                self._note(error, "")
                return []
            for side, said in pair.versions.items():
                before = self._versions.get(side, {})
                own = {key: said[key] for key in said if key not in _OF_THREADS}
                self._versions[side] = said if threads == self._bench.threads else {**own, **before}
            for done, spec in enumerate(group, start=1):
                try:
                    checks = {} if spec.kind == FIRST_STEP else pair.prepare(spec)
                    with self._witnessing():
                        self._samples[spec.name] = self._measure_pairs(spec, pair, checks)
                except _SideError as error:
                    self._note(error, spec.name)
                    if error.error.gone:
                        return group[done:]
        return []

    def _measure_pairs(
        self, spec: Spec, pair: _Pair, checks: Mapping[str, tuple[float, ...]]
    ) -> Samples:
        if spec.kind == FIRST_STEP:
            pair.move_together()
            return _once({side: pair.ask(side, "first_step") for side in self._order})
        steps = self._call_steps(spec, pair)
        for _ in range(_WARM_UP_SLICES):
            for side in self._order:
                pair.slice(side, spec.name, steps[side][0])
        answers: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        deadline = time.monotonic() + self._bench.pair_seconds
        pairs = 0
        while pairs < _LEAST_PAIRS or pairs % 2 or time.monotonic() < deadline:
            order = self._order if pairs % 2 == 0 else self._order[::-1]
            calls = [dict.fromkeys(("value", "cpu", "idle", "loss"), 0.0) for _ in SIDES]
            for call in range(len(steps[BASELINE])):
                both = {side: steps[side][call] for side in order}
                taken = pair.slices_in_turns if spec.in_turns else pair.slices
                for sums, answer in zip(calls, taken(spec.name, both), strict=True):
                    _add(sums, answer)
            for side, sums in zip(order, calls, strict=True):
                answers[side].append(sums)
            pairs += 1
        baseline, candidate = (_side_samples(answers[side]) for side in SIDES)
        return Samples(baseline, candidate, checks[BASELINE], checks[CANDIDATE])

    def _call_steps(self, spec: Spec, pair: _Pair) -> Mapping[str, tuple[int, ...]]:
        """Steps of each call of a slice; fixed by the baseline in a comparison's first block."""
        if spec.name in self._bench.call_steps:
            calls = self._bench.call_steps[spec.name]
            self._steps[spec.name] = sum(calls[BASELINE])
            return calls
        if spec.name not in self._steps:
            self._steps[spec.name] = self._fixed_steps(spec, pair)
        return dict.fromkeys(SIDES, (self._steps[spec.name],))

    def _fixed_steps(self, spec: Spec, pair: _Pair) -> int:
        """Steps that take the baseline about as long as a slice is to last."""
        steps = spec.least_steps
        pair.slice(BASELINE, spec.name, steps)
        if pair.slice(BASELINE, spec.name, steps)["value"] >= spec.slice_seconds:
            return steps
        for _ in range(2):  # the second time without a call's share of a single step
            seconds = min(pair.slice(BASELINE, spec.name, steps)["value"] for _ in range(3))
            multiples = round(spec.slice_seconds / seconds * steps / spec.step_multiple)
            steps = max(spec.least_steps, spec.step_multiple * multiples)
        return steps

    def _probe(self, spec: Spec) -> Samples:
        """Uses processes of their own: imports in turns, memory at once."""
        bench = self._bench
        if spec.kind == IMPORT:
            return _once({side: {"value": self._import_seconds(side)} for side in self._order})
        with contextlib.ExitStack() as stack:
            pair = _Pair(bench, self._sides, self._order, bench.threads, stack)
            arguments = {} if spec.kind == MEMORY else {"calls": _GROWTH_CALLS}
            return _once(pair.ask_both(spec.kind, dict.fromkeys(SIDES, arguments)))

    def _import_seconds(self, side: str) -> float:
        bench = self._bench
        try:
            return time_import(
                self._sides[side], bench.folder, bench.cores, bench.limits.start_seconds
            )
        except WorkerError as error:
            raise _SideError(side, error) from None

    @contextlib.contextmanager
    def _witnessing(self) -> Iterator[None]:
        """Looks at the machine before and after; the workers' own work is not held against it."""
        before, ours_before = machine.ticks(self._core), machine.children_cpu_seconds()
        yield
        ours = machine.children_cpu_seconds() - ours_before
        self._witnesses.append(machine.witness(self._core, before, ours))

    def _note(self, error: _SideError, workload: str) -> None:
        reason = error.error.reason
        self._failures.append(Failure(error.side, workload, reason, error.error.output))


class _Pair:
    """Both sides' workers."""

    def __init__(
        self,
        bench: Bench,
        sides: Mapping[str, Interpreter],
        order: Sequence[str],
        threads: int,
        stack: contextlib.ExitStack,
        *,
        huge_pages: bool = False,  # not where memory itself is measured
    ) -> None:
        """Starts both at the same time, each on a core of its own where there are two.

        Raises:
            _SideError: one did not start.
        """
        self._limits = bench.limits
        usual = threads == bench.threads
        self._together = bench.cores if usual else bench.all_cores
        apart = bench.start_cores if usual else (bench.all_cores, bench.all_cores)
        self._apart = dict(zip(order, apart, strict=True))
        self._workers: dict[str, Worker] = {}
        for side in order:
            try:
                self._workers[side] = stack.enter_context(
                    Worker(sides[side], bench.folder, huge_pages=huge_pages)
                )
            except WorkerError as error:
                raise _SideError(side, error) from None
        starts = {
            side: {"cores": list(self._apart[side]), "threads": threads} for side in self._workers
        }
        try:
            answers = self.ask_both("start", starts)
        except _SideError as error:
            raise _SideError(error.side, _explained(error, sides, bench, threads)) from None
        self.versions = {side: answers[side]["versions"] for side in answers}
        self._has_quota = any(
            said.get("scheduling") != "default" for said in self.versions.values()
        )

    def prepare(self, spec: Spec) -> dict[str, tuple[float, ...]]:
        """Builds a workload on both sides at the same time; gives their check figures."""
        self._move(self._apart)
        command = {
            "workload": spec.name,
            "builder": spec.builder,
            "arguments": dict(spec.arguments or {}),
        }
        both = dict.fromkeys(self._workers, command)
        answers = self.ask_both("prepare", both)
        self.move_together()
        return {side: tuple(answers[side]["check"]) for side in answers}

    def move_together(self) -> None:
        """Puts both on the measuring core."""
        self._move(dict.fromkeys(self._workers, self._together))

    def slice(self, side: str, workload: str, steps: int) -> dict[str, Any]:
        """Runs a slice on a side, and leaves the core alone for a moment where it must be."""
        answer = self.ask(side, "slice", workload=workload, steps=steps)
        self._leave_core_alone(answer["value"])
        return answer

    def _leave_core_alone(self, used_seconds: float) -> None:
        if self._has_quota:
            time.sleep(_PAUSE_SHARE * used_seconds)

    def slices(self, workload: str, steps: Mapping[str, int]) -> list[dict[str, Any]]:
        """Runs a slice on each side, one after the other in the order of `steps`."""
        return [self.slice(side, workload, count) for side, count in steps.items()]

    def slices_in_turns(self, workload: str, steps: Mapping[str, int]) -> list[dict[str, Any]]:
        """Runs a slice on each side, in turns: each is stopped while the other runs.

        What a neighbour does for half a second falls on both so, as if slices were short. The time
        for which a side was stopped during its slice is taken off it.

        Raises:
            _SideError: one of them failed.
        """
        workers = {side: self._workers[side] for side in steps}
        for side, worker in workers.items():
            worker.stop()
            worker.send("slice", workload=workload, steps=steps[side])
        ran = dict.fromkeys(steps, 0.0)
        stopped_at: dict[str, float] = {}
        pauses: dict[str, list[tuple[float, float]]] = {side: [] for side in steps}
        answers: dict[str, dict[str, Any]] = {}
        errors: dict[str, WorkerError] = {}
        while len(answers) + len(errors) < len(workers):
            for side, worker in workers.items():
                if side in answers or side in errors:
                    continue
                left = self._limits.slice_seconds - ran[side]
                is_last = len(answers) + len(errors) == len(workers) - 1
                start = time.perf_counter()
                pauses[side].append((stopped_at.get(side, start), start))
                worker.go_on()
                has_answer = worker.has_answer(left if is_last else min(_TURN_SECONDS, left))
                if not has_answer:
                    worker.stop()
                stopped_at[side] = time.perf_counter()
                ran[side] += stopped_at[side] - start
                try:
                    if has_answer:
                        answers[side] = worker.receive(self._limits.slice_seconds)
                    elif ran[side] >= self._limits.slice_seconds:
                        raise worker.hung(self._limits.slice_seconds)
                except WorkerError as error:
                    errors[side] = error
                self._leave_core_alone(stopped_at[side] - start)
        _raise_first(errors)
        for side, answer in answers.items():
            # By the worker's own start and end: its answer may come a turn after its slice ended.
            answer["value"] = time_running(answer["start"], answer["end"], pauses[side])
        return [answers[side] for side in steps]

    def ask(self, side: str, do: str, **arguments: Any) -> dict[str, Any]:
        """Asks one side.

        Raises:
            _SideError: it failed.
        """
        try:
            return self._workers[side].ask(self._limits.slice_seconds, do, **arguments)
        except WorkerError as error:
            raise _SideError(side, error) from None

    def _move(self, cores: Mapping[str, tuple[int, ...]]) -> None:
        for side in self._workers:
            self.ask(side, "move", cores=list(cores[side]))

    def ask_both(
        self, do: str, arguments: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """Asks both sides at the same time; for what is not timed against the other.

        Raises:
            _SideError: one of them failed.
        """
        limits = self._limits
        seconds = limits.start_seconds if do == "start" else limits.prepare_seconds
        for side, worker in self._workers.items():
            worker.send(do, **arguments[side])
        answers: dict[str, dict[str, Any]] = {}
        errors: dict[str, WorkerError] = {}
        for side, worker in self._workers.items():
            try:
                answers[side] = worker.receive(seconds)
            except WorkerError as error:
                errors[side] = error
        _raise_first(errors)
        return answers


def _raise_first(errors: Mapping[str, WorkerError]) -> None:
    """Tells the baseline's, if both fail: nothing is known of the candidate then."""
    for side in SIDES:
        if side in errors:
            first = errors[side]
            gone = any(error.gone for error in errors.values())  # neither is of use without both
            raise _SideError(side, WorkerError(first.reason, first.output, gone=gone))


def _explained(
    error: _SideError, sides: Mapping[str, Interpreter], bench: Bench, threads: int
) -> WorkerError:
    """Starts once more with TensorFlow's log where a signal ended it: it says there why."""
    if not error.error.reason.startswith("killed by"):
        return error.error
    talkative = replace(sides[error.side], log_level=0)
    try:
        with Worker(talkative, bench.folder) as worker:
            worker.ask(bench.limits.start_seconds, "start", cores=[], threads=threads)
    except WorkerError as again:
        return WorkerError(error.error.reason, again.output)
    return error.error


def _add(sums: dict[str, float], answer: Mapping[str, float]) -> None:
    sums["value"] += answer["value"]
    sums["cpu"] += answer["cpu_seconds"]
    sums["idle"] += answer["idle_cpu_seconds"]
    sums["loss"] = answer["loss"]


def _once(answers: Mapping[str, Mapping[str, Any]]) -> Samples:
    """One sample a side."""
    baseline, candidate = (
        SideSamples(
            (float(answers[side]["value"]),),
            losses=(float(answers[side]["loss"]),) if "loss" in answers[side] else (),
            threads=(int(answers[side]["threads"]),) if "threads" in answers[side] else (),
        )
        for side in SIDES
    )
    return Samples(baseline, candidate)


def _side_samples(answers: Sequence[Mapping[str, float]]) -> SideSamples:
    values, cpu, idle, losses = (
        tuple(answer[key] for answer in answers) for key in ("value", "cpu", "idle", "loss")
    )
    return SideSamples(values, cpu, idle, losses)
