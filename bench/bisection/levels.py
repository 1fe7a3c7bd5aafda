"""Levels of a stage as environments: a level that cannot be built is a gap, not an end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.environments.axes import Level
from bench.environments.builds import Built, build
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import parse_request
from bench.records.sides import Side, difference, labelled, named_sides
from bench.records.stages import Stage
from lenet5.errors import InputError

_LONGEST = 100  # characters of a request in a line of progress


@dataclass(frozen=True)
class Wanted:
    """A task: build a request of a place.

    Attributes:
        place: the place.
        request: the request.
        at: number of the side that an earlier session measured with it; None for a new side.
    """

    place: int
    request: str
    at: int | None


@dataclass(frozen=True)
class Joined:
    """The record of a build."""

    wanted: Wanted
    built: Built | EnvironmentProblem


def join(
    sides: Sequence[Side], record: Joined, built: Mapping[int, Built]
) -> tuple[list[Side], dict[int, Built]]:
    """Adds a build: a new side with a label of its own, or the environment of an earlier one.

    Args:
        sides: good, then all others.
        record: the build.
        built: environments of this session by place.

    Returns:
        All sides and environments.

    Raises:
        EnvironmentProblem: a measured environment cannot be built again.
        InputError: it has changed since.
    """
    wanted = record.wanted
    (side,) = named_sides([parse_request(wanted.request)], [record.built])
    now = [*sides]
    if wanted.at is None:
        now = labelled([*sides, side])
    elif not isinstance(record.built, Built):
        raise record.built
    elif unlike := difference(sides[wanted.at], side):
        raise InputError(f"{wanted.request} has changed since it was measured: {unlike}")
    known = {**built}
    if isinstance(record.built, Built):
        known[wanted.place] = record.built
    return now, known


def built_or_problem(
    request: str, cache: Path, say: Callable[[str], None]
) -> Built | EnvironmentProblem:
    """Builds an environment; returns the problem in place of a failed one.

    Args:
        request: the request; with exchanged packages it names every package.
        cache: folder of environments and locks.
        say: receives short lines on the build.
    """

    def say_shortly(line: str) -> None:
        rest = line.removeprefix(request)
        told = request if len(request) <= _LONGEST else f"{request[:_LONGEST]}…"
        say(f"{told}{rest}" if len(rest) < len(line) else line)

    try:
        return build(parse_request(request), cache, say=say_shortly)
    except EnvironmentProblem as problem:
        say_shortly(str(problem))
        return problem


def step_of(
    stage: Stage, places: Sequence[int], request: Callable[[int], str]
) -> tuple[Level, Level] | None:
    """Returns the levels on both sides of a step; None without one.

    Args:
        stage: the stage.
        places: places before and after the step; empty without one.
        request: returns the request in use at a place.
    """
    if not places:
        return None
    before, after = (Level(stage.places[p].name, parse_request(request(p))) for p in places)
    return before, after
