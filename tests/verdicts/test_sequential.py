"""Verdicts on series of known truth: errors, power, Holm's procedure, looks and intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from bench.verdicts.sequential import (
    LOOKS,
    Look,
    Outcome,
    Series,
    Verdict,
    assess,
    block_value,
    blocks_to_decide,
)
from tests.synthetic import exactly

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
MARGIN = math.log(1.03)
FLOOR = 1e-7
ALL_BLOCKS = LOOKS[-1].blocks

Draw = Callable[[np.random.RandomState, tuple[int, ...]], np.ndarray]
DISTRIBUTIONS: Mapping[str, Draw] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "t3": lambda random, shape: random.standard_t(3, shape),
}


def series(values: Sequence[float], margin: float = MARGIN, *, gated: bool = True) -> Series:
    return Series(values, margin, FLOOR, gated)


def one(values: Sequence[float], margin: float = MARGIN, **how: bool) -> Outcome:
    """Outcome of a single workload."""
    return assess({"w": series(values, margin, **how)})["w"]


def verdicts(table: np.ndarray, looks: Sequence[Look] = LOOKS) -> list[Verdict]:
    """Uncorrected verdicts against 0 on many series, one per row."""
    many = {str(row): series(table[row], 0.0, gated=False) for row in range(len(table))}
    return [outcome.verdict for outcome in assess(many, looks).values()]


def most(trials: int, share: float) -> int:
    """Upper bound of the count for a true share, in 999 of 1,000 simulations."""
    return int(stats.binom.isf(0.001, trials, share))


def fewest(trials: int, share: float) -> int:
    return int(stats.binom.ppf(0.001, trials, share))


def test_the_looks_spend_two_and_a_half_percent_in_total() -> None:
    assert [look.blocks for look in LOOKS] == [4, 6, 8, 12, 16, 24]
    assert [look.alpha for look in LOOKS] == [0.008, 0.005, 0.004, 0.003, 0.003, 0.002]
    assert math.fsum(look.alpha for look in LOOKS) == pytest.approx(0.025, abs=1e-15)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: str(look.blocks))
def test_a_single_look_has_its_nominal_error_rate(look: Look) -> None:
    """With normal blocks the t test is exact: the error rate is neither higher nor lower."""
    trials = 4000
    table = np.random.RandomState(look.blocks).standard_normal((trials, look.blocks))
    found = verdicts(table, [look])
    for wrong in (FAIL, PASS):
        assert fewest(trials, look.alpha) <= found.count(wrong) <= most(trials, look.alpha)


@pytest.mark.parametrize("draw", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_all_looks_together_err_in_at_most_two_and_a_half_percent_at_the_margin(draw: Draw) -> None:
    trials = 8000
    found = verdicts(draw(np.random.RandomState(1), (trials, ALL_BLOCKS)))
    for wrong in (FAIL, PASS):
        assert 0 < found.count(wrong) <= most(trials, 0.025)
        assert found.count(wrong) > fewest(trials, 0.005)  # looks after the first contribute


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: str(look.blocks))
@pytest.mark.parametrize("seed", range(5))
def test_twelve_deviations_beyond_the_margin_fail_at_every_look(look: Look, seed: int) -> None:
    """Eight workloads share the error, and seven of them are equal."""
    drawn = 0.009 * np.random.RandomState(seed).standard_normal((8, look.blocks))
    drawn[3] += MARGIN + 12 * 0.009
    for looks in (LOOKS, [look]):
        outcomes = assess({str(n): series(row) for n, row in enumerate(drawn)}, looks)
        assert [name for name, o in outcomes.items() if o.verdict is FAIL] == ["3"]


def test_equal_environments_pass_and_six_percent_fail_after_six_blocks() -> None:
    """As stated in DESIGN.md, for a block standard deviation of 0.9 %."""
    trials = 2000
    noise = 0.009 * np.random.RandomState(2).standard_normal((trials, 6))
    equal = verdicts(noise - MARGIN)
    slower = verdicts(noise + math.log(1.06) - MARGIN)
    assert equal.count(PASS) == pytest.approx(0.995 * trials, abs=0.006 * trials)
    assert slower.count(FAIL) == pytest.approx(0.992 * trials, abs=0.01 * trials)
    assert equal.count(FAIL) == slower.count(PASS) == 0


# P-values, level and decisions of a common textbook example of Holm's procedure, for instance
# https://www.geeksforgeeks.org/data-science/holm-bonferroni-method/ (read 2026-11). 0.04 is below
# its level of 0.05 but not rejected, since the previous 0.03 was not.
HOLM_P_VALUES = {"H1": 0.01, "H2": 0.04, "H3": 0.03, "H4": 0.005}
HOLM_REJECTED = {"H1", "H4"}
HOLM_LEVELS = {"H4": 0.05 / 4, "H1": 0.05 / 3, "H3": 0.05 / 2, "H2": 0.05 / 2}


def with_p_value(p: float, blocks: int = 4) -> list[float]:
    """Blocks with this p-value in a one-sided t test against 0."""
    return exactly(stats.t.isf(p, blocks - 1) / math.sqrt(blocks), 1.0, blocks)


def test_holm_gives_the_decisions_of_a_published_example() -> None:
    blocks = {name: series(with_p_value(p), 0.0) for name, p in HOLM_P_VALUES.items()}
    outcomes = assess(blocks, [Look(4, 0.05)])
    assert {name for name, o in outcomes.items() if o.verdict is FAIL} == HOLM_REJECTED
    assert {n: o.alpha_fail for n, o in outcomes.items()} == pytest.approx(HOLM_LEVELS)


def test_holm_continues_at_the_next_look_with_the_remaining_hypotheses() -> None:
    """One series fails at 4 blocks; at 6 the other two share the error."""
    far = with_p_value(1e-6)
    near = [0.1, -0.1, 0.1, -0.1, 0.1, -0.1]
    outcomes = assess({n: series(v, 0.0) for n, v in {"a": far, "b": near, "c": near}.items()})
    assert (outcomes["a"].verdict, outcomes["a"].blocks) == (FAIL, 4)
    assert outcomes["a"].alpha_fail == pytest.approx(0.008 / 3)
    assert [outcomes[n].alpha_fail for n in "bc"] == pytest.approx([0.005 / 2] * 2)


def test_passed_and_unmeasured_series_count_as_hypotheses() -> None:
    """Omitting one workload would otherwise raise the level of another."""
    undecided = [0.1, -0.1, 0.1, -0.1, 0.1, -0.1]
    passed = series(exactly(-9, 1, 4), 0.0)
    outcomes = assess({"a": series(undecided, 0.0), "passed": passed, "missing": series([], 0.0)})
    assert outcomes["a"].alpha_fail == pytest.approx(0.005 / 3)
    assert outcomes["passed"].verdict is PASS
    assert (outcomes["missing"].verdict, outcomes["missing"].blocks) == (INCONCLUSIVE, 0)
    assert math.isnan(outcomes["missing"].mean)


def test_informational_workloads_are_outside_the_correction() -> None:
    values = with_p_value(0.007)
    alone = one(values, 0.0)
    informational = {str(n): series(values, 0.0, gated=False) for n in range(5)}
    outcomes = assess({"gated": series(values, 0.0), **informational})
    assert {outcome.verdict for outcome in outcomes.values()} == {FAIL}
    assert {outcome.alpha_fail for outcome in outcomes.values()} == {0.008}
    assert outcomes["gated"] == alone
    two = assess({"a": series(values, 0.0), "b": series(with_p_value(0.5), 0.0)})
    assert two["a"].verdict is INCONCLUSIVE  # 0.007 is not below 0.004


@pytest.mark.parametrize("slower", [0, 4])
def test_a_family_at_the_margin_has_a_false_fail_in_two_and_a_half_percent(slower: int) -> None:
    """Eight gated workloads, none or four of them truly slower, at any look."""
    families = 1200
    table = np.random.RandomState(3).standard_normal((families, 8, 16))
    table[:, :slower] += 6
    wrong = 0
    for family in table:
        outcomes = assess({str(n): series(row, 0.0) for n, row in enumerate(family)})
        found = [outcome.verdict for outcome in outcomes.values()]
        assert set(found[:slower]) <= {FAIL}
        wrong += FAIL in found[slower:]
    assert 0 < wrong <= most(families, 0.025)


def random_series(seed: int) -> dict[str, Series]:
    """Workloads near the margin, with different numbers of blocks, some informational."""
    random = np.random.RandomState(seed)
    return {
        str(n): series(
            MARGIN + 0.02 * random.uniform(-1, 1) + 0.009 * random.standard_normal(blocks),
            gated=bool(random.randint(4)),
        )
        for n, blocks in enumerate(random.randint(0, 26, size=random.randint(1, 9)))
    }


def test_interval_and_verdict_always_agree() -> None:
    seen = []
    for seed in range(150):
        many = random_series(seed)
        for name, outcome in assess(many).items():
            margin = many[name].margin
            assert (outcome.verdict is FAIL) == (outcome.low > margin)
            assert (outcome.verdict is PASS) == (outcome.high < margin)
            if outcome.alpha_pass:
                assert outcome.low < outcome.mean < outcome.high
                assert outcome.confidence == 1 - outcome.alpha_pass - outcome.alpha_fail
                assert outcome.deviation >= FLOOR
            seen.append(outcome.verdict)
    assert min(seen.count(verdict) for verdict in Verdict) > 50


def test_the_interval_is_students_at_the_looks_confidence() -> None:
    """Twice 0.5 % after six blocks is scipy's 99 % interval."""
    values = exactly(MARGIN, 0.01, 6)
    outcome = one(values)
    expected = stats.t.interval(0.99, 5, loc=np.mean(values), scale=stats.sem(values))
    assert (outcome.low, outcome.high) == pytest.approx(expected, rel=1e-9)
    assert outcome.confidence == pytest.approx(0.99)
    assert outcome.deviation == pytest.approx(0.01)


