"""Blocks of a speed comparison: raw samples, failures and witnesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.records.catalogue import Spec
from bench.records.sides import Side

BASELINE, CANDIDATE = "baseline", "candidate"
SIDES = (BASELINE, CANDIDATE)
NOT_MEASURED = "not measured: "  # so begins a failure's reason where the system tells no figure


@dataclass(frozen=True)
class SideSamples:
    """One side's part of a workload's samples in a block, in the order of the pairs.

    Attributes:
        values: wall seconds of each slice (or MiB, by the workload's unit), positive.
        cpu_seconds: CPU that the process used during the slice.
        idle_cpu_seconds: CPU that it used since its last answer, while the other side computed.
        losses: loss reached at the end of each slice.
        threads: of the process at the end, where they were counted.
    """

    values: tuple[float, ...]
    cpu_seconds: tuple[float, ...] = ()
    idle_cpu_seconds: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    threads: tuple[int, ...] = ()


@dataclass(frozen=True)
class Samples:
    """A workload's pairs in a block, and what the two sides computed on the way.

    Attributes:
        baseline: one sample per pair.
        candidate: as many.
        baseline_check: losses of the first steps from stored weights without dropout, or other
            figures that must agree; empty where the workload has none.
        candidate_check: the same of the candidate.
    """

    baseline: SideSamples
    candidate: SideSamples
    baseline_check: tuple[float, ...] = ()
    candidate_check: tuple[float, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a workload has no samples in a block.

    Attributes:
        side: `baseline` or `candidate`.
        workload: that was running, or empty where the worker did not start.
        reason: one line, such as "killed by signal 9".
        output: the last lines that the worker printed.
    """

    side: str
    workload: str
    reason: str
    output: str = ""


@dataclass(frozen=True)
class Witness:
    """What else the machine did.

    Attributes:
        control_seconds: time of a fixed calculation on the measuring core.
        load: of the last minute, as the system says.
        steal: share of the measuring core's time that the hypervisor gave to others, since the
            last witness; `None` before the first.
        others: share of the measuring core's time that other processes used, likewise.
    """

    control_seconds: float
    load: float
    steal: float | None = None
    others: float | None = None


@dataclass(frozen=True)
class BlockTask:
    """A task: one block of the baseline and its candidates.

    Attributes:
        specs: by candidate, the workloads to measure.
        numbers: by candidate, the number of its next block.
        turn: of all blocks; each turn another side starts.
        seed: of the order of the workloads.
        steps: of a slice by workload, as far as earlier blocks fixed them.
        quickest_control: seconds of the control kernel in earlier blocks; None: there are none.
    """

    specs: Mapping[int, Sequence[Spec]]
    numbers: Mapping[int, int]
    turn: int = 0
    seed: int = 0
    steps: Mapping[str, int] = field(default_factory=dict)
    quickest_control: float | None = None


@dataclass(frozen=True)
class Block:
    """Fresh processes for both sides and many pairs: the unit of statistics.

    Attributes:
        candidate: its place among the candidates.
        number: of the candidate's blocks, from 0; a block that repeats one has its number.
        first: side that was started first, and that the first pair began with.
        started: UTC, ISO 8601.
        seconds: from the first worker's start to the last one's end.
        samples: by workload, of those that were measured.
        failures: of those that were not.
        witnesses: before, during (between workloads) and after.
        disturbed: what the witnesses say against it; empty for a quiet block.
    """

    candidate: int
    number: int
    first: str
    started: str
    seconds: float
    samples: Mapping[str, Samples]
    failures: tuple[Failure, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    disturbed: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkloadTerms:
    """On what terms a workload was measured: version, unit, steps of a slice, margin, gate.

    Attributes:
        version: of the code that was timed.
        unit: `s` or `MiB`.
        margin: a ratio, or a difference for `is_difference`.
        gated: whether the verdict counts.
        is_difference: whether the sides are compared by difference.
        steps: of a slice, fixed once per comparison; 0 where there are none.
        threads: TensorFlow's.
    """

    version: int
    unit: str
    margin: float
    gated: bool
    is_difference: bool = False
    steps: int = 0
    threads: int = 1


@dataclass(frozen=True)
class Results:
    """A comparison: one baseline, candidates, workloads, and every block that was measured.

    Attributes:
        machine: CPU model, flags, usable cores, memory, kernel.
        code: SHA-256 of the files that the workers run.
        options: of the experiment: budget, threads, pinned, seed.
        started: UTC, ISO 8601.
        baseline: its environment.
        candidates: theirs.
        workloads: terms by name.
        blocks: in the order of measuring.
        complete: whether the experiment ended by itself.
        clock_seconds: resolution of the clock.
        torn: whether the last record of the file was cut off, and is left out.
    """

    machine: Mapping[str, Any]
    code: str
    options: Mapping[str, Any]
    started: str
    baseline: Side
    candidates: tuple[Side, ...]
    workloads: Mapping[str, WorkloadTerms]
    blocks: tuple[Block, ...] = ()
    complete: bool = False
    clock_seconds: float = 1e-9
    torn: bool = False
