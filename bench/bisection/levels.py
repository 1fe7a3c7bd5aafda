"""Levels of a stage as environments: a level that cannot be built is a gap, not an end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.environments.axes import Level
from bench.environments.builds import Built, build
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import parse_request
from bench.records.stages import Stage


def built_or_problem(
    request: str, cache: Path, say: Callable[[str], None]
) -> Built | EnvironmentProblem:
    """Builds an environment; returns the problem in place of a failed one."""
    try:
        return build(parse_request(request), cache, say=say)
    except EnvironmentProblem as problem:
        say(str(problem))
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
