"""Error rates of speed verdicts on this machine: the stopping rule on blocks of known truth.

A bank is a folder of results files from complete comparisons. Each compares an environment with
itself (`equal`), or with itself slowed down by whole extra steps, the same in every slice. A slice
of `slowed` has 53 steps instead of 50: 3 of its 10 interleaved calls have 6 steps instead of 5.
Each machine, device, workload version and number of threads has separate banks, which later runs
extend. The stopping rule is replayed on all blocks of a bank. On a GPU the batches are larger:
small ones measure the CPU that starts its kernels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bench.records import results, sides
from bench.records.blocks import BASELINE, CANDIDATE, Block, Results, WorkloadTerms
from bench.records.sides import ON_CPU, device_of
from bench.verdicts.sequential import LOOKS, Verdict
from bench.verdicts.speed import decide
from lenet5.errors import InputError

WORKLOAD = "train_step[loop,b128]"
GPU_WORKLOAD = "train_step[loop,b512]"
EQUAL, SLOWED = "equal", "slowed"
_CALLS = {BASELINE: (5,) * 10, CANDIDATE: (6,) * 3 + (5,) * 7}  # 50 steps and 53
BUDGET_SECONDS = 120.0  # per run
REPLAYS = 1000
_LONGEST = 24  # blocks per replay


@dataclass(frozen=True)
class Row:
    """Number of times that each verdict occurred.

    Attributes:
        bank: `equal` or `slowed`.
        manner: `runs` for real runs, or replays of their blocks: `stretches` (contiguous) or
            `draws` (without replacement).
        blocks: number of blocks in the bank.
        counts: counts by verdict.
    """

    bank: str
    manner: str
    blocks: int
    counts: Mapping[Verdict, int]

    @property
    def total(self) -> int:
        """Number of runs or replays."""
        return sum(self.counts.values())

    def share(self, verdict: Verdict) -> float:
        """Share of a verdict, 0 to 1."""
        return self.counts[verdict] / self.total


def workload_of(machine: Mapping[str, Any]) -> str:
    """Returns the workload of a machine's banks, by the device in use."""
    return WORKLOAD if device_of(machine) == ON_CPU else GPU_WORKLOAD


def command_of(machine: Mapping[str, Any]) -> str:
    """Returns the command that measures a machine's banks."""
    on_gpu = "" if device_of(machine) == ON_CPU else " --device gpu"
    return f"python -m bench calibrate{on_gpu}"


def call_steps(bank: str, workload: str = WORKLOAD) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
    """Returns the steps of each call in a bank's slices, if they differ from the default."""
    return {workload: _CALLS} if bank == SLOWED else {}


