"""Speed verdicts: one-sided t tests over blocks, at fixed looks, FAIL corrected over workloads.

The block is the unit of statistics. Its value is the log-ratio of candidate and baseline, or their
difference for workloads without a sensible ratio. PASS rejects "value >= margin"; FAIL rejects
"value <= margin". Each look spends a share of one-sided 2.5 %, so all looks together keep that
error (Bonferroni over the looks).

Holm's procedure corrects FAIL over all gated series (Holm 1979, "A simple sequentially rejective
multiple test procedure"). The series without FAIL so far share a look's error equally. A FAIL
passes its share to the other series, at any look (Maurer and Bretz 2013, "Multiple testing in group
sequential trials using graphical approaches"). PASS needs no correction, since a suite passes only
if every workload does.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import groupby
from typing import TypeVar

import numpy as np
from scipy import special, stats

_MOST_PAIRS_UNTRIMMED = 9
_TRIM = 0.2
_POWER = 0.8
_DRAWS = 20_000  # standard error of a power: 0.3 %

Key = TypeVar("Key", bound=Hashable)


class Verdict(str, Enum):
    """Verdict of a comparison."""

    PASS = "PASS"  # noqa: S105 - not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class Change(str, Enum):
    """Proven difference of a series from "equal", within the margin or beyond it."""

    NONE = ""
    WORSE = "worse"
    BETTER = "better"


@dataclass(frozen=True)
class Look:
    """A number of blocks that allows a verdict, and the one-sided error spent there."""

    blocks: int
    alpha: float


LOOKS = (
    Look(4, 0.008),
    Look(6, 0.005),
    Look(8, 0.004),
    Look(12, 0.003),
    Look(16, 0.003),
    Look(24, 0.002),
)


@dataclass(frozen=True)
class Series:
    """Values of a workload, one per block.

    Attributes:
        values: log-ratios or differences, in the order of measurement.
        margin: margin on the same scale: its log, or the difference itself.
        floor: lower bound of the standard deviation, from the clock's resolution; above 0.
        gated: whether the series takes part in the correction of FAIL.
        moments: time of each value, ascending integers on a scale common to all series. If empty,
            the first values of all series share a time, then the second values, and so on.
    """

    values: Sequence[float]
    margin: float
    floor: float
    gated: bool = True
    moments: Sequence[int] = ()


@dataclass(frozen=True)
class Outcome:
    """Test results of a series at its deciding look, or else at its last look.

    Attributes:
        verdict: INCONCLUSIVE if no look decided or none was reached.
        blocks: number of blocks used: the look's, or all blocks before the first look.
        mean: mean of the values used; NaN without values.
        deviation: standard deviation of the values used, at least the floor; NaN below 2 blocks.
        low: one-sided lower bound at `alpha_fail`; above the margin exactly if FAIL.
        high: one-sided upper bound at `alpha_pass`; below the margin exactly if PASS.
        alpha_fail: level of the test for FAIL, after Holm's correction.
        alpha_pass: level of the test for PASS.
    """

    verdict: Verdict
    blocks: int
    mean: float
    deviation: float
    low: float = -math.inf
    high: float = math.inf
    alpha_fail: float = 0.0
    alpha_pass: float = 0.0

    @property
    def confidence(self) -> float:
        """Confidence of the interval from `low` to `high`, 0 to 1."""
        return 1 - self.alpha_fail - self.alpha_pass


def block_value(log_ratios: Sequence[float]) -> float:
    """A block's value: the mean of its pairs without the outer fifths; below 10 pairs the mean."""
    values = np.asarray(log_ratios, np.float64)
    if len(values) <= _MOST_PAIRS_UNTRIMMED:
        return float(values.mean())
    return float(stats.trim_mean(values, _TRIM))


