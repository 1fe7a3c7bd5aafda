"""What a walk knows after some blocks: do the ends differ, where, and do fresh blocks agree?

The error is spent over the walk, 5 % in all:

| question | error | how |
|---|---|---|
| do good and bad differ? | 2 % | two-sided t tests over blocks, at the looks of speed verdicts |
| does every credible set hold a step? | 2.5 % | posterior of all blocks of the search |
| are the largest steps there, both ways? | 0.5 % | one-sided t tests of blocks after the search |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
from scipy import special

from bench.verdicts.bisection.posterior import (
    ChangeSets,
    Estimate,
    Fit,
    Posterior,
    Values,
    fit,
    posterior,
)
from bench.verdicts.sequential import LOOKS

COVERAGE = 0.975  # of the credible sets
_MOST_OUTSIDE = 0.1  # probability of a further step, at the end of the search
_CONFIRM_SHARE = 0.4  # of the looks' one-sided 2.5 %
_VERIFY_LOOKS = (4, 8)
_VERIFY_ALPHA = 0.0025  # one-sided, of a look, shared by the pairs
VERIFIED_STEPS = 2  # a block holds good, bad and both sides of so many steps


class Difference(str, Enum):
    """Difference between good and bad."""

    OPEN = "not decided"
    SHOWN = "shown"
    NONE = "less than a step"


@dataclass(frozen=True)
class Search:
    """Terms of a walk over one axis.

    Attributes:
        change_sets: environments by their changes.
        least_step: smallest difference that counts as a step, on the scale of the values.
        missing: environments that cannot be built or run.
    """

    change_sets: ChangeSets
    least_step: float
    missing: frozenset[int] = frozenset()

    @property
    def runnable(self) -> tuple[int, ...]:
        """Environments that can be measured beside good, ascending."""
        places = range(1, len(self.change_sets.held))
        return tuple(place for place in places if place not in self.missing)


@dataclass(frozen=True)
class Check:
    """A step in fresh blocks.

    Attributes:
        before: environment without the change.
        after: environment that differs by the change alone.
        step: after minus before, with the interval of the test.
        is_shown: whether the step has the sign of the search.
    """

    before: int
    after: int
    step: Estimate
    is_shown: bool


@dataclass(frozen=True)
class Walk:
    """What is known after some blocks.

    Attributes:
        search: terms.
        blocks: values of all blocks, in the order of measurement.
        searched: the walk at the end of its search; None before. Fresh blocks must not choose
            what they verify.
    """

    search: Search
    blocks: tuple[Values, ...] = ()
    searched: Walk | None = None

    @cached_property
    def difference(self) -> Difference:
        """Whether good and bad differ."""
        return difference(self.search, self.blocks)

    @cached_property
    def fit(self) -> Fit | None:
        """Summary of all blocks."""
        return (
            fit(self.search.change_sets, self.blocks, self.search.least_step)
            if self.blocks
            else None
        )

    @cached_property
    def posterior(self) -> Posterior | None:
        """Posterior of all blocks."""
        return posterior(self.fit) if self.fit is not None else None

    @cached_property
    def credible_sets(self) -> tuple[frozenset[int], ...]:
        """Sets of changes of which each holds a step, with the coverage for all at once."""
        found = (self.searched or self).posterior
        if found is None:
            return ()
        merged = found.fit.merged
        sets, _ = found.credible_sets(COVERAGE)
        return tuple(frozenset().union(*(merged[place] for place in each)) for each in sets)

    @cached_property
    def culprits(self) -> tuple[frozenset[int], ...]:
        """The credible sets by the size of their steps, if the search has ended."""
        found = None if self.searched is None else self.searched.posterior
        if found is None:
            return ()
        best, merged = found.hypotheses[0], found.fit.merged
        sizes = {merged[p]: abs(e) for p, e in zip(best.steps, best.effects, strict=True)}
        return tuple(sorted(self.credible_sets, key=lambda s: sizes.get(s, 0.0), reverse=True))

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of environments that differ by one of the largest steps alone."""
        largest = self.culprits[:VERIFIED_STEPS]
        return tuple(pair for group in largest for pair in ways(self.search, group))

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """The largest steps in the blocks measured after the search."""
        before = None if self.searched is None else self.searched.fit
        if before is None or self.fit is None:
            return ()
        fresh = self.blocks[len(self.blocks) - self.fresh :]
        alpha = _VERIFY_ALPHA / max(len(self.pairs), 1)
        found = []
        for pair in self.pairs:
            step = _fresh_step(self.fit, fresh, pair, alpha)
            if step is not None:
                is_up = before.contrast(*pair).mean > 0
                found.append(Check(*pair, step, step.low > 0 if is_up else step.high < 0))
        return tuple(found)

    def extended(self, block: Values) -> Walk:
        """Returns the walk after another block."""
        longer = Walk(self.search, (*self.blocks, block), self.searched)
        if self.searched is None and _is_located(longer):
            return Walk(self.search, longer.blocks, longer)
        return longer

    @property
    def is_verified(self) -> bool:
        """Whether fresh blocks show the largest steps in every way that runs."""
        has_all = bool(self.checks) and len(self.checks) == len(self.pairs)
        return has_all and self.fresh >= _VERIFY_LOOKS[0] and all(c.is_shown for c in self.checks)

    @cached_property
    def is_spread(self) -> bool:
        """Whether good and bad differ, but every change is shown to be less than a step.

        All intervals hold at once with the coverage of credible sets (Bonferroni).
        """
        if self.difference is not Difference.SHOWN or self.fit is None:
            return False
        groups, least = self.fit.merged, self.search.least_step
        if not set(required(self.search)) <= set(self.fit.measured):
            return False
        known = {0, *self.fit.measured}
        for group in groups:
            pairs = [pair for pair in ways(self.search, group) if set(pair) <= known]
            if not pairs:
                return False
            step = self.fit.contrast(*pairs[0], 1 - (1 - COVERAGE) / len(groups))
            if not -least < step.low <= step.high < least:
                return False
        return True

    @property
    def fresh(self) -> int:
        """Number of blocks measured after the search."""
        return 0 if self.searched is None else len(self.blocks) - len(self.searched.blocks)

    @property
    def is_over(self) -> bool:
        """Whether more blocks are of no use."""
        if self.difference is Difference.NONE or (self.searched is None and self.is_spread):
            return True
        if self.fresh not in _VERIFY_LOOKS:
            return False
        return self.fresh == _VERIFY_LOOKS[-1] or (self.is_verified and _is_located(self))


