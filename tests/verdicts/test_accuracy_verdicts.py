"""Accuracy verdicts on synthetic seeds of known truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from bench.records.trainings import Trained
from bench.verdicts.accuracy import (
    LOOKS,
    AccuracyDecision,
    decide_accuracy,
    margin_points,
    too_good,
)
from bench.verdicts.sequential import Verdict, detectable_shift
from lenet5.recipe import Recipe
from lenet5.recipes import find_recipe

RECIPE = find_recipe("fast")  # its floor is 98 %
NO_FLOOR = RECIPE.with_overrides({"min_accuracy": 0.9})
MARGIN = 0.15

Counts = Sequence[float | None] | np.ndarray


def seeds(wrong: Counts) -> list[Trained]:
    return [
        Trained(seed, None if count is None else round(count), 10_000)
        for seed, count in enumerate(wrong)
    ]


def decided(
    candidate: Counts,
    baseline: Counts,
    *,
    paired: bool = True,
    beside: bool | None = None,
    margin: float = MARGIN,
    recipe: Recipe = RECIPE,
) -> AccuracyDecision:
    return decide_accuracy(
        seeds(candidate), seeds(baseline), recipe, margin, paired=paired, beside=beside
    )


def drawn(random: np.random.RandomState, count: int, loss: float = 0.0) -> np.ndarray:
    """Wrong images per seed: mean 150, standard deviation 11, plus `loss` points."""
    return np.asarray(150 + 100 * loss + 11 * random.standard_normal(count))


def test_the_looks_spend_two_and_a_half_percent() -> None:
    assert sum(look.alpha for look in LOOKS) == pytest.approx(0.025)
    assert [look.blocks for look in LOOKS] == [10, 16, 20]


def test_there_is_no_verdict_below_ten_seeds() -> None:
    decision = decided([150] * 9, [150] * 9)
    assert (decision.verdict, decision.seeds) == (Verdict.INCONCLUSIVE, 9)


def test_equal_answers_are_identical() -> None:
    wrong = list(range(140, 150))
    decision = decided(wrong, wrong)
    assert (decision.verdict, decision.reason) == (Verdict.PASS, "identical")


def test_a_large_loss_fails_and_a_gain_passes() -> None:
    wrong = np.linspace(130, 170, 10)
    noise = np.tile([-3, 3], 5)
    worse, better = decided(wrong + 40 + noise, wrong), decided(wrong - 20 + noise, wrong)
    assert (worse.verdict, better.verdict) == (Verdict.FAIL, Verdict.PASS)
    assert worse.difference == pytest.approx(0.4, abs=0.005)
    assert worse.low > MARGIN
    assert better.high < MARGIN


def test_paired_bounds_match_scipys_paired_t_test() -> None:
    random = np.random.RandomState(3)
    ours, theirs = np.round(drawn(random, 10)), np.round(drawn(random, 10))
    decision = decided(ours, theirs)
    interval = stats.ttest_rel(ours / 100, theirs / 100).confidence_interval(0.97)
    assert (decision.low, decision.high) == pytest.approx((interval.low, interval.high))
    assert decision.confidence == pytest.approx(0.97)


def test_unpaired_bounds_match_scipys_pooled_t_test() -> None:
    random = np.random.RandomState(4)
    ours, theirs = np.round(drawn(random, 10)), np.round(drawn(random, 20))
    decision = decided(ours, theirs, paired=False)
    interval = stats.ttest_ind(ours / 100, theirs / 100).confidence_interval(0.97)
    assert (decision.low, decision.high) == pytest.approx((interval.low, interval.high))


# Against a baseline of the same comparison or a stored reference, paired or not.
@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("loss", "wrong"), [(MARGIN, "either"), (0.0, Verdict.FAIL)])
def test_verdicts_keep_their_error_rates(
    paired: bool, beside: bool, loss: float, wrong: object
) -> None:
    """At the margin PASS and FAIL are wrong, at most 2.5 % each; equal sides never FAIL here."""
    random = np.random.RandomState(0)
    counts = dict.fromkeys(Verdict, 0)
    for _ in range(1000):
        ours, theirs = drawn(random, 20, loss), drawn(random, 20)
        decision = decided(ours, theirs, paired=paired, beside=beside, recipe=NO_FLOOR)
        counts[decision.verdict] += 1
    most = stats.binom.isf(0.001, 1000, 0.025)
    if wrong == "either":
        assert max(counts[Verdict.PASS], counts[Verdict.FAIL]) <= most
    else:
        assert counts[Verdict.FAIL] == 0
        assert counts[Verdict.PASS] >= 880


def test_a_loss_of_three_tenths_of_a_point_fails() -> None:
    random = np.random.RandomState(1)
    found = [
        decided(drawn(random, 20, 0.3), drawn(random, 20), recipe=NO_FLOOR).verdict is Verdict.FAIL
        for _ in range(400)
    ]
    assert np.mean(found) >= 0.88


@pytest.mark.parametrize("wrong", [201, None])
def test_a_seed_below_the_floor_fails_unless_the_baselines_is_below_too(wrong: int | None) -> None:
    usual = [150.0] * 10
    decision = decided([*usual[:9], wrong], usual)
    assert decision.verdict is Verdict.FAIL
    assert decision.reason.startswith("diverged: seed 9")
    assert decided([*usual[:9], wrong], [*usual[:9], wrong]).verdict is not Verdict.FAIL


def test_a_failing_baseline_never_gives_pass() -> None:
    usual = [150.0] * 10
    for candidate in (usual, [*usual[:9], None]):
        decision = decided(candidate, [*usual[:9], None])
        assert decision.verdict is Verdict.INCONCLUSIVE
        assert decision.reason.startswith("the baseline fails: seed 9")


def test_a_baseline_failing_at_another_seed_excuses_the_candidate() -> None:
    """The candidate's process crashed at seed 0 and stopped; the baseline's crashed at seed 1."""
    candidate = [Trained(0, None, 10_000, problem="killed", crashed=True)]
    decision = decide_accuracy(candidate, seeds([150, None]), RECIPE, MARGIN, paired=True)
    assert decision.verdict is Verdict.INCONCLUSIVE


def test_a_too_good_accuracy_fails() -> None:
    """With a mean of 98.5 %, the limit is 0.3 points or 6 standard deviations above it."""
    usual = [149.0, 151.0] * 5
    assert too_good(seeds(usual)) == pytest.approx(0.985 + 0.003)
    decision = decided([*usual[:9], 119], usual)
    assert (decision.verdict, decision.reason) == (Verdict.FAIL, "too good: seed 9 reached 98.81 %")
    wide = [100.0, 200.0] * 5
    assert too_good(seeds(wide)) == pytest.approx(0.985 + 6 * np.std(wide, ddof=1) / 10_000)


# Against a baseline of the same comparison or a reference of twenty seeds, paired or not.
KINDS = [(True, True), (True, False), (False, True), (False, False)]


def beyond_margin(most: int, *, paired: bool, beside: bool) -> float:
    """Detectable distance beyond the margin, in standard deviations of the test."""
    looks = tuple(look for look in LOOKS if look.blocks <= most)
    others = tuple(look.blocks if beside else 20 for look in looks)
    return detectable_shift(looks, others=() if paired else others)


@pytest.mark.parametrize("most", [10, 20])
@pytest.mark.parametrize(("paired", "beside"), KINDS)
def test_the_detectable_loss_fails_with_80_percent_power(
    most: int, *, paired: bool, beside: bool
) -> None:
    """Whole verdicts on seeds of known deviation: 0.11 points, for pairs 0.156."""
    trials = 400
    random = np.random.RandomState(8)
    deviation = 0.11 * (math.sqrt(2) if paired else 1)
    loss = MARGIN + beyond_margin(most, paired=paired, beside=beside) * deviation
    failed = 0
    for _ in range(trials):
        ours, theirs = drawn(random, most, loss), drawn(random, most if beside else 20)
        found = decided(ours, theirs, paired=paired, beside=beside, recipe=NO_FLOOR)
        failed += found.verdict is Verdict.FAIL
    low, high = stats.binom.interval(0.998, trials, 0.8)
    assert low <= failed <= high


@pytest.mark.parametrize(("paired", "beside"), KINDS)
def test_the_detectable_loss_uses_the_measured_deviation(*, paired: bool, beside: bool) -> None:
    """With ten seeds measured and the looks of up to sixteen."""
    random = np.random.RandomState(5)
    ours, theirs = np.round(drawn(random, 10)), np.round(drawn(random, 10 if beside else 20))
    found = decide_accuracy(
        *(seeds(ours), seeds(theirs), RECIPE, MARGIN), paired=paired, beside=beside, most_seeds=16
    )
    if paired:
        deviation = np.std(ours - theirs[:10], ddof=1)
    else:
        squares = np.var(ours) * len(ours) + np.var(theirs) * len(theirs)
        deviation = np.sqrt(squares / (len(ours) + len(theirs) - 2))
    shift = beyond_margin(16, paired=paired, beside=beside)
    assert found.detectable == pytest.approx(MARGIN + shift * deviation / 100)


def test_one_seed_has_no_detectable_loss() -> None:
    assert math.isnan(decided([150], [150]).detectable)


def test_a_reference_is_paired_with_the_candidates_seeds_so_far() -> None:
    """Ten of its twenty seeds count at the first look, then sixteen; "too good" uses all."""
    random = np.random.RandomState(9)
    theirs = np.round(drawn(random, 20))
    ours = theirs + np.round(3 * random.standard_normal(20)) + 15
    ten = decided(ours[:10], theirs, beside=False)
    interval = stats.ttest_rel(ours[:10] / 100, theirs[:10] / 100).confidence_interval(0.97)
    assert (ten.verdict, ten.seeds) == (Verdict.INCONCLUSIVE, 10)
    assert (ten.low, ten.high) == pytest.approx((interval.low, interval.high))
    sixteen = decided(ours[:16], theirs, beside=False)
    interval = stats.ttest_rel(ours[:16] / 100, theirs[:16] / 100).confidence_interval(0.99)
    assert (sixteen.low, sixteen.high) == pytest.approx((interval.low, interval.high))
    same = decided(theirs[:10], theirs, beside=False)
    assert (same.verdict, same.reason) == (Verdict.PASS, "identical")
    few = decided(ours[:1] - 90, theirs, beside=False)
    assert few.reason.startswith("too good: seed 0")


def test_a_low_seed_of_a_reference_excuses_no_divergence() -> None:
    low = [*[150.0] * 9, 205]
    assert decided(low, low, beside=True).verdict is not Verdict.FAIL
    assert decided(low, low, beside=False).verdict is Verdict.FAIL


def test_the_default_margin_is_the_upper_bound_of_one_and_a_half_deviations() -> None:
    """chi2 with 2 degrees of freedom is -2 log(1 - p): sqrt(2 / (-2 log 0.8)) = 2.117."""
    assert margin_points(seeds([140, 150, 160])) == 0.32  # 1.5 * 0.1 * 2.117 = 0.3175
    assert margin_points(seeds([150, 150, 150])) == 0.01


@pytest.mark.parametrize(
    ("paired", "beside", "size"),
    [(*kind, size) for kind in KINDS for size in (10, 20) if (*kind, size) != (True, False, 10)],
)
def test_equal_independent_sides_pass_with_the_default_margin(
    size: int, *, paired: bool, beside: bool
) -> None:
    """95 % of runs of 20 seeds PASS, on average over references with random deviations.

    A reference of 10 seeds is not paired with 20.
    """
    random = np.random.RandomState(0)
    verdicts = []
    for _ in range(400):
        reference = drawn(random, size)
        margin = margin_points(seeds(reference))
        other = drawn(random, 20) if beside else reference
        ours = drawn(random, 20)
        verdicts.append(decided(ours, other, margin=margin, paired=paired, beside=beside).verdict)
    assert verdicts.count(Verdict.PASS) >= 0.95 * 400 - 4.4  # one standard error
    assert verdicts.count(Verdict.FAIL) <= 2


@pytest.mark.parametrize("paired", [True, False])
def test_a_later_baseline_failure_does_not_change_an_earlier_fail(
    paired: bool,
) -> None:
    baseline = [150] * 12 + [None]
    first, second = [190 + seed for seed in range(10)], range(145, 157)
    assert decided(first, baseline, paired=paired, beside=True).verdict is Verdict.FAIL
    undecided = decided(second, baseline, paired=paired, beside=True)
    assert undecided.verdict is Verdict.INCONCLUSIVE
    assert undecided.reason == "the baseline fails: seed 12 diverged"


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("later", [100, 200, 205])
def test_later_baseline_seeds_do_not_change_a_verdict(later: int, *, paired: bool) -> None:
    """Seeds 10 to 19, trained for another candidate: better, worse, or below the floor."""
    random = np.random.RandomState(6)
    ours, theirs = drawn(random, 10), drawn(random, 10)
    then = decided(ours, theirs, paired=paired, beside=True, margin=0.5)
    now = decided(ours, [*theirs, *[later] * 10], paired=paired, beside=True, margin=0.5)
    assert then.verdict is Verdict.PASS
    assert now == then


def test_a_verdict_uses_all_seeds_of_a_reference() -> None:
    random = np.random.RandomState(6)
    ours, theirs = drawn(random, 10), drawn(random, 10)
    ten = decided(ours, theirs, paired=False, margin=0.5)
    twenty = decided(ours, [*theirs, *[200] * 10], paired=False, margin=0.5)
    assert (ten.seeds, twenty.seeds) == (10, 10)
    assert twenty.difference == pytest.approx(
        ten.difference - (200 - theirs.mean()) / 200, abs=0.01
    )


def test_unpaired_sides_have_equal_numbers_of_seeds_at_each_look() -> None:
    """With 20 seeds per side the look at 10 decides, by a pooled test of those 10."""
    random = np.random.RandomState(7)
    ours, theirs = np.round(drawn(random, 20)), np.round(drawn(random, 20))
    decision = decided(ours, theirs, paired=False, beside=True, margin=0.5)
    interval = stats.ttest_ind(ours[:10] / 100, theirs[:10] / 100).confidence_interval(0.97)
    assert (decision.low, decision.high) == pytest.approx((interval.low, interval.high))
    assert (decision.verdict, decision.seeds) == (Verdict.PASS, 10)
    narrow = decided(ours, theirs, paired=False, beside=True, margin=decision.high - 1e-3)
    assert narrow.seeds > 10
    interval = stats.ttest_ind(
        ours[: narrow.seeds] / 100, theirs[: narrow.seeds] / 100
    ).confidence_interval(narrow.confidence)
    assert (narrow.low, narrow.high) == pytest.approx((interval.low, interval.high))


def test_equal_answers_of_unpaired_seeds_are_not_identical() -> None:
    wrong = list(range(140, 150))
    decision = decided(wrong, wrong, paired=False, beside=True)
    assert (decision.verdict, decision.reason) == (Verdict.PASS, "")
    assert decision.low < 0 < decision.high


def test_a_crash_does_not_count_as_a_loss_of_98_points() -> None:
    decision = decided([150, 152, None], [150, 150, 150])
    assert decision.verdict is Verdict.FAIL
    assert decision.difference == pytest.approx(0.01)


def test_a_crash_fails_although_the_baseline_is_below_the_floor() -> None:
    candidate, baseline = [150] * 9 + [None], [150] * 9 + [205]
    assert decided(candidate, baseline).verdict is Verdict.FAIL


def test_a_baseline_below_its_floor_gives_no_pass() -> None:
    decision = decided([9020] * 10, [9020] * 10)
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.reason == "the baseline's seed 0 is below the floor"


def test_leaked_test_images_on_both_sides_are_too_good() -> None:
    assert decided([5] * 10, [5] * 10).reason == "too good: seed 0 reached 99.95 %"


def test_a_seed_below_the_floor_on_both_sides_is_inconclusive() -> None:
    """Paired or not: the low seed of the baseline prevents a verdict."""
    both = [Trained(seed, 9_020 if seed == 3 else 130 + seed, 10_000) for seed in range(10)]
    for paired in (True, False):
        decision = decide_accuracy(both, both, RECIPE, 50.0, paired=paired, beside=True)
        assert decision.verdict is Verdict.INCONCLUSIVE
        assert decision.reason == "the baseline's seed 3 is below the floor"
