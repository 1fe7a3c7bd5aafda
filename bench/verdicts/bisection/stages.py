"""A stage's ledger as a walk: values of its blocks, and levels that cannot be measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from bench.records.blocks import Results, WorkloadTerms
from bench.records.stages import DATES, Stage, stage_of
from bench.verdicts.bisection.posterior import ChangeSets, Estimate, Values
from bench.verdicts.bisection.walk import Search, Walk, walk
from bench.verdicts.faults import faults_of
from bench.verdicts.sequential import block_value
from bench.verdicts.speed import FAILURES_THAT_DECIDE


@dataclass(frozen=True)
class Missing:
    """A place that cannot be measured, with the reason in one line."""

    place: int
    reason: str


def change_sets_of(stage: Stage) -> ChangeSets:
    """Returns the changes of a stage's places."""
    held = tuple(frozenset(place.held) for place in stage.places)
    return ChangeSets(held, {int(change): weight for change, weight in stage.weights.items()})


def least_step(terms: WorkloadTerms) -> float:
    """Smallest difference that counts as a step: a third of the margin, on the values' scale."""
    return (terms.margin if terms.is_difference else math.log(terms.margin)) / 3


def speed_walk(results: Results) -> Walk:
    """Follows the walk of a stage of speed.

    Args:
        results: ledger of one workload; good is its baseline.
    """
    stage = stage_of(results.options)
    missing = frozenset(found.place for found in missing_places(results))
    (terms,) = results.workloads.values()
    search = Search(change_sets_of(stage), least_step(terms), missing)
    return walk(search, speed_values(results))


def speed_values(results: Results) -> list[Values]:
    """Returns the values of every block that has any: log-ratios, or differences, to good.

    A level that crashes, hangs or computes another result in two blocks has no values.
    """
    ((name, terms),) = results.workloads.items()
    places = places_of(results)
    unusable_ones = {at for at in range(len(places)) if unusable(results, at)}
    values: dict[int, dict[int, float]] = {}
    for block in results.blocks:
        if name in block.samples and block.candidate not in unusable_ones:
            samples = block.samples[name]
            own, good = (np.asarray(s.values) for s in (samples.candidate, samples.baseline))
            differences = own - good if terms.is_difference else np.log(own) - np.log(good)
            number = values.setdefault(block.number, {})
            number[places[block.candidate]] = block_value(differences)
    return [values[number] for number in sorted(values)]


def missing_places(results: Results) -> list[Missing]:
    """Returns the places whose last request could not be built, or fails in two blocks."""
    stage, places = stage_of(results.options), places_of(results)
    reasons: dict[int, str] = {}
    for candidate, place in enumerate(places):
        reasons.pop(place, None)
        if reason := unusable(results, candidate):
            reasons[place] = reason
    return [
        Missing(place, reason)
        for place, reason in sorted(reasons.items())
        if places.count(place) == len(stage.places[place].requests)
    ]


def places_of(results: Results) -> tuple[int, ...]:
    """Returns the place of each candidate; an unusable one may have successors."""
    stage = stage_of(results.options)
    return tuple(stage.place_of(side.request) for side in results.candidates)


def unusable(results: Results, candidate: int) -> str:
    """Returns why a candidate cannot be measured, in one line; empty if it can."""
    side = results.candidates[candidate]
    if side.problem:
        return side.reason
    if stage_of(results.options).kind == DATES:
        for other in (results.baseline, *results.candidates[:candidate]):
            if other.lock == side.lock:
                return f"same packages as {other.request}"
    blocks = [block for block in results.blocks if block.candidate == candidate]
    (name,) = results.workloads
    return _repeated(faults_of(blocks, name).candidate)


def good_fails(results: Results) -> str:
    """Returns why good cannot be measured, in one line; empty if it can."""
    by_number = {block.number: block for block in results.blocks}
    (name,) = results.workloads
    return _repeated(faults_of([*by_number.values()], name).baseline)


def _repeated(faults: Sequence[str]) -> str:
    """Returns the first fault if it is no accident: fresh processes repeated it."""
    return faults[0] if len(faults) >= FAILURES_THAT_DECIDE else ""


def closure(results: Results, found: Walk, middle: int) -> Estimate | None:
    """Checks log r(good, bad) = log r(good, middle) + log r(middle, bad).

    The right side comes from the blocks with the middle level, each ratio from its own pairs; the
    left side from all other blocks. A third side in a block that changed the times of the others
    would open a gap.

    Returns:
        The left minus the right side with its 95 % interval; None without two blocks of each kind.
    """
    places = places_of(results)
    bad = found.search.change_sets.bad
    ((name, terms),) = results.workloads.items()
    sides: dict[int, dict[int, np.ndarray]] = {}
    for block in results.blocks:
        if name in block.samples:
            samples = block.samples[name]
            own = sides.setdefault(block.number, {0: np.asarray(samples.baseline.values)})
            own[places[block.candidate]] = np.asarray(samples.candidate.values)
    if not terms.is_difference:
        sides = {n: {p: np.log(own) for p, own in block.items()} for n, block in sides.items()}
    whole = [block for block in sides.values() if bad in block]
    left = [block_value(b[bad] - b[0]) for b in whole if middle not in b]
    right = [
        block_value(b[middle] - b[0]) + block_value(b[bad] - b[middle])
        for b in whole
        if middle in b
    ]
    if found.fit is None or min(len(left), len(right)) < 2 or found.fit.freedom < 1:
        return None
    gap = float(np.mean(left) - np.mean(right))
    t = float(special.stdtrit(found.fit.freedom, 0.975))
    half = t * found.fit.noise * math.sqrt(2 / len(left) + 2 / len(right))
    return Estimate(gap, gap - half, gap + half, len(right))
