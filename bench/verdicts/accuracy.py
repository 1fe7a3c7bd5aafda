"""Accuracy verdicts: one-sided t tests over seeds, at fixed looks.

The seed is the unit of statistics; its figure is the number of wrong test images, which are fixed.
If seeds are pairs (`pairs_seeds`), a paired t test compares the candidate with the baseline
environment or the stored reference. Otherwise a two-sample t test with pooled variance compares
them. PASS rejects "worse by the margin or more"; FAIL rejects "worse by the margin or less".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from bench.records.sides import ON_CPU, device_of, in_one_line
from bench.records.trainings import Comparison, Trained, Trainings, differs
from bench.verdicts.sequential import Look, Verdict, detectable_shift
from lenet5.recipe import Recipe

LOOKS = (Look(10, 0.015), Look(16, 0.005), Look(20, 0.005))  # at numbers of seeds
# Simulated with independent sides: an equal candidate is PASS in over 95 % of runs of up to 20
# seeds, on average over references of 10 or 20 seeds. The share applies to comparisons with a
# reference and with a baseline, paired or not.
_MARGIN_DEVIATIONS = 1.5
_DEVIATION_CONFIDENCE = 0.8
_LEAST_SURPRISE = 0.003  # accuracy above the reference's mean that is too good, at least
_DEVIATIONS = 6.0


@dataclass(frozen=True)
class AccuracyDecision:
    """Verdict on a candidate's accuracy, with its figures in percentage points.

    Attributes:
        verdict: PASS, FAIL or INCONCLUSIVE.
        reason: short reason for a verdict without a test, such as `identical`, `diverged`,
            `fails` or `too good`.
        seeds: number of seeds behind the verdict.
        difference: accuracy lost by the candidate, in percentage points; NaN without a seed.
        low: lower end of the interval, of 95 % before the first look; NaN below 2 seeds.
        high: upper end of the interval.
        confidence: confidence of the interval, 0 to 1.
        detectable: smallest loss that this comparison calls FAIL with 80 % power, given its
            looks, margin, kind of test and measured standard deviation; NaN below 2 seeds.
        margin: largest acceptable loss.
    """

    verdict: Verdict
    reason: str
    seeds: int
    difference: float
    low: float
    high: float
    confidence: float
    detectable: float
    margin: float


def pairs_seeds(engine: str) -> bool:
    """Returns whether the same seed of two environments is a pair.

    The engine `graph` pairs seeds: it keys every random number by seed and step, so both sides
    share batches and masks whenever they were trained. Keras's random streams may differ
    between versions.
    """
    return engine == "graph"


def decide_accuracy(
    candidate: Sequence[Trained],
    baseline: Sequence[Trained],
    recipe: Recipe,
    margin_points: float,
    *,
    paired: bool,
    beside: bool | None = None,
    most_seeds: int = LOOKS[-1].blocks,
) -> AccuracyDecision:
    """Returns the verdict on the seeds so far.

    Args:
        candidate: the candidate's seeds, in the order of the list of seeds.
        baseline: the same seeds of the baseline, or all seeds of a reference.
        recipe: recipe whose lower bound defines "diverged" and whose upper bound limits
            "too good".
        margin_points: acceptable loss of accuracy, in percentage points.
        paired: whether the test compares the common seeds one by one.
        beside: whether the baseline's seeds are trained in the same comparison, as many at each
            look, and are no stored reference; default: `paired`.
        most_seeds: maximum number of seeds of each side, which bounds the looks for the
            detectable loss.
    """
    beside = paired if beside is None else beside
    if beside:  # the baseline's later seeds, trained for other candidates, do not count
        looks = (look.blocks for look in LOOKS if look.blocks >= len(candidate))
        baseline = baseline[: next(looks, len(baseline))]
    fault = next((trained for trained in baseline if trained.wrong is None), None)
    if fault is not None:
        told = f"the baseline fails: seed {fault.seed} {fault.problem or 'diverged'}"
        return AccuracyDecision(Verdict.INCONCLUSIVE, told, 0, *5 * (math.nan,), margin_points)
    reference = baseline  # the checks for "too good" and for a sound reference use all its seeds
    if paired:
        common = {t.seed for t in candidate} & {t.seed for t in baseline}
        candidate = [trained for trained in candidate if trained.seed in common]
        baseline = [trained for trained in baseline if trained.seed in common]
        reference = baseline if beside else reference
    surprise = _surprise(candidate, reference, recipe, beside=beside)
    reason, verdict = surprise, Verdict.FAIL if surprise else Verdict.INCONCLUSIVE
    test = _Test(math.nan, math.nan, math.nan, 1.0, 0)
    for look in LOOKS:
        if len(candidate) < look.blocks or verdict is not Verdict.INCONCLUSIVE:
            break
        others = baseline[: look.blocks] if beside or paired else baseline
        test = _test(candidate[: look.blocks], others, look.alpha, paired=paired)
        if paired and all(a.wrong == b.wrong for a, b in zip(candidate, others, strict=False)):
            verdict, reason = Verdict.PASS, "identical"
        elif test.low > margin_points:
            verdict = Verdict.FAIL
        elif test.high < margin_points:
            verdict = Verdict.PASS
    if not test.seeds:  # no look was reached, or a seed alone decided
        test = _test(candidate, baseline, 0.025, paired=paired)
    low = next((trained for trained in reference if trained.accuracy < recipe.min_accuracy), None)
    if low is not None and verdict is Verdict.PASS:
        verdict, reason = Verdict.INCONCLUSIVE, f"the baseline's seed {low.seed} is below the floor"
    return AccuracyDecision(
        verdict,
        reason,
        test.seeds,
        test.difference,
        test.low,
        test.high,
        1 - 2 * test.alpha,
        margin_points + _beyond_margin(test, len(baseline), most_seeds, paired, beside),
        margin_points,
    )


def margin_points(reference: Sequence[Trained]) -> float:
    """Returns the default margin, in percentage points.

    The margin is 1.5 times the standard deviation between the reference's seeds, rounded up to
    0.01: about the least that 20 seeds can prove. So few seeds estimate the deviation badly;
    its upper confidence bound of 80 % is therefore used (normal seeds). The bound is
    sqrt((n - 1) / chi2_0.2) times the estimate: 1.18 times for 20 seeds, 1.29 times for 10.
    """
    percent = [100 * trained.accuracy for trained in reference]
    freedom = len(percent) - 1
    bound = math.sqrt(freedom / float(stats.chi2.ppf(1 - _DEVIATION_CONFIDENCE, freedom)))
    hundredths = 100 * _MARGIN_DEVIATIONS * bound * float(np.std(percent, ddof=1))
    return max(math.ceil(round(hundredths, 6)), 1) / 100


def too_good(reference: Sequence[Trained]) -> float:
    """Returns the accuracy in [0, 1] that indicates a broken evaluation or a leak.

    It is the mean of the reference plus 0.3 points or 6 standard deviations, the larger of both.
    """
    accuracies = [trained.accuracy for trained in reference]
    deviation = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    return float(np.mean(accuracies)) + max(_LEAST_SURPRISE, _DEVIATIONS * deviation)


@dataclass(frozen=True)
class _Test:
    """A difference in points with its bounds at a level, and its number of seeds."""

    difference: float
    low: float
    high: float
    alpha: float
    seeds: int
    deviation: float = math.nan


def _surprise(
    candidate: Sequence[Trained], baseline: Sequence[Trained], recipe: Recipe, *, beside: bool
) -> str:
    """Reason for FAIL without a test: accuracy below the recipe's floor, or too good."""
    floor = recipe.min_accuracy
    low = {trained.seed for trained in baseline if trained.accuracy < floor} if beside else set()
    for trained in candidate:
        excused = trained.wrong is not None and trained.seed in low
        if trained.accuracy < floor and not excused:
            told = trained.problem or f"reached {100 * trained.accuracy:.2f} %"
            return f"{'fails' if trained.crashed else 'diverged'}: seed {trained.seed} {told}"
    if candidate and len(baseline) > 1:
        most = min(too_good(baseline), recipe.max_accuracy)
        for trained in candidate:
            if trained.accuracy > most:
                return f"too good: seed {trained.seed} reached {100 * trained.accuracy:.2f} %"
    return ""


