"""How often accuracy verdicts err: runs of up to twenty seeds, drawn from many that were trained.

As `bench.verdicts.speed_error_rates` does for speed. Two files of trainings are held against each
other whose truth is known: a recipe against itself, or against a degraded one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.records.trainings import Comparison, Trained, Trainings, reference_seeds
from bench.verdicts.accuracy import LOOKS, decide_accuracy, pairs_seeds
from bench.verdicts.sequential import Verdict
from lenet5.errors import InputError
from lenet5.recipe import Recipe

REPLAYS = 1000
_LONGEST = LOOKS[-1].blocks
_LEAST_POOL = 3 * _LONGEST // 2


@dataclass(frozen=True)
class Replays:
    """What came out of runs drawn from two sets of seeds.

    Attributes:
        pool: seeds that were trained on each side.
        beside: whether they are the same seeds, as against a baseline environment; or others, as
            against a reference.
        paired: whether they are compared one by one.
        loss_points: accuracy lost by the candidate over all of them, in percentage points.
        deviation_points: standard deviation of that loss between seeds.
        counts: of runs by verdict.
        mean_seeds: that a verdict took, or the run had.
    """

    pool: int
    beside: bool
    paired: bool
    loss_points: float
    deviation_points: float
    counts: Mapping[Verdict, int]
    mean_seeds: float


def replay(
    baseline: Trainings, candidate: Trainings, *, margin_points: float, replays: int, seed: int
) -> Replays:
    """Draws runs of twenty seeds with replacement, and decides each as a comparison would.

    With it, or a run of 20 out of 40 seeds would scatter by 0.7 of what a run of new seeds does.
    Where the files have no seed in common, a run also draws a reference from the baseline, of as
    many seeds as its recipe's has, and the two are held against each other as with a reference
    whose seeds are no pairs.

    Args:
        baseline: seeds of the one side.
        candidate: the same seeds of the other, or none of them.
        margin_points: percentage points of accuracy that may be lost.
        replays: runs to draw.
        seed: of the draws.

    Raises:
        InputError: either side has fewer than 30 seeds, or of some that are common fewer than 30
            are, so that runs would be much the same; or the two were trained on other images, or
            by other code.
    """
    for what, one, other in (
        ("images", baseline.split, candidate.split),
        ("code", baseline.code, candidate.code),
        ("engines", baseline.engine, candidate.engine),
    ):
        if one != other:
            raise InputError(f"the two files are of unlike {what}")
    theirs, ours, beside = _pools(baseline, candidate)
    terms = Comparison(margin_points, beside and pairs_seeds(baseline.engine), beside)
    random = np.random.RandomState(seed)
    counts = dict.fromkeys(Verdict, 0)
    seeds = 0
    drawn = _LONGEST if beside else reference_seeds(baseline.recipe.name)
    for _ in range(replays):
        places = random.randint(len(ours), size=_LONGEST)
        others = places if terms.paired else random.randint(len(theirs), size=drawn)
        run = [ours[place] for place in places], [theirs[place] for place in others]
        verdict, taken = _decide(*run, candidate.recipe, terms)
        counts[verdict] += 1
        seeds += taken
    our_loss, their_loss = (
        np.array([100 * (1 - trained.accuracy) for trained in side]) for side in (ours, theirs)
    )
    variance = (
        np.var(our_loss - their_loss, ddof=1)
        if terms.paired
        else np.var(our_loss, ddof=1) + np.var(their_loss, ddof=1)
    )
    return Replays(
        min(len(ours), len(theirs)),
        beside,
        terms.paired,
        float(np.mean(our_loss) - np.mean(their_loss)),
        float(np.sqrt(variance)),
        counts,
        seeds / replays,
    )


def _pools(
    baseline: Trainings, candidate: Trainings
) -> tuple[Sequence[Trained], Sequence[Trained], bool]:
    """Seeds of the baseline and the candidate to draw from, and whether they are the same."""
    ours = {trained.seed: trained for trained in candidate.seeds}
    pairs = [(base, ours[base.seed]) for base in baseline.seeds if base.seed in ours]
    if pairs:
        sides = [base for base, _ in pairs], [other for _, other in pairs]
    else:
        sides = list(baseline.seeds), list(candidate.seeds)
    if (fewest := min(map(len, sides))) < _LEAST_POOL:
        told = f"{fewest} seeds are common to both files" if pairs else f"a file has {fewest} seeds"
        raise InputError(
            f"{told}, {_LEAST_POOL} are needed: python -m bench reference --seeds N --out FILE"
        )
    return *sides, bool(pairs)


def _decide(
    ours: Sequence[Trained],
    theirs: Sequence[Trained],
    recipe: Recipe,
    terms: Comparison,
) -> tuple[Verdict, int]:
    """The verdict of a run that ends at the look that decides it, and that look's seeds."""
    for look in LOOKS:
        taken = ours[: look.blocks]
        others = theirs[: look.blocks] if terms.beside else theirs
        decision = decide_accuracy(
            taken,
            others,
            recipe,
            terms.margin_points,
            paired=terms.paired,
            beside=terms.beside,
        )
        if decision.verdict is not Verdict.INCONCLUSIVE:
            break
    return decision.verdict, len(taken)
