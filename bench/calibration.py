"""What a verdict on this machine is worth: blocks of known truth, and the stopping rule on them.

A bank holds blocks of an environment against itself (`equal`), or against itself slowed down by
whole extra steps, the same in every slice (`slowed`: 53 steps for 50, which are 10 interleaved
calls of 5, of which 3 have a step more). Banks are kept per machine, workload version and threads;
a second sitting, of the same code and environment, goes on from the first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from scipy import stats

from bench import machine, results
from bench.results import BASELINE, CANDIDATE, Block, Results
from bench.statistics import Verdict
from bench.verdicts import decide
from lenet5.errors import InputError

WORKLOAD = "train_step[loop,b128]"
EQUAL, SLOWED = "equal", "slowed"
_CALLS = {BASELINE: (5,) * 10, CANDIDATE: (6,) * 3 + (5,) * 7}  # 50 steps and 53
REPLAYS = 1000
_LONGEST = 24  # blocks of a replay


@dataclass(frozen=True)
class Replays:
    """How often each verdict came out.

    Attributes:
        bank: `equal` or `slowed`.
        manner: `stretches` (contiguous), `draws` (without replacement), or `disjoint`: the few
            stretches that share no block, which alone are independent of each other.
        blocks: in the bank.
        counts: by verdict.
    """

    bank: str
    manner: str
    blocks: int
    counts: Mapping[Verdict, int]

    def share(self, verdict: Verdict) -> float:
        """Of a verdict, 0 to 1."""
        return self.counts[verdict] / sum(self.counts.values())


def call_steps(bank: str) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
    """How a bank's slices are made up: as usual, or slowed."""
    return {WORKLOAD: _CALLS} if bank == SLOWED else {}


def bank_file(cache: Path, bank: str, found: Results) -> Path:
    """Where a bank of such results is kept."""
    terms = found.workloads[WORKLOAD]
    identity = json.dumps([found.machine, terms.version, terms.threads], sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return cache / "banks" / f"{key}-{bank}.json"


def read_bank(cache: Path, bank: str, threads: int, version: int) -> Results:
    """The bank of this machine.

    Raises:
        InputError: it was not measured here.
    """
    terms = results.WorkloadTerms(version, "s", 1.03, True, threads=threads)
    side = results.Side("", "")
    like = Results(machine.describe(), "", {}, "", side, (side,), {WORKLOAD: terms})
    path = bank_file(cache, bank, like)
    if not path.exists():
        raise InputError(f"no bank of {bank} blocks was measured here: python -m bench calibrate")
    return results.read(path)


def replay(
    found: Results, bank: str, *, margin: float, budget_seconds: float, replays: int, seed: int
) -> list[Replays]:
    """Runs the whole stopping rule on a bank many times.

    Args:
        found: the bank.
        bank: its name.
        margin: to decide against.
        budget_seconds: blocks count as long as they do on the average; so many are replayed.
        replays: of each manner.
        seed: of the draws.

    Raises:
        InputError: the bank holds fewer blocks than the budget allows.
    """
    blocks = [block for block in found.blocks if WORKLOAD in block.samples]
    seconds = sum(block.seconds for block in found.blocks) / max(len(found.blocks), 1)
    length = min(_LONGEST, int(budget_seconds / seconds)) if blocks else 0
    if not 4 <= length < len(blocks):
        raise InputError(
            f"the bank holds {len(blocks)} blocks of {seconds:.0f} s, too few for a budget of "
            f"{budget_seconds:g} s: python -m bench calibrate --blocks N"
        )
    random = np.random.RandomState(seed)
    starts = random.randint(0, len(blocks) - length + 1, replays)
    stretches = [blocks[start : start + length] for start in starts]
    disjoint = [blocks[i : i + length] for i in range(0, len(blocks) - length + 1, length)]
    draws = [
        [blocks[place] for place in random.permutation(len(blocks))[:length]]
        for _ in range(replays)
    ]
    terms = {WORKLOAD: replace(found.workloads[WORKLOAD], margin=margin, gated=True)}
    like = replace(found, workloads=terms)
    return [
        Replays(bank, manner, len(blocks), _count(like, chosen))
        for manner, chosen in (("stretches", stretches), ("draws", draws), ("disjoint", disjoint))
    ]


def table(rows: Sequence[Replays]) -> str:
    """The self-check's table: how often each verdict came out."""
    lines = [f"{'bank':8}{'blocks':>7}  {'manner':11}{'PASS':>9}{'FAIL':>9}{'INCONCLUSIVE':>14}"]
    for row in rows:
        shares = [100 * row.share(verdict) for verdict in Verdict]
        lines.append(
            f"{row.bank:8}{row.blocks:>7}  {row.manner:11}"
            f"{shares[0]:7.1f} %{shares[1]:7.1f} %{shares[2]:12.1f} %"
        )
    return "\n".join(lines)


def clopper_pearson(count: int, runs: int) -> tuple[float, float]:
    """95 % interval of a share that was seen `count` times in `runs` (Clopper and Pearson 1934)."""
    interval = stats.binomtest(count, runs).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def false_alarms(found: Results, cache: Path) -> str:
    """This machine's rate of false alarms in words, or that it was not measured here."""
    terms = found.workloads.get(WORKLOAD)
    if terms is None:
        return f"false alarms: of {WORKLOAD} only, which is not in this comparison"
    path = bank_file(cache, EQUAL, found)
    try:
        bank = results.read(path)
        budget = float(found.options["budget_seconds"])
        rows = replay(bank, EQUAL, margin=terms.margin, budget_seconds=budget, replays=200, seed=0)
    except InputError:
        return "false alarms: not measured here (python -m bench calibrate)"
    days = (datetime.now(timezone.utc) - datetime.fromisoformat(bank.blocks[-1].started)).days
    stretches, _, disjoint = rows
    independent = sum(disjoint.counts.values())
    _, high = clopper_pearson(disjoint.counts[Verdict.FAIL], independent)
    return (
        f"false alarms on this machine: {stretches.counts[Verdict.FAIL]} FAIL in 200 replays of "
        f"{stretches.blocks} blocks of {WORKLOAD} against itself, at most {100 * high:.0f} % by "
        f"its {independent} independent stretches; measured {days} days ago"
    )


def _count(like: Results, chosen: Sequence[Sequence[Block]]) -> dict[Verdict, int]:
    counts = dict.fromkeys(Verdict, 0)
    for blocks in chosen:
        numbered = tuple(
            replace(block, candidate=0, number=number, disturbed=())
            for number, block in enumerate(blocks)
        )
        counts[decide(replace(like, blocks=numbered), 0)[WORKLOAD].verdict] += 1
    return counts
