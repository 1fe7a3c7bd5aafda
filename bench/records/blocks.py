"""Blocks of a speed comparison: raw samples, failures and witnesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.records.catalogue import Spec
from bench.records.sides import Side

BASELINE, CANDIDATE = "baseline", "candidate"
SIDES = (BASELINE, CANDIDATE)
NOT_MEASURED = "not measured: "  # prefix of a reason: the system reports no figure


@dataclass(frozen=True)
class SideSamples:
    """Samples of a workload for one side of a block, in the order of the pairs.

    Attributes:
        values: wall seconds of each slice (or MiB, by the workload's unit), positive.
        cpu_seconds: CPU seconds of the process during each slice.
        idle_cpu_seconds: CPU seconds of the process since its last answer, during the other side's
            slice.
        losses: loss at the end of each slice.
        threads: number of threads of the process at the end, if counted.
    """

    values: tuple[float, ...]
    cpu_seconds: tuple[float, ...] = ()
    idle_cpu_seconds: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    threads: tuple[int, ...] = ()


@dataclass(frozen=True)
class Samples:
    """Pairs of a workload in a block, and check figures of both sides.

    Attributes:
        baseline: one sample per pair.
        candidate: one sample per pair.
        baseline_check: losses of the first steps from stored weights without dropout, or other
            figures that must agree; empty if the workload has none.
        candidate_check: check figures of the candidate.
    """

    baseline: SideSamples
    candidate: SideSamples
    baseline_check: tuple[float, ...] = ()
    candidate_check: tuple[float, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Reason for missing samples of a workload in a block.

    Attributes:
        side: `baseline` or `candidate`.
        workload: running workload; empty if the worker did not start.
        reason: one line, such as "killed by signal 9".
        output: last lines printed by the worker.
    """

    side: str
    workload: str
    reason: str
    output: str = ""


@dataclass(frozen=True)
class GpuWitness:
    """State of the GPU, as its driver tells it.

    Attributes:
        reasons: reasons for slower clocks at this moment, in words; `None`: not told.
        limited: by the limit that slows the GPU (`power`, `temperature`) a moment in seconds, and
            the seconds of slowness until then, both since the driver's start; without limits that
            the GPU does not count.
        temperature_c: temperature in degrees Celsius; `None`: not told.
        sm_mhz: clock of the multiprocessors; `None`: not told.
        foreign: number of other computing processes on the GPU; `None`: not told.
    """

    reasons: tuple[str, ...] | None = None
    limited: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    temperature_c: float | None = None
    sm_mhz: float | None = None
    foreign: int | None = None


@dataclass(frozen=True)
class Witness:
    """Other activity of the machine.

    Attributes:
        control_seconds: time of a fixed calculation on the measuring core.
        load: the system's load average of the last minute.
        steal: share of the measuring core's time given to others by the hypervisor since the last
            witness; `None` for the first.
        others: share of the measuring core's time used by other processes since the last witness;
            `None` for the first.
        throttled: share of periods in which a CPU quota stopped the container since the last
            witness; `None` without a quota, for the first witness, and in older ledgers.
        gpu: state of the GPU; `None` on the CPU, in older ledgers, and if its driver is silent.
    """

    control_seconds: float
    load: float
    steal: float | None = None
    others: float | None = None
    throttled: float | None = None
    gpu: GpuWitness | None = None


@dataclass(frozen=True)
class BlockTask:
    """A task: one block of the baseline and its candidates.

    Attributes:
        specs: workloads to measure, by candidate.
        numbers: number of the next block, by candidate.
        turn: number among all blocks; it decides which side starts.
        seed: seed of the workloads' order.
        steps: steps of a slice by workload, if earlier blocks fixed them.
        quickest_control: minimum seconds of the control kernel in earlier blocks; None without
            blocks.
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
        candidate: index of the candidate.
        number: number among the candidate's blocks, from 0; a repeated block keeps its number.
        first: first side to start, and first side of the first pair.
        started: start in UTC, ISO 8601.
        seconds: time from the first worker's start to the last worker's end, without `own_seconds`.
        samples: samples of the measured workloads.
        failures: failures of other workloads.
        witnesses: witnesses before, during (between workloads) and after.
        disturbed: disturbances found by the witnesses; empty for a quiet block.
        own_seconds: time of each workload with a budget of its own.
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
    own_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_beside_the_budget(self) -> bool:
        """Whether it measured only workloads with budgets of their own."""
        tried = {*self.samples, *(failure.workload for failure in self.failures)}
        return bool(tried) and tried <= set(self.own_seconds)


@dataclass(frozen=True)
class WorkloadTerms:
    """Terms of a workload's measurement: version, unit, steps of a slice, margin, gate.

    Attributes:
        version: version of the timed code.
        unit: `s` or `MiB`.
        margin: a ratio, or a difference for `is_difference`.
        gated: whether the verdict counts for the exit code.
        is_difference: whether the sides are compared by difference.
        steps: steps of a slice, fixed once per comparison; 0 without slices.
        threads: number of TensorFlow threads.
        own_budget_seconds: the workload's own measuring time per candidate; 0: a part of the
            comparison's budget.
    """

    version: int
    unit: str
    margin: float
    gated: bool
    is_difference: bool = False
    steps: int = 0
    threads: int = 1
    own_budget_seconds: float = 0.0


@dataclass(frozen=True)
class Results:
    """A comparison: one baseline, candidates, workloads, and all measured blocks.

    Attributes:
        machine: CPU model, flags, usable cores, memory, kernel.
        code: SHA-256 of the workers' files.
        options: options of the experiment: budget, threads, pinned, seed, device (`cpu` or
            `gpu:N`; absent in older ledgers: `cpu`).
        started: start in UTC, ISO 8601.
        baseline: environment of the baseline.
        candidates: environments of the candidates.
        workloads: terms by name.
        blocks: blocks in the order of measurement.
        complete: whether the experiment ended without interruption.
        clock_seconds: resolution of the clock.
        torn: whether the file's last record was torn; it is dropped.
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

    @property
    def device(self) -> str:
        """The device that was measured: `cpu` or `gpu:N`."""
        return str(self.options.get("device", "cpu"))
