"""What a verdict on this machine is worth: blocks of known truth, and the stopping rule on them.

A bank is a folder of results files: runs of the whole experiment, each an environment against
itself (`equal`), or against itself slowed down by whole extra steps, the same in every slice
(`slowed`: 53 steps for 50, which are 10 interleaved calls of 5, of which 3 have a step more).
Banks are kept per machine, workload version and threads; any sitting adds runs to them. The
stopping rule is replayed on all their blocks.
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
from bench.verdicts.sequential import LOOKS, Verdict
from bench.verdicts.speed import decide
from lenet5.errors import InputError

WORKLOAD = "train_step[loop,b128]"
EQUAL, SLOWED = "equal", "slowed"
_CALLS = {BASELINE: (5,) * 10, CANDIDATE: (6,) * 3 + (5,) * 7}  # 50 steps and 53
BUDGET_SECONDS = 120.0  # of a run
REPLAYS = 1000
_LONGEST = 24  # blocks of a replay


@dataclass(frozen=True)
class Row:
    """How often each verdict came out.

    Attributes:
        bank: `equal` or `slowed`.
        manner: `runs` for real, or replays: `stretches` (contiguous) or `draws` (without
            replacement) of the runs' blocks.
        blocks: in the bank.
        counts: by verdict.
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
        """Of a verdict, 0 to 1."""
        return self.counts[verdict] / self.total


def call_steps(bank: str) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
    """How a bank's slices are made up: as usual, or slowed."""
    return {WORKLOAD: _CALLS} if bank == SLOWED else {}


def bank_folder(cache: Path, bank: str, found: Results) -> Path:
    """Where runs alike to these results are kept."""
    terms = found.workloads[WORKLOAD]
    identity = json.dumps([found.machine, terms.version, terms.threads], sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return cache / "banks" / f"{key}-{bank}"


def read_bank(folder: Path) -> list[Results]:
    """The runs of a bank, in the order in which they were measured.

    Raises:
        InputError: it has none, or they were not measured alike.
    """
    runs = [results.read(path) for path in sorted(folder.glob("*.jsonl"))]
    if not runs:
        raise InputError(f"{folder.name} was not measured here: python -m bench calibrate")
    for run in runs[1:]:
        check_belongs(run, runs[0], folder)
    return runs


def check_belongs(run: Results, other: Results, folder: Path) -> None:
    """Refuses a run of another environment or code than a bank's.

    Raises:
        InputError: says which, and what to do.
    """
    try:
        results.check_alike(run, other)
    except InputError as error:
        raise InputError(f"{error}: remove {folder} to begin a new bank") from None


def empty_like(machine: Mapping[str, Any], threads: int, version: int) -> Results:
    """Results of a machine without anything measured, to find its banks by."""
    terms = WorkloadTerms(version, "s", 1.03, True, threads=threads)
    side = sides.Side("", "")
    return Results(machine, "", {}, "", side, (side,), {WORKLOAD: terms})


def replay(
    runs: Sequence[Results], bank: str, *, margin: float, replays: int, seed: int
) -> list[Row]:
    """Counts a bank's verdicts: of its runs, and of the whole stopping rule on its blocks.

    Args:
        runs: the bank's; those that were interrupted lend their blocks only.
        bank: its name.
        margin: to decide against.
        replays: of each manner.
        seed: of the draws.

    Returns:
        A row each for runs, stretches and draws.

    Raises:
        InputError: the bank holds too few blocks to replay it.
    """
    terms = {WORKLOAD: replace(runs[0].workloads[WORKLOAD], margin=margin, gated=True)}
    blocks = [block for run in runs for block in run.blocks if WORKLOAD in block.samples]
    seconds = sum(block.seconds for block in blocks) / max(len(blocks), 1)
    # Replayed blocks count as long as they last on the average.
    length = min(_LONGEST, int(BUDGET_SECONDS / seconds)) if blocks else 0
    if not LOOKS[0].blocks <= length < len(blocks):
        raise InputError(
            f"{bank}: {len(blocks)} blocks of {seconds:.0f} s are too few to replay runs of "
            f"{BUDGET_SECONDS:g} s: python -m bench calibrate --runs N"
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
        raise InputError(f"{bank}: no run came to its end: python -m bench calibrate --runs N")
    real = [replace(run, workloads=terms) for run in runs if run.complete]
    return [
        Row(bank, "runs", len(blocks), _count(real)),
        Row(bank, "stretches", len(blocks), _count(_renumbered(like, s) for s in stretches)),
        Row(bank, "draws", len(blocks), _count(_renumbered(like, d) for d in draws)),
    ]


def clopper_pearson(count: int, runs: int) -> tuple[float, float]:
    """95 % interval of a share that was seen `count` times in `runs` (Clopper and Pearson 1934)."""
    interval = stats.binomtest(count, runs).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def false_alarms(found: Results, cache: Path) -> str:
    """This machine's rate of false alarms in words, or that it was not measured here."""
    terms = found.workloads.get(WORKLOAD)
    if terms is None:
        return f"false alarms: of {WORKLOAD} only, which is not in this comparison"
    folder = bank_folder(cache, EQUAL, found)
    try:
        runs = read_bank(folder)
        rows = replay(runs, EQUAL, margin=terms.margin, replays=200, seed=0)
    except InputError:
        return "false alarms: not measured here (python -m bench calibrate)"
    days = (datetime.now(timezone.utc) - datetime.fromisoformat(runs[-1].started)).days
    real, stretches, _ = rows
    _, high = clopper_pearson(real.counts[Verdict.FAIL], real.total)
    return (
        f"false alarms on this machine: {real.counts[Verdict.FAIL]} FAIL in {real.total} runs of "
        f"{WORKLOAD} against itself (at most {100 * high:.0f} %), "
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
