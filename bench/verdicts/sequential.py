"""Speed verdicts: one-sided t tests over blocks, at fixed looks, FAIL corrected over workloads.

The block is the unit of statistics; its value is the log of candidate over baseline (or their
difference, where a ratio makes no sense). PASS rejects "value >= margin" and FAIL rejects "value
<= margin". Each look spends a share of one-sided 2.5 %, so that all looks together err no more
often than one would (Bonferroni over the looks). FAIL is corrected over the gated workloads by
Holm's procedure (Holm 1979, "A simple sequentially rejective multiple test procedure"); PASS needs
no correction, since a suite passes only if every workload does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy import special, stats

_MOST_PAIRS_UNTRIMMED = 9
_TRIM = 0.2


class Verdict(str, Enum):
    """What a comparison came to."""

    PASS = "PASS"  # noqa: S105 - not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


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
    """

    values: Sequence[float]
    margin: float
    floor: float
    gated: bool = True


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


def assess(series: Mapping[str, Series], looks: Sequence[Look] = LOOKS) -> dict[str, Outcome]:
    """Takes every look that the blocks allow, in order; a decided series stays decided.

    Args:
        series: by workload; one that was decided at an early look may have no later blocks.
        looks: in ascending order of blocks.

    Returns:
        Outcome by workload.
    """
    outcomes = {name: _before_any_look(item) for name, item in series.items()}
    hypotheses = sum(item.gated for item in series.values())
    for look in looks:
        at_look = {
            name: _moments(item.values[: look.blocks], item.floor)
            for name, item in series.items()
            if outcomes[name].verdict is Verdict.INCONCLUSIVE and len(item.values) >= look.blocks
        }
        failed = sum(
            item.gated and outcomes[name].verdict is Verdict.FAIL for name, item in series.items()
        )
        levels = _holm(
            {n: _p_of_fail(*at_look[n], look.blocks, series[n].margin) for n in at_look},
            {n: series[n].gated for n in at_look},
            hypotheses - failed,
            look.alpha,
        )
        for name, (mean, deviation) in at_look.items():
            outcomes[name] = _outcome(mean, deviation, look, levels[name], series[name].margin)
    return outcomes


def minimum_detectable(deviation: float, blocks: int) -> float:
    """Smallest true value that `blocks` find above 0 with 80 % power at one-sided 2.5 %.

    (t_0.975 + t_0.8) * deviation / sqrt(blocks), both quantiles with blocks - 1 degrees of
    freedom: the usual approximation of the noncentral t (Bloom 1995, "Minimum detectable
    effects"). NaN below 2 blocks.
    """
    if blocks < 2:
        return math.nan
    return _multiplier(0.025, blocks) * deviation / math.sqrt(blocks)


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


def _p_of_fail(mean: float, deviation: float, blocks: int, margin: float) -> float:
    # As scipy.stats.t.sf, which takes thirty times as long; `_t_quantile` as its isf.
    return float(special.stdtr(blocks - 1, (margin - mean) / deviation * math.sqrt(blocks)))


def _t_quantile(alpha: float, blocks: int) -> float:
    """Student's t that is exceeded with probability alpha."""
    return -float(special.stdtrit(blocks - 1, alpha))


def _holm(
    p_values: Mapping[str, float], gated: Mapping[str, bool], hypotheses: int, alpha: float
) -> dict[str, float]:
    """The level that each is tested at; from the first that is not rejected on it stays the same.

    `hypotheses` counts the gated ones that are not rejected yet, also those without a test here.
    An informational one does not count for the exit code and is tested at `alpha`.
    """
    levels = {name: alpha for name in p_values if not gated[name]}
    level = alpha / max(hypotheses, 1)
    for name in sorted((n for n in p_values if gated[n]), key=lambda n: p_values[n]):
        levels[name] = level
        if p_values[name] < level and hypotheses > 1:
            hypotheses -= 1
            level = alpha / hypotheses
    return levels


def _outcome(
    mean: float, deviation: float, look: Look, alpha_fail: float, margin: float
) -> Outcome:
    error = deviation / math.sqrt(look.blocks)
    low = mean - _t_quantile(alpha_fail, look.blocks) * error
    high = mean + _t_quantile(look.alpha, look.blocks) * error
    verdict = Verdict.INCONCLUSIVE
    if low > margin:
        verdict = Verdict.FAIL
    elif high < margin:
        verdict = Verdict.PASS
    return Outcome(verdict, look.blocks, mean, deviation, low, high, alpha_fail, look.alpha)


def _multiplier(alpha: float, blocks: int) -> float:
    return _t_quantile(alpha, blocks) + _t_quantile(0.2, blocks)
