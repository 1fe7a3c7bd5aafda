"""Error rates of accuracy verdicts: runs of up to 20 seeds, resampled from many trained seeds.

`bench.verdicts.speed_error_rates` does the same for speed. The truth about the two files of
trainings is known: a recipe is compared with itself, or with a degraded recipe.
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
    """Result of runs drawn from two sets of seeds.

    Attributes:
        pool: number of seeds trained on each side.
        beside: True for the same seeds on both sides, as with a baseline environment; False for
            different seeds, as with a reference.
        paired: whether seeds are compared one by one.
        loss_points: accuracy lost by the candidate over all seeds, in percentage points.
        deviation_points: standard deviation of that loss between seeds.
        counts: number of runs by verdict.
        mean_seeds: mean number of seeds per run, up to its verdict or its end.
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
    """Draws runs of 20 seeds with replacement and decides each like a comparison.

    Without replacement, a run of 20 out of 40 seeds would have 0.7 times the scatter of a run
    of new seeds. If the files have no common seed, each run also draws a reference from the
    baseline, with the number of seeds of its recipe's reference. The test is then unpaired.

    Args:
        baseline: seeds of the baseline.
        candidate: the same seeds of the candidate, or other seeds only.
        margin_points: acceptable loss of accuracy, in percentage points.
        replays: number of runs to draw.
        seed: seed of the draws.

    Raises:
        InputError: A side has fewer than 30 seeds, or the files have some common seeds but
            fewer than 30, so that runs would hardly differ; or the files differ in images,
            code or engine.
    """
    for what, one, other in (
        ("images", baseline.split, candidate.split),
        ("code", baseline.code, candidate.code),
        ("engines", baseline.engine, candidate.engine),
    ):
        if one != other:
            raise InputError(f"the two files differ in {what}")
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
    """Seeds of the baseline and of the candidate to draw from, and whether they are common."""
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
    """Verdict of a run that ends at its deciding look, and the seeds of that look."""
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
