"""Stages of a walk: releases first, then nightly builds, then packages."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bench.environments.axes import Axis, Level, axis_between, nightlies_between
from bench.environments.builds import Built
from bench.environments.request import Request
from bench.environments.swaps import Change, changes, swapped
from bench.records.stages import ENDS, PACKAGES, Place, Stage, ordered_stage

# Packages that a step is blamed on one by one; all others are one change.
_ONE_BY_ONE = 8
_FIRST = ("TensorFlow", "Keras", "numpy", "h5py", "ml-dtypes", "protobuf")
_OTHERS = "other packages"
_LONGEST_NAME = 60


def first_stage(good: Request, bad: Request, given: Sequence[Request]) -> Stage:
    """Returns the axis between two requests; without one, a stage of good and bad alone.

    Raises:
        InputError: a level is given twice, or equals an end.
        EnvironmentProblem: the index cannot be read.
    """
    axis = axis_between(good, bad, given=given)
    if axis is None:
        names = _names(good, bad)
        return ordered_stage(ENDS, "", {names[0]: good.text, names[1]: bad.text})
    return _stage_of(axis)


def nightly_stage(good: Level, bad: Level, package: str) -> Stage | None:
    """Returns the nightly builds between two neighbouring levels; None without any."""
    axis = nightlies_between(good, bad, package)
    return None if axis is None or len(axis.levels) < 3 else _stage_of(axis)


def _stage_of(axis: Axis) -> Stage:
    return ordered_stage(
        axis.kind, axis.package, {level.name: level.request.text for level in axis.levels}
    )


def package_stage(good: Built, bad: Built, names: tuple[str, str]) -> Stage | None:
    """Returns good with each new package, and bad without it; None if at most one differs.

    Args:
        good: environment before the step.
        bad: environment after the step.
        names: names of both.
    """
    if good.request.interpreter is not None or bad.request.interpreter is not None:
        return None  # packages of an existing Python cannot be exchanged
    groups = _grouped(changes(good, bad))
    if len(groups) < 2:
        return None
    every = tuple(range(1, len(groups) + 1))
    places = [Place(names[0], (good.request.text,))]
    for number, group in zip(every, groups, strict=True):
        packages = [change.name for change in group]
        name = _named(group)
        with_it = [request.text for request in swapped(good, bad, packages)]
        without = [request.text for request in swapped(bad, good, packages)]
        others = tuple(other for other in every if other != number)
        if with_it:
            places.append(Place(f"{names[0]} with {name}", tuple(with_it), (number,)))
        if without and len(others) > 1:
            places.append(Place(f"{names[1]} without {name}", tuple(without), others))
    places.append(Place(names[1], (bad.request.text,), every))
    told = {str(number): _named(group) for number, group in zip(every, groups, strict=True)}
    return Stage(PACKAGES, "", tuple(places), told, dict.fromkeys(told, 1.0))


def _grouped(found: Sequence[Change]) -> list[list[Change]]:
    """Returns well-known packages one by one, and all others as one group."""
    ranked = sorted(found, key=lambda change: (_rank(change.name), change.name))
    alone = ranked if len(ranked) <= _ONE_BY_ONE else [c for c in ranked if c.name in _FIRST]
    rest = [change for change in ranked if change not in alone]
    return [*([change] for change in alone), *([rest] if rest else [])]


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _named(group: Sequence[Change]) -> str:
    """Returns `Keras 3.6.0 to 3.7.0`, or the number of packages of a group."""
    if len(group) > 1:
        return f"{len(group)} {_OTHERS}"
    (change,) = group
    return f"{change.name} {change.before or 'none'} to {change.after or 'none'}"


def _names(good: Request, bad: Request) -> tuple[str, str]:
    """Returns the words that differ, as names of the ends."""
    both = [shlex.split(request.text) for request in (good, bad)]
    own = [
        " ".join(word for word in words if word not in other) or "without"
        for words, other in zip(both, both[::-1], strict=True)
    ]
    if own[0] == own[1] or max(map(len, own)) > _LONGEST_NAME:
        return "good", "bad"
    return own[0], own[1]
