"""Bisections on drawn blocks of known truth: hit rate, coverage and cost, beside binary search.

Real blocks of equal environments give the noise: a drawn block takes the sides of a stored block in
random order. Planted steps are added to the logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bench.plans.bisect import next_environments
from bench.records.blocks import Results
from bench.verdicts.bisection.posterior import ordered_levels
from bench.verdicts.bisection.walk import Difference, Search, Walk
from bench.verdicts.sequential import block_value
from lenet5.errors import InputError

MOST_BLOCKS = 60


@dataclass(frozen=True)
class Bank:
    """Blocks of equal environments.

    Attributes:
        ratios: log-ratio of side j over side i in each block, float64 of shape
            (blocks, sides, sides).
        times: log of each side's mean time, float64 of shape (blocks, sides).
    """

    ratios: np.ndarray
    times: np.ndarray


def bank_of(found: Results, workload: str) -> Bank:
    """Reads a bank from results of equal environments, measured side by side.

    Raises:
        InputError: no block has all sides.
    """
    sides = 1 + len(found.candidates)
    by_number: dict[int, dict[int, tuple[float, ...]]] = {}
    for block in found.blocks:
        if workload in block.samples:
            samples = block.samples[workload]
            own = by_number.setdefault(block.number, {0: samples.baseline.values})
            own[1 + block.candidate] = samples.candidate.values
    whole = [own for own in by_number.values() if len(own) == sides]
    if not whole:
        raise InputError(f"no block has all {sides} sides of {workload}")
    logs = [np.log([own[side] for side in range(sides)]) for own in whole]
    ratios = [
        [
            [block_value(own[j] - own[i]) if i != j else 0.0 for j in range(sides)]
            for i in range(sides)
        ]
        for own in logs
    ]
    return Bank(np.array(ratios), np.array([own.mean(axis=1) for own in logs]))


@dataclass(frozen=True)
class Truth:
    """Planted steps on an axis.

    Attributes:
        levels: number of levels, with good and bad.
        steps: effect by change, as a logarithm.
        missing: levels that do not install.
    """

    levels: int
    steps: Mapping[int, float]
    missing: frozenset[int] = frozenset()

    @property
    def means(self) -> np.ndarray:
        """Mean of every level against good."""
        means = np.zeros(self.levels)
        for change, effect in self.steps.items():
            means[change:] += effect
        return means


Kind = Callable[[np.random.RandomState, int], Truth]


def one_step(ratio: float) -> Kind:
    """Returns a kind of walk: one step of this ratio at a random level."""

    def plant(random: np.random.RandomState, levels: int) -> Truth:
        return Truth(levels, {int(random.randint(1, levels)): math.log(ratio)})

    return plant


def steps_of(*ratios: float) -> Kind:
    """Returns a kind of walk: steps of these ratios, in this order, at random different levels."""

    def plant(random: np.random.RandomState, levels: int) -> Truth:
        places = sorted(random.permutation(np.arange(1, levels))[: len(ratios)])
        return Truth(levels, {int(p): math.log(r) for p, r in zip(places, ratios, strict=True)})

    return plant


def with_missing(kind: Kind, count: int) -> Kind:
    """Returns a kind of walk with so many levels missing between the ends."""

    def plant(random: np.random.RandomState, levels: int) -> Truth:
        truth = kind(random, levels)
        gone = random.permutation(np.arange(1, levels - 1))[:count]
        return Truth(levels, truth.steps, frozenset(map(int, gone)))

    return plant


KINDS: Mapping[str, Kind] = {
    "one step of 2 %": one_step(1.02),
    "one step of 3 %": one_step(1.03),
    "one step of 6 %": one_step(1.06),
    "two steps, 3 % each": steps_of(1.03, 1.03),
    "6 %, half taken back": steps_of(1.06, 1 / 1.03),
    "3 %, three levels missing": with_missing(one_step(1.03), 3),
    "no step": steps_of(),
}


@dataclass(frozen=True)
class Counts:
    """Results of simulated walks of one kind.

    Attributes:
        walks: number of walks.
        right: walks that report the planted steps, all and no others, each as one change; without
            steps: walks that report none.
        answered: walks with an answer: verified steps, or less than a step between the ends.
        covered: answers of which every credible set holds a planted step; without sets: answers
            without planted steps.
        blocks: mean number of blocks.
        sides: mean number of started sides.
    """

    walks: int
    right: int
    answered: int
    covered: int
    blocks: float
    sides: float


def simulate(
    kind: Kind, bank: Bank, *, levels: int, least_step: float, walks: int, seed: int
) -> Counts:
    """Counts walks of one kind."""
    right = answered = covered = blocks = sides = 0
    for number in range(walks):
        random = np.random.RandomState(seed + number)
        truth = kind(random, levels)
        found, started = _follow(truth, bank, least_step, random, seed + number)
        says_none = found.difference is Difference.NONE or found.is_spread
        if found.is_verified:
            answered += 1
            covered += all(each & set(truth.steps) for each in found.credible_sets)
            right += set(found.credible_sets) == _findable(found.search, truth)
        elif says_none:
            answered += 1
            covered += not truth.steps
            right += not truth.steps
        blocks += len(found.blocks)
        sides += started
    return Counts(walks, right, answered, covered, blocks / walks, sides / walks)


def _follow(
    truth: Truth, bank: Bank, least_step: float, random: np.random.RandomState, seed: int
) -> tuple[Walk, int]:
    search = Search(ordered_levels(truth.levels), least_step, truth.missing)
    now, sides = Walk(search), 0
    while places := next_environments(now, is_in_budget=len(now.blocks) < MOST_BLOCKS, seed=seed):
        ratios = _drawn(bank, 1 + len(places), random)[0]
        values = {p: float(truth.means[p] + r) for p, r in zip(places, ratios[1:], strict=True)}
        now = now.extended(values)
        sides += 1 + len(places)
    return now, sides


def _drawn(bank: Bank, sides: int, random: np.random.RandomState) -> np.ndarray:
    """Draws a block's log-ratios among so many sides, in random order."""
    block = int(random.randint(len(bank.ratios)))
    places = random.permutation(bank.ratios.shape[1])[:sides]
    if len(places) < sides:
        raise InputError(f"the bank's blocks have {len(places)} sides, {sides} are needed")
    return np.asarray(bank.ratios[block][np.ix_(places, places)])