def walk(search: Search, blocks: Sequence[Values]) -> Walk:
    """Follows a walk: the search ends at the first block after which all sets are final."""
    found = Walk(search)
    for block in blocks:
        found = found.extended(block)
    return found


def _is_located(now: Walk) -> bool:
    """Returns whether good and bad differ, and no measurable level would narrow a credible set."""
    search, summary = now.search, now.fit
    if now.difference is not Difference.SHOWN or summary is None or now.posterior is None:
        return False
    if not set(required(search)) <= set(summary.measured):
        return False
    sets, _ = now.posterior.credible_sets(COVERAGE)
    if not sets or any(len(each) > 1 for each in sets):
        return False
    places = frozenset().union(*sets)
    is_final = not any(splits(search, summary.merged[place]) for place in places)
    return is_final and now.posterior.outside(places) <= _MOST_OUTSIDE


def splits(search: Search, group: frozenset[int]) -> tuple[int, ...]:
    """Returns the runnable environments that hold a part of a group of changes."""
    return tuple(
        place
        for place in search.runnable
        if 0 < len(search.change_sets.held[place] & group) < len(group)
    )


_WHOLE_PROFILE = 12  # levels; of longer axes so many, evenly spaced, are measured in any case
_LONG_PROFILE = 5


def required(search: Search) -> tuple[int, ...]:
    """Returns the environments that a profile needs: all of a short axis."""
    places = search.runnable
    if len(places) <= _WHOLE_PROFILE:
        return places
    spaced = np.linspace(0, len(places) - 1, _LONG_PROFILE).round().astype(int)
    return tuple(sorted({*(places[at] for at in spaced), search.change_sets.bad}))


def difference(search: Search, blocks: Sequence[Values]) -> Difference:
    """Decides whether good and bad differ by a step, by t tests at fixed looks."""
    values = [block[search.change_sets.bad] for block in blocks if search.change_sets.bad in block]
    for look in LOOKS:
        if len(values) < look.blocks:
            break
        low, high = _interval(values[: look.blocks], look.alpha * _CONFIRM_SHARE, search)
        if -search.least_step < low and high < search.least_step:
            return Difference.NONE
        if low > 0 or high < 0:
            return Difference.SHOWN
    return Difference.OPEN


def _interval(values: Sequence[float], alpha: float, search: Search) -> tuple[float, float]:
    array = np.asarray(values, np.float64)
    deviation = max(float(array.std(ddof=1)), 0.02 * search.least_step)
    half = -float(special.stdtrit(len(array) - 1, alpha)) * deviation / math.sqrt(len(array))
    return float(array.mean()) - half, float(array.mean()) + half


def ways(search: Search, group: frozenset[int]) -> tuple[tuple[int, int], ...]:
    """Returns pairs of runnable environments that differ by a group of changes alone.

    Two where they exist: good with the change, and bad without it.
    """
    held = search.change_sets.held
    there = {held[place]: place for place in (0, *search.runnable)}
    pairs = [
        (before, there[own | group])
        for own, before in there.items()
        if not own & group and own | group in there
    ]
    pairs.sort(key=lambda pair: len(held[pair[0]]))
    return tuple(dict.fromkeys([*pairs[:1], *pairs[-1:]]))


def _fresh_step(
    summary: Fit, fresh: Sequence[Values], pair: tuple[int, int], alpha: float
) -> Estimate | None:
    """Returns a pair's step in fresh blocks, with the noise of all blocks; None without any."""
    before, after = pair
    found = [
        block.get(after, 0.0) - block.get(before, 0.0)
        for block in fresh
        if all(place == 0 or place in block for place in pair)
    ]
    if not found or summary.freedom < 1:
        return None
    mean = float(np.mean(found))
    half = -float(special.stdtrit(summary.freedom, alpha))
    half *= summary.noise * math.sqrt(2 / len(found))
    return Estimate(mean, mean - half, mean + half, len(found))
