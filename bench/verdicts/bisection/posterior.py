"""Which changes between two environments move a value: posterior of steps, credible sets, levels.

Environments hold changes. On an ordered axis, level 3 holds the changes 1, 2 and 3; among packages,
good with a new Keras holds Keras alone. Changes that no measured environment separates are merged.

A block measures good and some other environments side by side. Its values are differences to good,
such as log-ratios. They share the noise of good, so their covariance is s^2 (I + 1 1'), with the
noise s of one side. The means are sums of the effects of held changes:

    y[block, environment] = sum of effect[change] over the held changes + noise

An effect is a step with variance `slab`^2, or no step with the small variance `spike`^2, since
no two releases are exactly equal (George and McCulloch 1993, "Variable selection via Gibbs
sampling"). The noise has a prior uniform in its logarithm, and the slab three equally likely
scales; both are integrated numerically. Sets of steps are found by best-first search, not drawn.

A credible set is a set of changes that contains a step. The sets are chosen so that all contain one
with the stated probability at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

Values = Mapping[int, float]  # of a block: difference to good, by environment
Steps = tuple[int, ...]  # merged changes with a step, ascending

_SPIKE = 0.25  # of the least step
_SLABS = (2.0, 6.0, 20.0)  # of the least step
_LEAST_NOISE = 0.02  # of the least step
_FIRST_NOISE = 0.6  # of the least step, before blocks tell
_NOISE_POINTS = 9
_LOG_RANGE = 12.0  # sets of steps less likely than the best by exp(12) are left out
_MOST_SETS = 4000


@dataclass(frozen=True)
class ChangeSets:
    """Environments between good and bad, by the changes that they hold.

    Attributes:
        held: changes of each environment; the first is good and holds none.
        weights: prior weight of each change, such as 1.
        expected_steps: expected number of steps before measuring.
    """

    held: tuple[frozenset[int], ...]
    weights: Mapping[int, float]
    expected_steps: float = 1.0

    @property
    def bad(self) -> int:
        """Index of the environment with all changes."""
        return max(range(len(self.held)), key=lambda place: len(self.held[place]))


def ordered_levels(levels: int) -> ChangeSets:
    """Returns the change sets of so many ordered levels: good is the first, bad the last."""
    held = tuple(frozenset(range(1, level + 1)) for level in range(levels))
    return ChangeSets(held, dict.fromkeys(range(1, levels), 1.0))


@dataclass(frozen=True)
class Estimate:
    """Mean of an environment against good, with its interval.

    Attributes:
        mean: difference to good; 0 for good.
        low: lower end at the confidence of `Fit.level`; -inf before noise is known.
        high: upper end.
        blocks: blocks with this environment.
    """

    mean: float
    low: float
    high: float
    blocks: int


@dataclass(frozen=True)
class Fit:
    """Sufficient statistics of blocks, in the order of `measured` (good is left out).

    Attributes:
        change_sets: environments by their changes.
        measured: measured environments, ascending, without good.
        merged: groups of changes that measured environments tell apart.
        design: 1 where an environment holds a group; shape (measured, groups).
        precision: sum of the blocks' precisions over s^2, shape (measured, measured).
        weighted: sum of precisions times values, shape (measured,).
        squares: sum of values' squares under their precisions.
        values: number of values.
        counts: blocks by environment.
        least_step: smallest difference that counts as a step, above 0.
    """

    change_sets: ChangeSets
    measured: tuple[int, ...]
    merged: tuple[frozenset[int], ...]
    design: np.ndarray
    precision: np.ndarray
    weighted: np.ndarray
    squares: float
    values: int
    counts: Mapping[int, int]
    least_step: float

    @cached_property
    def means(self) -> np.ndarray:
        """Generalised least squares means of the measured environments, shape (measured,)."""
        return np.linalg.solve(self.precision, self.weighted)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the noise."""
        return self.values - len(self.measured)

    @cached_property
    def noise(self) -> float:
        """Standard deviation of one side in one block, at least a floor; NaN without freedom."""
        if self.freedom < 1:
            return math.nan
        left = max(self.squares - float(self.weighted @ self.means), 0.0)
        return max(math.sqrt(left / self.freedom), _LEAST_NOISE * self.least_step)

    def contrast(self, one: int, other: int, confidence: float = 0.95) -> Estimate:
        """Returns other minus one, with a t interval; both measured, or 0 for good."""
        weights = np.zeros(len(self.measured))
        for place, sign in ((one, -1.0), (other, 1.0)):
            if place:
                weights[self.measured.index(place)] += sign
        mean = float(weights @ self.means)
        blocks = min(self.counts.get(p, self.counts[0]) for p in (one, other))
        if not weights.any():
            return Estimate(0.0, 0.0, 0.0, blocks)
        if self.freedom < 1:
            return Estimate(mean, -math.inf, math.inf, blocks)
        variance = float(weights @ np.linalg.solve(self.precision, weights))
        t = float(special.stdtrit(self.freedom, 0.5 + confidence / 2))
        half = t * self.noise * math.sqrt(variance)
        return Estimate(mean, mean - half, mean + half, blocks)