def _findable(search: Search, truth: Truth) -> set[frozenset[int]]:
    """Returns the planted steps as the groups of changes that runnable levels tell apart."""
    there = [0, *search.runnable]
    groups = [frozenset(range(before + 1, after + 1)) for before, after in pairwise(there)]
    return {group for group in groups if group & set(truth.steps)}


def binary_search(
    kind: Kind, bank: Bank, *, levels: int, walks: int, seed: int, is_paired: bool
) -> Counts:
    """Counts plain binary searches: one comparison a level, the nearer end decides.

    Args:
        kind: kind of walk; the same planted steps as in `simulate`.
        bank: blocks of equal environments.
        levels: number of levels.
        walks: number of searches.
        seed: seed of the draws.
        is_paired: whether a level is measured side by side with good, or good once at the start
            and each level alone, one after the other.
    """
    right = blocks = 0
    for number in range(walks):
        random = np.random.RandomState(seed + number)
        truth = kind(random, levels)
        there = [place for place in range(levels) if place not in truth.missing]

        def value(
            place: int, truth: Truth = truth, random: np.random.RandomState = random
        ) -> float:
            if is_paired:
                return float(truth.means[place] + _drawn(bank, 2, random)[0][1])
            one, other = random.randint(bank.times.size, size=2)
            return float(truth.means[place] + bank.times.flat[other] - bank.times.flat[one])

        bad = value(levels - 1)
        low, high, used = 0, len(there) - 1, 1
        while high - low > 1:
            middle = (low + high) // 2
            is_like_bad = abs(value(there[middle]) - bad) < abs(value(there[middle]))
            low, high, used = (low, middle, used + 1) if is_like_bad else (middle, high, used + 1)
        blamed = set(range(there[low] + 1, there[high] + 1))
        right += bool(blamed & set(truth.steps))
        blocks += used
    return Counts(walks, right, walks, right, blocks / walks, 2 * blocks / walks)


def noise_of(bank: Bank) -> tuple[float, float]:
    """Standard deviation of a log-ratio side by side, and of one block after the other."""
    sides = bank.ratios.shape[1]
    paired = np.array([own[np.triu_indices(sides, 1)] for own in bank.ratios])
    return float(np.sqrt((paired**2).mean())), float(math.sqrt(2) * bank.times.std(ddof=1))