def test_a_verdict_stays_after_more_blocks() -> None:
    decided = 0
    for seed in range(150):
        random = np.random.RandomState(seed)
        table = MARGIN + 0.02 * random.uniform(-1, 1, (3, 1))
        table = table + 0.009 * random.standard_normal((3, ALL_BLOCKS))
        before: dict[str, Outcome] = {}
        for blocks in range(ALL_BLOCKS + 1):
            now = assess({str(n): series(row[:blocks]) for n, row in enumerate(table)})
            for name, outcome in before.items():
                if outcome.verdict is not INCONCLUSIVE:
                    decided += 1
                    assert now[name] == outcome
            before = now
    assert decided > 1000


@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_there_is_no_verdict_before_or_between_looks(shift: float) -> None:
    """Three blocks give no verdict, however clear; five are judged by the first four."""
    clear = [shift + x for x in exactly(0, 1e-3, 3)]
    for blocks in range(4):
        outcome = one(clear[:blocks])
        assert (outcome.verdict, outcome.blocks) == (INCONCLUSIVE, blocks)
        assert (outcome.low, outcome.high) == (-math.inf, math.inf)
    undecided = exactly(MARGIN, 0.01, 4)
    for blocks in range(4, 24):
        values = [*undecided, *[shift] * 20][:blocks]
        last = max(look.blocks for look in LOOKS if look.blocks <= blocks)
        outcome = one(values)
        assert outcome == one(values[:last])
        assert outcome.blocks <= last
    assert one([*undecided, shift]).verdict is INCONCLUSIVE