# scipy.stats.ttest_rel and ttest_ind take up to four times as long, warn of equal differences and
# of single seeds, and keep no pooled standard deviation. Unit tests compare the results.
def _test(
    candidate: Sequence[Trained], baseline: Sequence[Trained], alpha: float, *, paired: bool
) -> _Test:
    if paired:
        both = [(a, b) for a, b in zip(candidate, baseline, strict=False) if a.wrong is not None]
        candidate, baseline = [a for a, _ in both], [b for _, b in both]
    ours, theirs = (
        np.array([100 * (1 - trained.accuracy) for trained in side if trained.wrong is not None])
        for side in (candidate, baseline)
    )
    if len(ours) == 0 or len(theirs) == 0:
        return _Test(math.nan, math.nan, math.nan, alpha, 0)
    difference = float(ours.mean() - theirs.mean())
    if paired:
        freedom = len(ours) - 1
        deviation = float(np.std(ours - theirs, ddof=1)) if freedom else math.nan
        error = deviation / math.sqrt(len(ours))
    else:
        freedom = len(ours) + len(theirs) - 2
        squares = ((ours - ours.mean()) ** 2).sum() + ((theirs - theirs.mean()) ** 2).sum()
        deviation = math.sqrt(squares / freedom) if freedom else math.nan
        error = deviation * math.sqrt(1 / len(ours) + 1 / len(theirs))
    reach = float(stats.t.isf(alpha, freedom)) * error if freedom else math.nan
    return _Test(difference, difference - reach, difference + reach, alpha, len(ours), deviation)


