"""How often accuracy verdicts err: runs of up to twenty seeds, drawn from many that were trained.

As `bench.calibration` does for speed. Two files of trainings are held against each other whose
truth is known: a recipe against itself where only the last bits differ, or against a degraded one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.accuracy import LOOKS, Trained, decide_accuracy
from bench.statistics import Verdict
from bench.trainings import Trainings
from lenet5.errors import InputError

REPLAYS = 1000


@dataclass(frozen=True)
class Replays:
    """What came out of runs drawn from two sets of seeds.

    Attributes:
        pool: seeds that were trained on both sides.
        loss_points: accuracy lost by the candidate over all of them, in percentage points.
        deviation_points: standard deviation of that loss between seeds.
        counts: of runs by verdict.
        mean_seeds: that a verdict took, or the run had.
    """

    pool: int
    loss_points: float
    deviation_points: float
    counts: Mapping[Verdict, int]
    mean_seeds: float


def replay(
    baseline: Trainings, candidate: Trainings, *, margin_points: float, replays: int, seed: int
) -> Replays:
    """Draws runs of twenty seeds with replacement, and decides each as a comparison would.

    With it, or a run of 20 out of 40 seeds would scatter by 0.7 of what a run of new seeds does.

    Args:
        baseline: seeds of the one side.
        candidate: the same seeds of the other.
        margin_points: percentage points of accuracy that may be lost.
        replays: runs to draw.
        seed: of the draws.

    Raises:
        InputError: fewer than 30 seeds are common to both, so that runs would be much the same;
            or the two were trained on other images, or by other code.
    """
    for what, one, other in (
        ("images", baseline.split, candidate.split),
        ("code", baseline.code, candidate.code),
    ):
        if one != other:
            raise InputError(f"the two files are of unlike {what}")
    longest = LOOKS[-1].blocks
    ours = {trained.seed: trained for trained in candidate.seeds}
    pairs = [(ours[base.seed], base) for base in baseline.seeds if base.seed in ours]
    if len(pairs) < 1.5 * longest:
        raise InputError(
            f"{len(pairs)} seeds are common to both files, {longest * 3 // 2} are needed: "
            "python -m bench trials --seeds N"
        )
    losses = [100 * (base.accuracy - other.accuracy) for other, base in pairs]
    random = np.random.RandomState(seed)
    counts = dict.fromkeys(Verdict, 0)
    seeds = 0
    for _ in range(replays):
        drawn = [pairs[place] for place in random.randint(len(pairs), size=longest)]
        decision = _decide(drawn, candidate, margin_points)
        counts[decision[0]] += 1
        seeds += decision[1]
    return Replays(
        len(pairs),
        float(np.mean(losses)),
        float(np.std(losses, ddof=1)),
        counts,
        seeds / replays,
    )


def table(rows: Mapping[str, Replays]) -> str:
    """Markdown: a row for each pair of files."""
    lines = [
        "| candidate | seeds | loses, points | standard deviation | runs "
        f"| {' | '.join(verdict.value for verdict in Verdict)} | seeds a run |",
        f"|---|---|---|---|---|{'---|' * len(Verdict)}---|",
    ]
    for name, row in rows.items():
        total = sum(row.counts.values())
        shares = [f"{100 * row.counts[verdict] / total:.1f} %" for verdict in Verdict]
        cells = [name, row.pool, f"{row.loss_points:.3f}", f"{row.deviation_points:.3f}", total]
        lines.append(f"| {' | '.join(map(str, [*cells, *shares, f'{row.mean_seeds:.1f}']))} |")
    return "\n".join(lines)


def _decide(
    drawn: list[tuple[Trained, Trained]], candidate: Trainings, margin_points: float
) -> tuple[Verdict, int]:
    for look in LOOKS:
        ours, theirs = zip(*drawn[: look.blocks], strict=True)
        decision = decide_accuracy(ours, theirs, candidate.recipe, margin_points, paired=True)
        if decision.verdict is not Verdict.INCONCLUSIVE:
            break
    return decision.verdict, len(ours)