@pytest.mark.parametrize("value", [0.0, 0.5, MARGIN])
def test_constant_blocks_have_the_floor_and_a_finite_interval(value: float) -> None:
    outcome = assess({"w": Series([value] * 6, MARGIN, floor=1e-3)})["w"]
    assert outcome.deviation == 1e-3
    assert outcome.high - outcome.low > 1e-3
    assert outcome.verdict is {0.0: PASS, 0.5: FAIL, MARGIN: INCONCLUSIVE}[value]


def test_a_floor_covers_differences_below_the_clocks_resolution() -> None:
    values = [MARGIN + 1e-5] * 4
    assert assess({"w": Series(values, MARGIN, floor=1e-4)})["w"].verdict is INCONCLUSIVE
    assert assess({"w": Series(values, MARGIN, floor=1e-7)})["w"].verdict is FAIL


def test_a_block_below_ten_pairs_is_their_mean() -> None:
    assert block_value([0.0] * 8 + [9.0]) == 1.0
    assert block_value([0.5]) == 0.5


@pytest.mark.parametrize(("pairs", "cut"), [(10, 2), (14, 2), (15, 3), (150, 30)])
def test_a_block_from_ten_pairs_on_is_trimmed_by_a_fifth_at_each_end(pairs: int, cut: int) -> None:
    values = [(1.7**n if n % 2 else -(1.3**n)) for n in range(pairs)]
    expected = math.fsum(sorted(values)[cut : pairs - cut]) / (pairs - 2 * cut)
    assert block_value(values) == pytest.approx(expected)
    spoilt = sorted(values)
    spoilt[-cut:] = [1e30] * cut
    assert block_value(spoilt) == pytest.approx(expected)
    spoilt[-cut - 1] = 1e30
    assert block_value(spoilt) > 1e20


