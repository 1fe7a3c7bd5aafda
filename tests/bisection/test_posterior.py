"""Posterior of steps: against direct integration, and for known truths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, combinations

import numpy as np
import pytest
from scipy import stats

from bench.verdicts.bisection.posterior import (
    ChangeSets,
    Fit,
    Values,
    fit,
    ordered_levels,
    posterior,
)

LEAST = math.log(1.03) / 3


def drawn(
    means: Sequence[float], blocks: Sequence[Sequence[int]], noise: float, seed: int
) -> list[Values]:
    """Draws blocks: every side has its own noise, and good's is shared."""
    random = np.random.RandomState(seed)
    found: list[Values] = []
    for places in blocks:
        side = random.standard_normal(len(means)) * noise
        found.append({p: float(means[p] + side[p] - side[0]) for p in places})
    return found


def directly(
    change_sets: ChangeSets, blocks: Sequence[Values], noise: float, slab: float
) -> dict[tuple[int, ...], float]:
    """Probabilities of sets of changes by multivariate normal densities of all values."""
    changes = sorted(change_sets.weights)
    share = change_sets.expected_steps / len(changes)
    values = np.concatenate([[block[p] for p in sorted(block)] for block in blocks])
    rows = [p for block in blocks for p in sorted(block)]
    held = np.array([[c in change_sets.held[p] for c in changes] for p in rows], float)
    errors = np.zeros((len(rows), len(rows)))
    start = 0
    for block in blocks:
        size = len(block)
        own = slice(start, start + size)
        errors[own, own] = noise**2 * (np.eye(size) + 1)
        start += size
    spike = LEAST / 4
    scores = {}
    for steps in chain.from_iterable(combinations(changes, n) for n in range(len(changes) + 1)):
        variances = [slab**2 if c in steps else spike**2 for c in changes]
        covariance = errors + held @ np.diag(variances) @ held.T
        density = stats.multivariate_normal(np.zeros(len(rows)), covariance).logpdf(values)
        prior = len(steps) * math.log(share) + (len(changes) - len(steps)) * math.log(1 - share)
        scores[steps] = density + prior
    best = max(scores.values())
    weights = {steps: math.exp(score - best) for steps, score in scores.items()}
    return {steps: weight / sum(weights.values()) for steps, weight in weights.items()}