def fit(change_sets: ChangeSets, blocks: Sequence[Values], least_step: float) -> Fit:
    """Summarises blocks.

    Args:
        change_sets: environments and their changes.
        blocks: at least one block; a block holds at least one environment beside good, whose
            value, 0, is left out.
        least_step: smallest difference that counts as a step, above 0.
    """
    measured = tuple(sorted({place for block in blocks for place in block}))
    where = {place: row for row, place in enumerate(measured)}
    size = len(measured)
    precision, weighted, squares = np.zeros((size, size)), np.zeros(size), 0.0
    counts = dict.fromkeys((0, *measured), 0)
    for block in blocks:
        rows = [where[place] for place in block]
        values = np.fromiter(block.values(), np.float64)
        own = np.eye(len(rows)) - 1 / (len(rows) + 1)
        precision[np.ix_(rows, rows)] += own
        weighted[rows] += own @ values
        squares += float(values @ own @ values)
        for place in (0, *block):
            counts[place] += 1
    merged = _merged(change_sets, measured)
    design = np.array(
        [[min(group) in change_sets.held[place] for group in merged] for place in measured]
    )
    return Fit(
        change_sets,
        measured,
        merged,
        design.astype(np.float64),
        precision,
        weighted,
        squares,
        sum(map(len, blocks)),
        counts,
        least_step,
    )


def _merged(change_sets: ChangeSets, measured: Sequence[int]) -> tuple[frozenset[int], ...]:
    """Groups changes by the measured environments that hold them; unheld changes are left out."""
    groups: dict[tuple[bool, ...], set[int]] = {}
    for change in change_sets.weights:
        pattern = tuple(change in change_sets.held[place] for place in measured)
        if any(pattern):
            groups.setdefault(pattern, set()).add(change)
    return tuple(sorted(map(frozenset, groups.values()), key=min))


@dataclass(frozen=True)
class Hypothesis:
    """A set of steps.

    Attributes:
        steps: merged changes with a step of at least `Fit.least_step`, as indices of `Fit.merged`.
        probability: posterior probability.
        effects: posterior means of the steps' effects, in the same order.
    """

    steps: Steps
    probability: float
    effects: tuple[float, ...]


@dataclass(frozen=True)
class Posterior:
    """Posterior over sets of steps.

    Attributes:
        fit: summary of the blocks.
        hypotheses: sets of steps, most likely first.
    """

    fit: Fit
    hypotheses: tuple[Hypothesis, ...]

    def step_probabilities(self) -> tuple[float, ...]:
        """Returns the probability of a step in each merged change."""
        found = [0.0] * len(self.fit.merged)
        for hypothesis in self.hypotheses:
            for place in hypothesis.steps:
                found[place] += hypothesis.probability
        return tuple(found)

    def credible_sets(self, coverage: float) -> tuple[tuple[frozenset[int], ...], float]:
        """Returns disjoint sets of merged changes, and the probability that each has a step.

        The sets start as the steps of the best hypothesis. A set then grows, or is given up,
        whichever adds most probability, until the coverage is reached. No set at all has
        probability 1.
        """
        sets = [{place} for place in self.hypotheses[0].steps]
        while (mass := self._hit(sets)) < coverage:
            taken = set().union(*sets)
            grown = [
                [*sets[:at], sets[at] | {place}, *sets[at + 1 :]]
                for at in range(len(sets))
                for place in range(len(self.fit.merged))
                if place not in taken
            ]
            fewer = [[*sets[:at], *sets[at + 1 :]] for at in range(len(sets))]
            sets = max([*grown, *fewer], key=self._hit)
        return tuple(frozenset(each) for each in sorted(sets, key=min)), mass

    def outside(self, places: Collection[int]) -> float:
        """Returns the probability of a step outside of these merged changes."""
        return math.fsum(
            hypothesis.probability
            for hypothesis in self.hypotheses
            if not set(hypothesis.steps) <= set(places)
        )

    def _hit(self, sets: Sequence[Iterable[int]]) -> float:
        return math.fsum(
            hypothesis.probability
            for hypothesis in self.hypotheses
            if all(not set(hypothesis.steps).isdisjoint(each) for each in sets)
        )


def posterior(summary: Fit) -> Posterior:
    """Returns the posterior over sets of steps of at least `least_step`."""
    search = _Search(summary)
    found = search.explore()
    best = max(found.values())
    scores = {steps: score for steps, score in found.items() if score > best - _LOG_RANGE}
    total = special.logsumexp(list(scores.values()))
    together: dict[Steps, float] = {}
    effects: dict[Steps, tuple[float, ...]] = {}
    for steps in sorted(scores, key=lambda steps: (-scores[steps], steps)):
        kept = [
            (place, effect)
            for place, effect in zip(steps, search.effects[steps].tolist(), strict=True)
            if abs(effect) >= summary.least_step
        ]
        large = tuple(place for place, _ in kept)
        effects.setdefault(large, tuple(effect for _, effect in kept))
        together[large] = together.get(large, 0.0) + math.exp(scores[steps] - total)
    ranked = sorted(together, key=lambda steps: (-together[steps], steps))
    return Posterior(
        summary, tuple(Hypothesis(steps, together[steps], effects[steps]) for steps in ranked)
    )