@pytest.mark.parametrize("mean", [-1.1, -0.9, 0.9, 1.3])
def test_blocks_to_decide_is_the_look_with_a_probable_verdict(mean: float) -> None:
    """If the estimate is true, that look decides four of five cases and the previous one fewer."""
    outcome = Outcome(INCONCLUSIVE, 4, mean, 1.0, -9, 9, 0.008, 0.008)
    blocks = blocks_to_decide(outcome, 0.0)
    numbers = [look.blocks for look in LOOKS]
    assert blocks in numbers[1:]
    look = LOOKS[numbers.index(blocks)]
    before = LOOKS[numbers.index(blocks) - 1]
    table = mean + np.random.RandomState(4).standard_normal((1000, blocks))
    decided = 1000 - verdicts(table, [look]).count(INCONCLUSIVE)
    decided_before = 1000 - verdicts(table, [before]).count(INCONCLUSIVE)
    assert decided >= 750
    assert decided_before < 850


def test_blocks_to_decide_exceeds_the_measured_blocks() -> None:
    outcome = Outcome(INCONCLUSIVE, 8, 0.7, 0.5, -9, 9, 0.004, 0.004)
    assert blocks_to_decide(outcome, 0.0) == 12
    assert blocks_to_decide(outcome, 0.0, measured=11) == 12
    assert blocks_to_decide(outcome, 0.0, measured=12) == 16
    assert blocks_to_decide(outcome, 0.0, measured=24) is None


def test_blocks_to_decide_includes_holms_correction() -> None:
    """Beyond the margin FAIL needs a share of the error; below it PASS has all of it."""
    shared = {
        mean: Outcome(INCONCLUSIVE, 4, mean, 1.0, -9, 9, 0.001, 0.008) for mean in (-1.3, 1.3)
    }
    assert blocks_to_decide(shared[-1.3], 0.0) == 12
    assert blocks_to_decide(shared[1.3], 0.0) == 16


@pytest.mark.parametrize(
    ("mean", "deviation"), [(math.nan, math.nan), (1.0, math.nan), (0.0, 1.0), (0.01, 1.0)]
)
def test_blocks_to_decide_is_none_without_a_prediction(mean: float, deviation: float) -> None:
    assert blocks_to_decide(Outcome(INCONCLUSIVE, 1, mean, deviation), 0.0) is None