def assess(series: Mapping[Key, Series], looks: Sequence[Look] = LOOKS) -> dict[Key, Outcome]:
    """Takes every look that the values allow, in the order in which the series reached them.

    At each such time, Holm's procedure tests the undecided gated series for FAIL, each at its
    last look. Its hypotheses are all gated series without FAIL so far. Later values, of this or
    another series, never change a verdict. The outcome of all values therefore equals the
    outcome of a run with a test after each value.

    Args:
        series: series by workload; a workload decided at an early look may have no later blocks.
        looks: looks in ascending order of blocks.

    Returns:
        Outcome by workload.
    """
    outcomes = {name: _before_any_look(item) for name, item in series.items()}
    hypotheses = sum(item.gated for item in series.values())
    undecided: dict[Key, _AtLook] = {}
    for arrivals in _arrivals(series, looks):
        for name, look in arrivals:
            if outcomes[name].verdict is Verdict.INCONCLUSIVE:
                undecided[name] = _at_look(series[name], look)
        scores = {name: at.score for name, at in undecided.items() if series[name].gated}
        shares = _holm(scores, hypotheses)
        for name, at in list(undecided.items()):
            level = at.look.alpha * shares.get(name, 1.0)  # no correction for informational series
            if (outcomes[name].blocks, outcomes[name].alpha_fail) == (at.look.blocks, level):
                continue
            outcomes[name] = _outcome(at, level, series[name].margin)
            if outcomes[name].verdict is not Verdict.INCONCLUSIVE:
                del undecided[name]
                hypotheses -= series[name].gated and outcomes[name].verdict is Verdict.FAIL
    return outcomes


def proven_changes(outcomes: Mapping[Key, Outcome]) -> dict[Key, Change]:
    """Finds the series that are worse or better than equal, corrected over all series.

    Holm's procedure tests the two-sided hypotheses "the mean is 0", each at twice the error of
    its outcome's look. The probability of any false change in a table, over all looks of all
    series, is at most 5 %. A series before its first look counts as a hypothesis. A change also
    requires an interval that excludes 0. An interval may exclude 0 without a change, since its
    correction is weaker.
    """
    looked = {name: o for name, o in outcomes.items() if o.alpha_pass > 0}
    scores = {
        name: _p_of_fail(abs(o.mean), o.deviation, o.blocks, 0.0) / o.alpha_pass
        for name, o in looked.items()
    }
    shares = _holm(scores, len(outcomes))
    found = dict.fromkeys(outcomes, Change.NONE)
    for name, outcome in looked.items():
        if scores[name] < shares[name] and not outcome.low <= 0 <= outcome.high:
            found[name] = Change.WORSE if outcome.low > 0 else Change.BETTER
    return found


@cache
def detectable_shift(
    looks: tuple[Look, ...], share: float = 1.0, others: tuple[int, ...] = ()
) -> float:
    """Least shift beyond the margin with 80 % power for FAIL, in standard deviations.

    A look calls FAIL if mean - t * s * sqrt(1 / n) > margin, with Student's t at its level. Take
    normal values with the true mean margin + shift * sigma, and the minimum over the looks of
    t * s * sqrt(1 / n) - mean for standard normal values. Some look calls FAIL exactly if the
    shift exceeds this minimum, so the power is the minimum's distribution function. The least
    shift is its 80 % quantile, estimated from 20,000 drawn series (fixed seed). For one look it
    equals the quantile of the noncentral t distribution.

    Args:
        looks: affordable looks in ascending order; the result is NaN without looks.
        share: share of each look's error. Holm's procedure starts with one over the number of
            gated hypotheses and raises it after each FAIL; the first share is conservative.
        others: size of the second sample at each look, for pooled two-sample tests.
    """
    if not looks:
        return math.nan
    least = np.full(_DRAWS, np.inf)
    for place, look in enumerate(looks):
        mean, squares = _drawn_moments(look.blocks, 0)
        freedom, scale = look.blocks - 1, 1 / look.blocks
        if others:
            other_mean, other_squares = _drawn_moments(others[place], 1)
            mean, squares = mean - other_mean, squares + other_squares
            freedom, scale = freedom + others[place] - 1, scale + 1 / others[place]
        t = -float(special.stdtrit(freedom, share * look.alpha))
        np.minimum(least, t * np.sqrt(squares * (scale / freedom)) - mean, out=least)
    return float(np.quantile(least, _POWER))


