"""A walk: its plan and its answers, on blocks drawn from a known truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from bench.plans.bisect import next_environments
from bench.verdicts.bisection.posterior import ChangeSets, Values, ordered_levels
from bench.verdicts.bisection.walk import Difference, Search, Walk, difference, walk, ways

LEAST = math.log(1.03) / 3


def follow(
    search: Search, means: Sequence[float], *, noise: float = 0.004, seed: int = 0, most: int = 60
) -> Walk:
    """Follows the plan on drawn blocks to its end."""
    random, now = np.random.RandomState(seed), Walk(search)
    while places := next_environments(now, is_in_budget=len(now.blocks) < most, seed=seed):
        side = random.standard_normal(len(means)) * noise
        now = now.extended({p: float(means[p] + side[p] - side[0]) for p in places})
    return now


def stairs(levels: int, steps: Mapping[int, float]) -> list[float]:
    """Returns the means of ordered levels: change -> ratio."""
    logs = [0.0, *(math.log(steps.get(change, 1.0)) for change in range(1, levels))]
    return [float(x) for x in np.cumsum(logs)]


def test_a_step_is_found_and_verified_by_fresh_blocks() -> None:
    found = follow(Search(ordered_levels(9), LEAST), stairs(9, {5: 1.03}))
    assert found.credible_sets == (frozenset({5}),)
    assert found.is_verified
    assert found.fresh == 4
    (check,) = found.checks
    assert (check.before, check.after) == (4, 5)
    assert found.searched is not None
    assert len(found.searched.blocks) == len(found.blocks) - 4


def test_every_block_holds_bad() -> None:
    """Good is in every block by its form: values are differences to it."""
    found = follow(Search(ordered_levels(9), LEAST), stairs(9, {5: 1.03}))
    assert all(8 in block for block in found.blocks)


def test_a_short_axis_is_measured_at_every_level() -> None:
    found = follow(Search(ordered_levels(9), LEAST), stairs(9, {5: 1.06}))
    assert found.fit is not None
    assert found.fit.measured == tuple(range(1, 9))


def test_a_long_axis_is_not() -> None:
    found = follow(Search(ordered_levels(200), LEAST), stairs(200, {77: 1.06}))
    assert found.credible_sets == (frozenset({77}),)
    assert found.fit is not None
    assert len(found.fit.measured) < 40


def test_two_steps_are_both_found_and_verified() -> None:
    found = follow(Search(ordered_levels(9), LEAST), stairs(9, {2: 1.03, 6: 1.04}))
    assert set(found.credible_sets) == {frozenset({2}), frozenset({6})}
    assert found.culprits[0] == frozenset({6})
    assert {(check.before, check.after) for check in found.checks} == {(1, 2), (5, 6)}


def test_a_step_that_was_taken_back_is_found() -> None:
    found = follow(Search(ordered_levels(9), LEAST), stairs(9, {2: 1.06, 6: 1 / 1.03}))
    assert set(found.credible_sets) == {frozenset({2}), frozenset({6})}


def test_levels_that_do_not_run_widen_the_answer() -> None:
    """Nothing measurable tells the changes 4, 5 and 6 apart."""
    found = follow(Search(ordered_levels(9), LEAST, frozenset({4, 5})), stairs(9, {5: 1.06}))
    assert found.credible_sets == (frozenset({4, 5, 6}),)
    assert found.is_verified


def test_equal_ends_end_the_walk() -> None:
    found = follow(Search(ordered_levels(9), LEAST), stairs(9, {}), noise=0.003)
    assert found.difference is Difference.NONE
    assert found.is_over
    assert found.culprits == ()


def test_a_difference_spread_over_many_levels_is_no_step() -> None:
    """Ten changes of 0.4 % each are a difference of 4 %, and nobody's step."""
    every = dict.fromkeys(range(1, 11), 1.004)
    found = follow(Search(ordered_levels(11), LEAST), stairs(11, every), noise=0.002)
    assert found.difference is Difference.SHOWN
    assert found.is_spread
    assert found.is_over
    assert found.culprits == ()


def test_noise_beyond_the_budget_gives_no_answer() -> None:
    found = follow(Search(ordered_levels(9), LEAST), stairs(9, {5: 1.02}), noise=0.1, most=8)
    assert not found.is_over
    assert not found.is_verified
    assert found.culprits == ()


def test_fresh_blocks_that_contradict_prevent_an_answer() -> None:
    search = Search(ordered_levels(4), LEAST)
    found = follow(search, stairs(4, {2: 1.03}))
    assert found.searched is not None
    before = found.searched.blocks
    fresh: list[Values] = [{1: 0.0, 2: 0.0, 3: 0.03}] * 8
    contradicted = walk(search, [*before, *fresh])
    assert not contradicted.is_verified


def test_the_walk_of_all_blocks_is_the_walk_block_by_block() -> None:
    search = Search(ordered_levels(9), LEAST)
    found = follow(search, stairs(9, {5: 1.03}))
    assert walk(search, found.blocks) == found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0300, 0.0305, 0.0295, 0.0302], Difference.SHOWN),
        ([0.0001, 0.0002, -0.0002, 0.0], Difference.NONE),
        ([0.03, -0.02, 0.05, 0.0], Difference.OPEN),
        ([0.03, 0.0301, 0.0299], Difference.OPEN),
        # A difference that is proven, and proven to be no step.
        ([0.0030, 0.0031, 0.0029, 0.0030], Difference.NONE),
    ],
)
def test_the_ends_differ_by_t_tests_at_looks(values: Sequence[float], expected: Difference) -> None:
    search = Search(ordered_levels(2), LEAST)
    assert difference(search, [{1: value} for value in values]) is expected


def test_packages_have_two_ways_to_verify() -> None:
    """Good with the new package, and bad without it."""
    every = frozenset({1, 2, 3})
    held = [frozenset(), *(frozenset({c}) for c in every), *(every - {c} for c in every), every]
    change_sets = ChangeSets(tuple(held), dict.fromkeys(every, 1.0))
    search = Search(change_sets, LEAST)
    assert ways(search, frozenset({2})) == ((0, 2), (5, 7))
    mixed = ChangeSets(
        tuple(held[place] for place in (0, 2, 5, 7, 1, 3, 4, 6)), change_sets.weights
    )
    assert ways(Search(mixed, LEAST), frozenset({2})) == ((0, 1), (2, 3))
    effects = {1: 0.0, 2: math.log(1.2), 3: 0.0}
    means = [sum(effects[c] for c in own) for own in held]
    found = follow(search, means)
    assert found.credible_sets == (frozenset({2}),)
    assert {(c.before, c.after) for c in found.checks} == {(0, 2), (5, 7)}
    assert found.is_verified