def test_probabilities_equal_direct_integration(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a known noise and one slab, the search gives the densities' own probabilities."""
    from bench.verdicts.bisection import posterior as module

    monkeypatch.setattr(module, "_noises", lambda _: [(0.005, 0.0)])
    monkeypatch.setattr(module, "_SLABS", (6.0,))
    change_sets = ordered_levels(5)
    blocks = drawn([0, 0, 0.02, 0.02, 0.03], [[1, 2, 4], [2, 3, 4], [4], [1, 3, 4]], 0.005, 3)
    truth = directly(change_sets, blocks, 0.005, 6 * LEAST)
    search = module._Search(fit(change_sets, blocks, LEAST))
    found = search.explore()
    total = sum(map(math.exp, found.values()))
    for steps, probability in truth.items():
        places = tuple(change - 1 for change in steps)
        assert math.exp(found[places]) / total == pytest.approx(probability, rel=1e-9)


def test_means_are_generalised_least_squares() -> None:
    change_sets = ordered_levels(4)
    blocks = drawn([0, 0.01, 0.02, 0.03], [[1, 3], [2, 3], [1, 2, 3], [3]], 0.004, 0)
    summary = fit(change_sets, blocks, LEAST)
    rows: list[list[bool]] = []
    values: list[float] = []
    weights = np.zeros((8, 8))
    for block in blocks:
        own = slice(len(rows), len(rows) + len(block))
        weights[own, own] = np.linalg.inv(np.eye(len(block)) + 1)
        for place, value in block.items():
            rows.append([place == p for p in (1, 2, 3)])
            values.append(value)
    design = np.array(rows, float)
    normal = design.T @ weights @ design
    means = np.linalg.solve(normal, design.T @ weights @ np.array(values))
    assert summary.means == pytest.approx(means)
    left = np.array(values) - design @ means
    assert summary.noise == pytest.approx(math.sqrt(left @ weights @ left / (8 - 3)))
    level = summary.contrast(1, 3)
    error = summary.noise * math.sqrt(
        np.array([-1, 0, 1]) @ np.linalg.inv(normal) @ np.array([-1, 0, 1])
    )
    t = stats.t(5).ppf(0.975)
    assert (level.low, level.high) == pytest.approx(
        (means[2] - means[0] - t * error, means[2] - means[0] + t * error)
    )


def test_intervals_hold_the_truth_in_95_percent() -> None:
    change_sets, means = ordered_levels(4), [0, 0.01, 0.01, 0.03]
    held = 0
    for seed in range(400):
        blocks = drawn(means, [[1, 3], [2, 3], [1, 2, 3], [1, 2, 3]], 0.005, seed)
        level = fit(change_sets, blocks, LEAST).contrast(1, 3)
        held += level.low <= 0.02 <= level.high
    assert stats.binomtest(held, 400, 0.95).pvalue > 0.001


def test_changes_that_no_level_separates_are_merged() -> None:
    summary = fit(ordered_levels(7), [{2: 0.0, 6: 0.03}], LEAST)
    assert summary.merged == (frozenset({1, 2}), frozenset({3, 4, 5, 6}))


def test_packages_are_told_apart_by_their_exchange() -> None:
    """Good with Keras, and bad without it, show Keras's step of a quarter."""
    everything = frozenset({1, 2, 3})
    change_sets = ChangeSets(
        (frozenset(), frozenset({2}), everything - {2}, everything), dict.fromkeys((1, 2, 3), 1.0)
    )
    means = [0, math.log(1.25), 0, math.log(1.25)]
    found = posterior(fit(change_sets, drawn(means, [[1, 2, 3]] * 3, 0.01, 0), LEAST))
    sets, mass = found.credible_sets(0.975)
    assert [found.fit.merged[place] for each in sets for place in each] == [frozenset({2})]
    assert mass > 0.975
    assert found.fit.merged == (frozenset({1, 3}), frozenset({2}))


def posterior_of(means: Sequence[float], blocks: int, noise: float, seed: int = 0) -> Fit:
    places = [[*range(1, len(means))]] * blocks
    return fit(ordered_levels(len(means)), drawn(means, places, noise, seed), LEAST)


def test_two_steps_and_a_step_taken_back_are_found() -> None:
    up, down = math.log(1.06), -math.log(1.03)
    means = [0, 0, up, up, up + down, up + down]
    found = posterior(posterior_of(means, 5, 0.004))
    assert found.hypotheses[0].steps == (1, 3)
    assert found.hypotheses[0].effects == pytest.approx((up, down), abs=0.01)
    assert found.credible_sets(0.975)[0] == (frozenset({1}), frozenset({3}))


def test_little_data_leave_a_wide_credible_set() -> None:
    """Neighbouring levels that were measured once cannot be told apart."""
    means = [0, 0, 0.02, 0.02]
    found = posterior(posterior_of(means, 1, 0.012))
    sets, mass = found.credible_sets(0.975)
    assert mass >= 0.975
    assert all(len(each) > 1 for each in sets)


def test_probabilities_sum_to_one() -> None:
    found = posterior(posterior_of([0, 0.01, 0.02, 0.02], 3, 0.006))
    assert math.fsum(h.probability for h in found.hypotheses) == pytest.approx(1)


def test_effects_below_the_least_step_are_no_steps() -> None:
    found = posterior(posterior_of([0, 0.004, 0.008, 0.012], 40, 0.004))
    assert found.hypotheses[0].steps == ()


def test_equal_values_keep_a_floor_of_noise() -> None:
    """Seeds with the same number of errors everywhere have no spread at all."""
    found = posterior(fit(ordered_levels(4), [{1: 0.0, 2: 0.0, 3: 0.0}] * 4, LEAST))
    assert found.hypotheses[0].steps == ()
    assert found.fit.noise > 0
