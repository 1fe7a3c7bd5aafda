"""Builds of levels: a level that cannot be built is a gap, not an end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.environments.builds import Built, build
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import parse_request


def built_or_problem(
    request: str, cache: Path, say: Callable[[str], None]
) -> Built | EnvironmentProblem:
    """Builds an environment; returns the problem in place of a failed one."""
    try:
        return build(parse_request(request), cache, say=say)
    except EnvironmentProblem as problem:
        say(str(problem))
        return problem