def bank_folder(cache: Path, bank: str, found: Results) -> Path:
    """Returns the folder of a bank for runs under the same conditions as these results."""
    terms = found.workloads[workload_of(found.machine)]
    identity = json.dumps([found.machine, terms.version, terms.threads], sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return cache / "banks" / f"{key}-{bank}"


def read_bank(folder: Path, machine: Mapping[str, Any]) -> list[Results]:
    """Reads the runs of a machine's bank, in the order of measurement.

    Raises:
        InputError: The bank has no runs, or their conditions differ.
    """
    runs = [results.read(path) for path in files(folder)]
    if not runs:
        raise InputError(f"{folder.name} was not measured here: {command_of(machine)}")
    for run in runs[1:]:
        check_belongs(run, runs[0], folder)
    return runs


def files(folder: Path) -> list[Path]:
    """Returns the runs of a bank, without those killed before their first record."""
    return [path for path in sorted(folder.glob("*.jsonl")) if results.is_begun(path)]


def check_belongs(run: Results, other: Results, folder: Path) -> None:
    """Rejects a run whose environment or code differs from the bank's.

    Raises:
        InputError: Names the difference and the remedy.
    """
    try:
        results.check_alike(run, other)
    except InputError as error:
        raise InputError(f"{error}: remove {folder} to begin a new bank") from None


def empty_like(machine: Mapping[str, Any], threads: int, version: int) -> Results:
    """Returns results of a machine without measurements, to find its banks."""
    terms = WorkloadTerms(version, "s", 1.03, True, threads=threads)
    side = sides.Side("", "")
    return Results(machine, "", {}, "", side, (side,), {workload_of(machine): terms})


def replay(
    runs: Sequence[Results], bank: str, *, margin: float, replays: int, seed: int
) -> list[Row]:
    """Counts a bank's verdicts: of its runs, and of the stopping rule replayed on its blocks.

    Args:
        runs: runs of the bank; interrupted runs contribute their blocks only.
        bank: name of the bank.
        margin: margin of the decisions.
        replays: number of replays of each kind.
        seed: seed of the draws.

    Returns:
        A row each for runs, stretches and draws.

    Raises:
        InputError: The bank has too few blocks for a replay, or no complete run.
    """
    name, again = workload_of(runs[0].machine), f"{command_of(runs[0].machine)} --runs N"
    terms = {name: replace(runs[0].workloads[name], margin=margin, gated=True)}
    blocks = [block for run in runs for block in run.blocks if name in block.samples]
    seconds = sum(block.seconds for block in blocks) / max(len(blocks), 1)
    # A replayed block counts with the mean time of a block.
    length = min(_LONGEST, int(BUDGET_SECONDS / seconds)) if blocks else 0
    if not LOOKS[0].blocks <= length < len(blocks):
        raise InputError(
            f"{bank}: {len(blocks)} blocks of {seconds:.0f} s are too few to replay runs of "
            f"{BUDGET_SECONDS:g} s: {again}"
        )
    random = np.random.RandomState(seed)
    stretches = [
        blocks[start : start + length]
        for start in random.randint(0, len(blocks) - length + 1, replays)
    ]
    draws = [
        [blocks[place] for place in random.permutation(len(blocks))[:length]]
        for _ in range(replays)
    ]
    like = replace(runs[0], workloads=terms)
    if not any(run.complete for run in runs):
        raise InputError(f"{bank}: no run is complete: {again}")
    real = [replace(run, workloads=terms) for run in runs if run.complete]
    return [
        Row(bank, "runs", len(blocks), _count(real)),
        Row(bank, "stretches", len(blocks), _count(_renumbered(like, s) for s in stretches)),
        Row(bank, "draws", len(blocks), _count(_renumbered(like, d) for d in draws)),
    ]


def clopper_pearson(count: int, runs: int) -> tuple[float, float]:
    """95 % interval of a share, seen `count` times in `runs` (Clopper and Pearson 1934)."""
    interval = stats.binomtest(count, runs).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def false_alarms(found: Results, cache: Path) -> str:
    """Describes this machine's rate of false alarms, or says that it was not measured here."""
    name = workload_of(found.machine)
    terms = found.workloads.get(name)
    if terms is None:
        return f"false alarms: measured for {name} only, which this comparison lacks"
    folder = bank_folder(cache, EQUAL, found)
    try:
        runs = read_bank(folder, found.machine)
        rows = replay(runs, EQUAL, margin=terms.margin, replays=200, seed=0)
    except InputError:
        return f"false alarms: not measured here ({command_of(found.machine)})"
    days = (datetime.now(timezone.utc) - datetime.fromisoformat(runs[-1].started)).days
    real, stretches, _ = rows
    _, high = clopper_pearson(real.counts[Verdict.FAIL], real.total)
    return (
        f"false alarms on this machine: {real.counts[Verdict.FAIL]} FAIL in {real.total} runs of "
        f"{name} against itself (at most {100 * high:.0f} %), "
        f"{stretches.counts[Verdict.FAIL]} in {stretches.total} replays of their "
        f"{stretches.blocks} blocks; measured {days} days ago"
    )


def _renumbered(like: Results, blocks: Sequence[Block]) -> Results:
    numbered = tuple(
        replace(block, candidate=0, number=number, disturbed=())
        for number, block in enumerate(blocks)
    )
    return replace(like, blocks=numbered)


def _count(runs: Iterable[Results]) -> dict[Verdict, int]:
    counts = dict.fromkeys(Verdict, 0)
    for run in runs:
        (decision,) = decide(run)
        counts[decision.verdict] += 1
    return counts
