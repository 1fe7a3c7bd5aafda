"""The detectable slowdown is called FAIL with 80 % power by the real decisions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from bench.records.sides import Side
from bench.verdicts.sequential import LOOKS, Look, Series, Verdict, assess, detectable_shift
from bench.verdicts.speed import Decision, decide
from tests.synthetic import LOOP, block_of, exactly, results_of, samples_of, terms

NAMES = (LOOP, "fit_call")
DEVIATION = 0.009


def bounds(trials: int) -> tuple[float, float]:
    """99.8 % bounds of the share in simulations with a true share of 80 %."""
    low, high = stats.binom.interval(0.998, trials, 0.8)
    return low / trials, high / trials


@pytest.mark.parametrize("look", [LOOKS[0], LOOKS[2], LOOKS[-1]], ids=lambda look: str(look.blocks))
@pytest.mark.parametrize("share", [1.0, 1 / 8])
def test_the_shift_of_one_look_is_a_noncentral_t_quantile(look: Look, share: float) -> None:
    """The exact power of a t test (scipy.stats.nct), for one series and for two pooled samples."""

    def exact(freedom: int, scale: float) -> float:
        t = stats.t.isf(share * look.alpha, freedom)
        return float(optimize.brentq(lambda d: stats.nct.sf(t, freedom, d / scale) - 0.8, 0.01, 30))

    n = look.blocks
    assert detectable_shift((look,), share) == pytest.approx(exact(n - 1, n**-0.5), rel=0.01)
    both = exact(n + 20 - 2, math.sqrt(1 / n + 1 / 20))
    assert detectable_shift((look,), share, (20,)) == pytest.approx(both, rel=0.01)


def test_more_looks_lower_the_shift_and_a_smaller_share_raises_it() -> None:
    shifts = [detectable_shift(LOOKS[:count]) for count in range(1, 7)]
    assert shifts == sorted(shifts, reverse=True)
    assert detectable_shift(LOOKS) < detectable_shift(LOOKS, 1 / 8) < detectable_shift(LOOKS, 1e-3)
    assert math.isnan(detectable_shift(()))


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("workloads", [1, 8])
def test_the_shift_fails_with_80_percent_power_at_the_available_looks(
    count: int, workloads: int
) -> None:
    """One of several gated workloads has the slowdown; only it fails, in 80 % of trials."""
    trials, blocks = 800, LOOKS[count - 1].blocks
    margin = math.log(1.03)
    shift = detectable_shift(LOOKS[:count], 1 / workloads)
    table = DEVIATION * np.random.RandomState(7).standard_normal((trials, workloads, blocks))
    table[:, 0] += margin + shift * DEVIATION
    found = 0
    for rows in table:
        outcomes = assess({n: Series(row, margin, 1e-7) for n, row in enumerate(rows)})
        found += outcomes[0].verdict is Verdict.FAIL
    low, high = bounds(trials)
    assert low <= found / trials <= high


def decided(values: np.ndarray) -> list[Decision]:
    """Decisions on interleaved candidates in a whole comparison with a budget of 12 blocks."""
    on = {name: terms() for name in NAMES}
    blocks = [
        block_of(
            number,
            {n: samples_of([values[place, w, number]], on[n]) for w, n in enumerate(NAMES)},
            candidate=place,
        )
        for number in range(values.shape[2])
        for place in range(values.shape[0])
    ]
    sides = [Side("", str(place)) for place in range(values.shape[0])]
    options = {"budget_seconds": 12 * 20.0}
    return decide(results_of(blocks, on, candidates=sides, options=options))


def test_the_printed_slowdown_fails_with_80_percent_power_in_whole_comparisons() -> None:
    """Three candidates of two workloads, twelve blocks each; one workload has the slowdown.

    The slowdown is printed by a comparison whose measured deviation is the true one.
    """
    trials = 300
    measured = decided(np.tile(exactly(0.0, DEVIATION, 4), (3, 2, 1)))
    (detectable,) = {round(decision.detectable, 9) for decision in measured}
    assert detectable == pytest.approx(0.0445, abs=5e-4)  # a single t test of 12 blocks: 0.0080
    table = DEVIATION * np.random.RandomState(8).standard_normal((trials, 3, 2, 12))
    table[:, 1, 1] += math.log1p(detectable)
    found = [[decision.verdict for decision in decided(values)] for values in table]
    low, high = bounds(trials)
    assert low <= sum(verdicts[3] is Verdict.FAIL for verdicts in found) / trials <= high
    assert not any(Verdict.FAIL in verdicts[:3] + verdicts[4:] for verdicts in found)
