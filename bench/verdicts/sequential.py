"""Speed verdicts: one-sided t tests over blocks, at fixed looks, FAIL corrected over workloads.

The block is the unit of statistics; its value is the log of candidate over baseline (or their
difference, where a ratio makes no sense). PASS rejects "value >= margin" and FAIL rejects "value
<= margin". Each look spends a share of one-sided 2.5 %, so that all looks together err no more
often than one would (Bonferroni over the looks). FAIL is corrected over all gated series by Holm's
procedure (Holm 1979, "A simple sequentially rejective multiple test procedure"): a look's error is
shared equally by those that have not failed yet, and a FAIL gives its share to the others, whatever
looks these are at (Maurer and Bretz 2013, "Multiple testing in group sequential trials using
graphical approaches"). PASS needs no correction, since a suite passes only if every workload does.
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
_DRAWS = 20_000  # the standard error of a power is then 0.3 %

Key = TypeVar("Key", bound=Hashable)


class Verdict(str, Enum):
    """What a comparison came to."""

    PASS = "PASS"  # noqa: S105 - not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class Change(str, Enum):
    """What a series is proven to be, compared with "equal", within the margin or beyond it."""

    NONE = ""
    WORSE = "worse"
    BETTER = "better"


@dataclass(frozen=True)
class Look:
    """A number of blocks at which a verdict may fall, and the one-sided error that it spends."""

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
    """A workload's values, one a block.

    Attributes:
        values: log-ratios, or differences, in the order of measuring.
        margin: on the same scale: log of the margin, or the difference itself.
        floor: least standard deviation that is believed, from the clock's resolution; above 0.
        gated: whether FAIL is corrected together with the other gated ones.
        moments: when each value came, ascending integers on a scale that all series share; empty:
            the first values of all series came together, then the second ones, and so on.
    """

    values: Sequence[float]
    margin: float
    floor: float
    gated: bool = True
    moments: Sequence[int] = ()


@dataclass(frozen=True)
class Outcome:
    """What the tests of a series came to, at the look that decided it or else the last one.

    Attributes:
        verdict: INCONCLUSIVE where no look decided, or none was reached.
        blocks: that were used: the look's number, or all where no look was reached.
        mean: of the values used; NaN without any.
        deviation: their standard deviation, not below the floor; NaN below 2 blocks.
        low: one-sided lower bound at `alpha_fail`; above the margin exactly when FAIL.
        high: one-sided upper bound at `alpha_pass`; below the margin exactly when PASS.
        alpha_fail: level that FAIL was tested at, after Holm's correction.
        alpha_pass: level that PASS was tested at.
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
        """Of the interval from `low` to `high`, 0 to 1."""
        return 1 - self.alpha_fail - self.alpha_pass


def block_value(log_ratios: Sequence[float]) -> float:
    """A block's value: its pairs' mean without the outer fifths, the plain mean below 10 pairs."""
    values = np.asarray(log_ratios, np.float64)
    if len(values) <= _MOST_PAIRS_UNTRIMMED:
        return float(values.mean())
    return float(stats.trim_mean(values, _TRIM))


def assess(series: Mapping[Key, Series], looks: Sequence[Look] = LOOKS) -> dict[Key, Outcome]:
    """Takes every look that the values allow, in the order in which the series reached them.

    At each such moment the gated series that are undecided are tested for FAIL by Holm's procedure,
    each at the last look that it reached. All gated ones that have not failed yet are counted. A
    verdict never changes when values come later, of this series or of others: the outcome of all
    values is that of a run that asked after each of them.

    Args:
        series: by workload; one that was decided at an early look may have no later blocks.
        looks: in ascending order of blocks.

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
            level = at.look.alpha * shares.get(name, 1.0)  # an informational one is not corrected
            if (outcomes[name].blocks, outcomes[name].alpha_fail) == (at.look.blocks, level):
                continue
            outcomes[name] = _outcome(at, level, series[name].margin)
            if outcomes[name].verdict is not Verdict.INCONCLUSIVE:
                del undecided[name]
                hypotheses -= series[name].gated and outcomes[name].verdict is Verdict.FAIL
    return outcomes


def proven_changes(outcomes: Mapping[Key, Outcome]) -> dict[Key, Change]:
    """Which series are worse or better than equal, corrected over all of them.

    Holm's procedure on the two-sided hypotheses "the mean is 0", each at twice the error of the
    look that its outcome is of. All looks of all series together name a change where there is none
    in at most 5 % of tables. A series before its first look counts as a hypothesis. A change is
    named only where the outcome's interval excludes 0 too; an interval may exclude 0 without one,
    since it is corrected less.
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
    """The least distance beyond the margin that is FAIL with 80 % power, in standard deviations.

    A look calls FAIL if mean - t * s * sqrt(1 / n) > margin, with Student's t at its level. For
    normal values with the true mean margin + shift * sigma, some look does exactly if the shift is
    above the least of t * s * sqrt(1 / n) - mean over the looks, all of standard normal values. So
    the power of a shift is the distribution function of that minimum, and the least shift its 80 %
    quantile; it is taken from 20,000 drawn series (fixed seed). For one look this is the quantile
    of the noncentral t distribution.

    Args:
        looks: that are reached if none decides before, in ascending order; none: NaN.
        share: of each look's error. Holm's procedure begins with one over the gated hypotheses and
            goes on with more where others fail, so that the first is the conservative one.
        others: for pooled two-sample tests, the size of the second sample at each look.
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
    """Means and sums of squares about them of the first values of every drawn series."""
    drawn = np.random.RandomState(stream).standard_normal((values, _DRAWS))  # more begin as fewer
    return drawn.mean(axis=0), values * drawn.var(axis=0)


def blocks_to_decide(
    outcome: Outcome, margin: float, measured: int = 0, looks: Sequence[Look] = LOOKS
) -> int | None:
    """Blocks of the look at which a verdict would probably (80 %) fall.

    If mean and deviation stay, and FAIL is corrected as at the outcome's look.

    Args:
        outcome: of the blocks so far.
        margin: on the scale of its mean.
        measured: blocks that there are, which may be more than the outcome used.
        looks: in ascending order of blocks.

    Returns:
        More than are measured; None if it would fall at no look that is left, or if nothing is
        known of the deviation.
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
    """A series at the last look that it reached; its score is the p-value of FAIL over alpha."""

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
    """Moment by moment, the series that reach a look then, with the look."""
    found = [
        ((item.moments or range(look.blocks))[look.blocks - 1], name, look)
        for name, item in series.items()
        for look in looks
        if len(item.values) >= look.blocks
    ]
    found.sort(key=lambda arrival: arrival[0])
    for _, arrivals in groupby(found, key=lambda arrival: arrival[0]):
        yield [(name, look) for _, name, look in arrivals]


# scipy.stats.ttest_1samp knows no floor of the deviation and no level a side, and scipy.stats.t
# takes thirty times as long as these.
def _p_of_fail(mean: float, deviation: float, blocks: int, margin: float) -> float:
    return float(special.stdtr(blocks - 1, (margin - mean) / deviation * math.sqrt(blocks)))


def _t_quantile(alpha: float, blocks: int) -> float:
    """Student's t that is exceeded with probability alpha."""
    return -float(special.stdtrit(blocks - 1, alpha))


def _holm(scores: Mapping[Key, float], hypotheses: int) -> dict[Key, float]:
    """The share of its error that each is tested at; rejected if its score is below.

    From the first that is not rejected on it stays the same. `hypotheses` counts those that are
    not rejected yet, also those without a score.
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