class _Search:
    """Log posterior of sets of steps, integrated over the noise and the slab.

    Attributes:
        effects: means of the effects of each evaluated set, at its likeliest noise and slab.
    """

    def __init__(self, summary: Fit) -> None:
        self.effects: dict[Steps, np.ndarray] = {}
        self._groups = len(summary.merged)
        share = summary.change_sets.expected_steps / max(
            math.fsum(summary.change_sets.weights.values()), 1.0
        )
        share = min(share, 0.5)
        weights = [
            math.fsum(summary.change_sets.weights[change] for change in group)
            for group in summary.merged
        ]
        none = np.array([weight * math.log1p(-share) for weight in weights])
        self._log_odds = np.log(-np.expm1(none)) - none
        spike = _SPIKE * summary.least_step
        slabs = [math.sqrt((s * summary.least_step) ** 2 - spike**2) for s in _SLABS]
        gram = summary.design.T @ summary.precision @ summary.design
        pull = summary.design.T @ summary.weighted
        self._nodes: list[tuple[float, np.ndarray, np.ndarray, float]] = []
        for noise, log_weight in _noises(summary):
            information, score = gram / noise**2, pull / noise**2
            # The effects without a step are integrated out first: all groups have the spike.
            spread = np.eye(self._groups) + spike**2 * information
            left = np.linalg.solve(spread.T, np.column_stack([information.T, score]))
            information_left = np.linalg.solve(spread, information)
            base = (
                log_weight
                - summary.values * math.log(noise)
                - (summary.squares / noise**2 - spike**2 * float(score @ left[:, -1])) / 2
                - float(np.linalg.slogdet(spread)[1]) / 2
            )
            self._nodes += [(base, information_left, left[:, -1], slab) for slab in slabs]

    def explore(self) -> dict[Steps, float]:
        """Evaluates sets of steps, the neighbours of likely ones first."""
        found: dict[Steps, float] = {}
        expanded: set[Steps] = set()
        wanted: set[Steps] = {(), *((place,) for place in range(self._groups))}
        while wanted and len(found) < _MOST_SETS:
            for steps in wanted:
                found.setdefault(steps, 0.0)
            self._evaluate(sorted(wanted), found)
            best = max(found.values())
            likely = sorted(
                (s for s in found if s not in expanded and found[s] > best - _LOG_RANGE),
                key=lambda s: -found[s],
            )[:20]
            expanded.update(likely)
            wanted = {near for steps in likely for near in self._near(steps)} - set(found)
        return found

    def _near(self, steps: Steps) -> Iterable[Steps]:
        others = [place for place in range(self._groups) if place not in steps]
        for place in others:
            yield tuple(sorted((*steps, place)))
        for at in range(len(steps)):
            left = (*steps[:at], *steps[at + 1 :])
            yield left
            for place in others:
                yield tuple(sorted((*left, place)))

    def _evaluate(self, wanted: Sequence[Steps], found: dict[Steps, float]) -> None:
        for size in sorted({len(steps) for steps in wanted}):
            alike = [steps for steps in wanted if len(steps) == size]
            places = np.array(alike, dtype=np.intp).reshape(len(alike), size)
            at_nodes = [self._at_node(node, places) for node in self._nodes]
            scores = np.array([score for score, _ in at_nodes])
            totals = special.logsumexp(scores, axis=0) + self._log_odds[places].sum(axis=1)
            likeliest = scores.argmax(axis=0)
            for row, steps in enumerate(alike):
                found[steps] = float(totals[row])
                self.effects[steps] = at_nodes[likeliest[row]][1][row]

    @staticmethod
    def _at_node(
        node: tuple[float, np.ndarray, np.ndarray, float], places: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log likelihoods of sets of equal size, and the means of their effects."""
        base, information, score, slab = node
        size = places.shape[1]
        if not size:
            return np.full(len(places), base), np.zeros((len(places), 0))
        own = information[places[:, :, None], places[:, None, :]] + np.eye(size) / slab**2
        pulls = score[places]
        effects = np.linalg.solve(own, pulls[:, :, None])[:, :, 0]
        log_determinants = np.linalg.slogdet(own)[1] + 2 * size * math.log(slab)
        return base + ((pulls * effects).sum(axis=1) - log_determinants) / 2, effects


def _noises(summary: Fit) -> list[tuple[float, float]]:
    """Values of the noise of a side with log weights: uniform in the logarithm."""
    centre = summary.noise
    if math.isnan(centre):
        centre, width = _FIRST_NOISE * summary.least_step, 0.5
    else:
        width = max(1 / math.sqrt(2 * summary.freedom), 0.1)
    # The upper tail is the longer one: a small sample hides noise.
    points = np.linspace(-2.5, 4.0, _NOISE_POINTS) * width
    least = _LEAST_NOISE * summary.least_step
    noises = np.maximum(centre * np.exp(points), least)
    return [(float(noise), 0.0) for noise in noises]