def _beyond_margin(test: _Test, others: int, most_seeds: int, paired: bool, beside: bool) -> float:
    """Distance beyond the margin at which a loss is FAIL with 80 % power (`detectable_shift`)."""
    if math.isnan(test.deviation):
        return math.nan
    looks = tuple(look for look in LOOKS if look.blocks <= most_seeds)
    sizes = () if paired else tuple(look.blocks if beside else others for look in looks)
    return detectable_shift(looks, others=sizes) * test.deviation


def decide_all(sets: Sequence[Trainings], terms: Comparison) -> list[AccuracyDecision]:
    """Returns each candidate's verdict; INCONCLUSIVE if the reference does not match."""
    baseline, *candidates = sets
    decisions = []
    for candidate in candidates:
        decision = decide_accuracy(
            candidate.seeds,
            baseline.seeds,
            candidate.recipe,
            terms.margin_points,
            paired=terms.paired,
            beside=terms.beside,
            most_seeds=terms.seeds,
        )
        reason = baseline.problem or candidate.problem or differs(baseline, candidate)
        if reason:
            told = in_one_line(reason)
            decision = replace(decision, verdict=Verdict.INCONCLUSIVE, reason=told)
        decisions.append(decision)
    return decisions


def finding(
    decision: AccuracyDecision, candidate: Trainings, baseline: Trainings, *, paired: bool
) -> str:
    """Returns a decision's sentence: `accuracy[fast]: 2.21.0 loses 0.02 points against …`."""
    said = _sentence(decision, candidate, baseline, paired=paired)
    return "; ".join([said, *_second_tries(candidate), *_second_tries(baseline)])


def _second_tries(trainings: Trainings) -> list[str]:
    """Notes on retried seeds: `seed 3 of 2.21.0 succeeded on the second try …`.

    A retry does not affect the verdict, but occasional crashes of a version show here.
    """
    return [
        f"seed {trained.seed} of {trainings.side.label} succeeded on the second try: "
        f"{in_one_line(trained.retried)}"
        for trained in trainings.seeds
        if trained.retried and not trained.crashed
    ]


def _sentence(
    decision: AccuracyDecision, candidate: Trainings, baseline: Trainings, *, paired: bool
) -> str:
    d = decision
    text = f"accuracy[{candidate.recipe.name}]: {candidate.side.label}"
    others = baseline.side.label
    if not d.seeds:
        return f"{text} against {others}: {d.reason or 'nothing was trained'}"
    change = "loses" if d.difference >= 0 else "gains"
    text = f"{text} {change} {abs(d.difference):.3f} points against {others}"
    seeds = f"{d.seeds} seeds, {'paired' if paired else 'unpaired'}, engine {candidate.engine}"
    seeds = ", ".join([seeds, *_devices(candidate, baseline)])
    if d.reason:
        return f"{text} ({seeds}): {d.reason}"
    basis = (
        f"{100 * d.confidence:.4g} % interval of the loss {d.low:+.3f} to {d.high:+.3f}, {seeds}"
    )
    return f"{text} ({basis}), margin {d.margin:g}, detects {d.detectable:.3f}"


def _devices(candidate: Trainings, baseline: Trainings) -> list[str]:
    """Returns the devices of both sides in words; empty if both are the CPU."""
    ours, theirs = device_of(candidate.machine), device_of(baseline.machine)
    if ours != theirs:
        return [f"{candidate.side.label} on {ours} and {baseline.side.label} on {theirs}"]
    return [] if ours == ON_CPU else [f"both on {ours}"]
