"""A stage of accuracy as a walk: a block is a seed, its values are numbers of wrong images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.records.stages import Stage
from bench.records.trainings import Comparison, Trainings
from bench.verdicts.bisection.posterior import Values
from bench.verdicts.bisection.stages import Missing, change_sets_of
from bench.verdicts.bisection.walk import Search, Walk, walk


def accuracy_walk(stage: Stage, sets: Sequence[Trainings], comparison: Comparison) -> Walk:
    """Follows the walk of a stage of accuracy.

    Args:
        stage: environments and changes.
        sets: seeds of good, then of each level.
        comparison: margin; a third of it is the least step.
    """
    images = next((t.images for item in sets for t in item.seeds), 10_000)
    least_step = comparison.margin_points / 100 * images / 3
    missing = frozenset(found.place for found in missing_levels(stage, sets))
    search = Search(change_sets_of(stage), least_step, missing)
    return walk(search, accuracy_values(stage, sets))


def accuracy_values(stage: Stage, sets: Sequence[Trainings]) -> list[Values]:
    """Returns wrong images minus good's by place, for each seed of good and a level."""
    good, *others = sets
    values: list[Values] = []
    for trained in good.seeds:
        block = {
            stage.place_of(item.side.request): float(own.wrong - trained.wrong)
            for item in others
            for own in item.seeds
            if own.seed == trained.seed and own.wrong is not None and trained.wrong is not None
        }
        if block:
            values.append(block)
    return values


def missing_levels(stage: Stage, sets: Sequence[Trainings]) -> list[Missing]:
    """Returns the places whose last request cannot be built, or cannot train a seed."""
    tried: dict[int, list[str]] = {}
    for item in sets[1:]:
        tried.setdefault(stage.place_of(item.side.request), []).append(problem_of(item))
    return [
        Missing(place, problems[-1])
        for place, problems in sorted(tried.items())
        if problems[-1] and len(problems) == len(stage.places[place].requests)
    ]


def problem_of(item: Trainings) -> str:
    """Returns why a set has no seed or an invalid one, in one line; empty if it has not."""
    if item.problem:
        return replace(item.side, problem=item.problem).reason
    return next((f"seed {t.seed}: {t.problem}" for t in item.seeds if t.wrong is None), "")
