"""Plans the next block of a bisection: the environments that tell most per second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.verdicts.bisection.posterior import Fit, Posterior
from bench.verdicts.bisection.walk import Difference, Search, Walk, required

_MOST_BETWEEN = 4  # environments of a block beside good and bad
_TRIAL_BLOCKS = 4  # with levels between good and bad, before their difference is shown
_DRAWS = 400
_LEAST_GAIN = 0.02  # nats, for a further environment in a block
_UNSEEN_GAIN = 0.5  # nats, for an environment that the profile lacks


def next_environments(now: Walk, *, is_in_budget: bool, seed: int) -> tuple[int, ...]:
    """Returns the environments of the next block beside good; empty at the end.

    Args:
        now: the walk after all blocks so far.
        is_in_budget: whether the budget allows another block.
        seed: seed of the draws.
    """
    if now.is_over or not is_in_budget:
        return ()
    search = now.search
    bad = search.change_sets.bad
    if now.searched is not None:
        return tuple(sorted({bad, *(place for pair in now.pairs for place in pair)} - {0}))
    between = _telling(search, now, np.random.RandomState(seed + len(now.blocks)))
    return tuple(sorted({bad, *between}))


def _telling(search: Search, now: Walk, random: np.random.RandomState) -> list[int]:
    """Chooses environments between the ends by expected information per second.

    The information about the set of steps is that of a normal vector: the log determinant of the
    covariance of the environments' means over likely sets of steps, beside the noise. The cost of
    a block is proportional to its sides.
    """
    bad = search.change_sets.bad
    candidates = [place for place in search.runnable if place != bad]
    if now.fit is None or now.posterior is None:
        return _spread(candidates, 1)
    if now.difference is not Difference.SHOWN and len(now.blocks) >= _TRIAL_BLOCKS:
        return []  # good and bad alone decide at less cost
    means = drawn_means(now.posterior, random)
    noise = now.fit.noise
    if np.isnan(noise):
        noise = search.least_step
    unseen = set(required(search)) - set(now.fit.measured)
    chosen: list[int] = []
    best, best_rate, gained = list(chosen), 0.0, 0.0
    while candidates and len(chosen) < _MOST_BETWEEN:
        gains = {
            place: _information(means, [*chosen, place], noise)
            + _UNSEEN_GAIN * len(unseen & {*chosen, place})
            for place in candidates
        }
        place = max(gains, key=lambda place: (gains[place], -place))
        if gains[place] - gained < _LEAST_GAIN:
            break
        gained = gains[place]
        chosen.append(place)
        candidates.remove(place)
        rate = gained / (len(chosen) + 2)
        if rate > best_rate:
            best, best_rate = list(chosen), rate
    return best or _least_known(search, now.fit)


def _least_known(search: Search, summary: Fit) -> list[int]:
    """Returns the levels of the profile with fewest blocks: nothing points to a step."""
    between = [place for place in required(search) if place != search.change_sets.bad]
    return sorted(between, key=lambda place: summary.counts.get(place, 0))[:_MOST_BETWEEN]


def _spread(places: Sequence[int], count: int) -> list[int]:
    """Returns evenly spaced inner places."""
    if len(places) <= count:
        return list(places)
    return [places[round((at + 1) * (len(places) - 1) / (count + 1))] for at in range(count)]


def _information(means: np.ndarray, places: Sequence[int], noise: float) -> float:
    """Mutual information, in nats, of one block's values with the drawn means."""
    own = means[:, list(places)]
    covariance = np.atleast_2d(np.cov(own, rowvar=False))
    size = len(places)
    errors = noise**2 * (np.eye(size) + 0.5)  # good is shared, bad beside it
    return float(np.linalg.slogdet(covariance + errors)[1] - np.linalg.slogdet(errors)[1]) / 2


def drawn_means(found: Posterior, random: np.random.RandomState) -> np.ndarray:
    """Draws means of all environments from the posterior; shape (draws, environments).

    A step of several merged changes lies at one of them, by their prior weights. The effects have
    their posterior means: their own uncertainty does not tell where a step is.
    """
    summary: Fit = found.fit
    change_sets = summary.change_sets
    held = np.array(
        [[change in own for change in change_sets.weights] for own in change_sets.held],
        dtype=np.float64,
    )
    column = {change: at for at, change in enumerate(change_sets.weights)}
    probabilities = np.array([each.probability for each in found.hypotheses])
    drawn = random.choice(len(probabilities), _DRAWS, p=probabilities / probabilities.sum())
    means = np.zeros((_DRAWS, len(change_sets.held)))
    for row, at in enumerate(drawn):
        hypothesis = found.hypotheses[at]
        for place, effect in zip(hypothesis.steps, hypothesis.effects, strict=True):
            group = sorted(summary.merged[place])
            weights = np.array([change_sets.weights[change] for change in group])
            change = group[int(random.choice(len(group), p=weights / weights.sum()))]
            means[row] += effect * held[:, column[change]]
    return means