@cache
def _drawn_moments(values: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and sums of squared deviations of the first values of every drawn series.

    More values extend the same series.
    """
    drawn = np.random.RandomState(stream).standard_normal((values, _DRAWS))
    return drawn.mean(axis=0), values * drawn.var(axis=0)


def blocks_to_decide(
    outcome: Outcome, margin: float, measured: int = 0, looks: Sequence[Look] = LOOKS
) -> int | None:
    """Predicts the look that decides with a probability of 80 %, in blocks.

    The prediction keeps the mean, the deviation and the outcome's correction of FAIL.

    Args:
        outcome: outcome of the blocks so far.
        margin: margin on the scale of the outcome's mean.
        measured: number of measured blocks, possibly more than the outcome used.
        looks: looks in ascending order of blocks.

    Returns:
        A number of blocks above `measured`; None if no remaining look would decide, or if the
        deviation is unknown.
    """
    share = 1.0
    if outcome.mean > margin and outcome.alpha_pass > 0:
        share = outcome.alpha_fail / outcome.alpha_pass
    for look in looks:
        if look.blocks <= max(measured, outcome.blocks):
            continue
        error = outcome.deviation / math.sqrt(look.blocks)
        if _multiplier(share * look.alpha, look.blocks) * error <= abs(outcome.mean - margin):
            return look.blocks
    return None


def _before_any_look(item: Series) -> Outcome:
    mean, deviation = _moments(item.values, item.floor)
    return Outcome(Verdict.INCONCLUSIVE, len(item.values), mean, deviation)


def _moments(values: Sequence[float], floor: float) -> tuple[float, float]:
    array = np.asarray(values, np.float64)
    mean = float(array.mean()) if len(array) else math.nan
    return mean, max(float(array.std(ddof=1)), floor) if len(array) > 1 else math.nan


@dataclass(frozen=True)
class _AtLook:
    """A series at its last look; the score is the p-value of FAIL over alpha."""

    look: Look
    mean: float
    deviation: float
    score: float


def _at_look(item: Series, look: Look) -> _AtLook:
    mean, deviation = _moments(item.values[: look.blocks], item.floor)
    p_value = _p_of_fail(mean, deviation, look.blocks, item.margin)
    return _AtLook(look, mean, deviation, p_value / look.alpha)


def _arrivals(
    series: Mapping[Key, Series], looks: Sequence[Look]
) -> Iterator[list[tuple[Key, Look]]]:
    """Yields, in order of time, the series that reach a look at the same time, with the look."""
    found = [
        ((item.moments or range(look.blocks))[look.blocks - 1], name, look)
        for name, item in series.items()
        for look in looks
        if len(item.values) >= look.blocks
    ]
    found.sort(key=lambda arrival: arrival[0])
    for _, arrivals in groupby(found, key=lambda arrival: arrival[0]):
        yield [(name, look) for _, name, look in arrivals]


# scipy.stats.ttest_1samp has no floor of the deviation and no level per side; scipy.stats.t takes
# thirty times as long as these functions.
def _p_of_fail(mean: float, deviation: float, blocks: int, margin: float) -> float:
    return float(special.stdtr(blocks - 1, (margin - mean) / deviation * math.sqrt(blocks)))


def _t_quantile(alpha: float, blocks: int) -> float:
    """Student's t with exceedance probability alpha."""
    return -float(special.stdtrit(blocks - 1, alpha))


def _holm(scores: Mapping[Key, float], hypotheses: int) -> dict[Key, float]:
    """Share of its error for each hypothesis; a hypothesis with a lower score is rejected.

    All hypotheses after the first one that is not rejected get the same share. `hypotheses`
    counts all hypotheses that are not rejected yet, including those without a score.
    """
    shares = {}
    for name in sorted(scores, key=lambda name: scores[name]):
        shares[name] = 1 / max(hypotheses, 1)
        hypotheses -= scores[name] < shares[name]
    return shares


def _outcome(at: _AtLook, alpha_fail: float, margin: float) -> Outcome:
    blocks, alpha = at.look.blocks, at.look.alpha
    error = at.deviation / math.sqrt(blocks)
    low = at.mean - _t_quantile(alpha_fail, blocks) * error
    high = at.mean + _t_quantile(alpha, blocks) * error
    verdict = Verdict.INCONCLUSIVE
    if low > margin:
        verdict = Verdict.FAIL
    elif high < margin:
        verdict = Verdict.PASS
    return Outcome(verdict, blocks, at.mean, at.deviation, low, high, alpha_fail, alpha)


def _multiplier(alpha: float, blocks: int) -> float:
    return _t_quantile(alpha, blocks) + _t_quantile(0.2, blocks)
