"""A stage of numerics: which level changes the bits of TensorFlow's results?

Bits have no noise: a level is computed once, and levels with equal bits have no step between them
that lasted. Of a long axis, only intervals whose ends differ are divided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from bench.bisection.flow import Measured, Say
from bench.bisection.levels import built_or_problem, step_of
from bench.environments.builds import Built
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import parse_request
from bench.measure import machine
from bench.measure.numerics import compute_in
from bench.measure.processes import WorkerError, interpreter_of
from bench.measure.worker_files import numerics_code
from bench.records import levels
from bench.records.levels import Computed, Levels
from bench.records.numerics import QUANTITIES, Quantities, make_problem
from bench.records.sides import named_sides
from bench.records.stages import Stage
from bench.report.bisection.numerics import numerics_section
from bench.report.bisection.page import Section
from bench.verdicts.bisection.numerics import by_place, next_place, steps_of
from bench.verdicts.numerics import deviations, solve
from lenet5.data import Subset
from lenet5.errors import InputError


@dataclass(frozen=True)
class NumericsStages:
    """Computes stages of numerics.

    Attributes:
        training: MNIST's training images.
        cache: folder of environments and locks.
        say: receives lines on builds.
    """

    training: Subset
    cache: Path
    say: Say

    def stored(self, path: Path) -> Stage | None:
        """Returns the stage in a ledger; None without one."""
        return levels.read(path).stage if levels.is_begun(path) else None

    def measure(self, stage: Stage, path: Path, show: Callable[[Section, str], None]) -> Measured:
        """Computes a stage to its end, or goes on with its ledger.

        Raises:
            InputError: the ledger has another stage, machine or code.
            EnvironmentProblem: good or bad cannot be built or computed.
        """
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        begun = Levels(stage, machine.describe(), numerics_code(), started)
        found = begun
        if levels.is_begun(path):
            found = levels.read(path)
            if replace(found, computed=(), started=started) != begun:
                raise InputError("--out holds a walk of another kind: choose another folder")
        truth = solve(make_problem(self.training))
        with levels.keeping(path, self.cache, begun) as keep:
            while (wanted := next_place(found)) is not None:
                place, request = wanted
                one = self._compute(request, truth)
                keep(one)
                found = replace(found, computed=(*found.computed, one))
                _check_ends(found)
                told = one.problem or f"{stage.places[place].name}: computed"
                show(numerics_section(found, path.name), told)
        requests = {place: one.request for place, one in by_place(found).items()}
        places = next(iter(steps_of(found)), ())
        section = numerics_section(found, path.name)
        return Measured(section, step_of(stage, places, requests.__getitem__))

    def _compute(self, request: str, truth: Quantities) -> Computed:
        asked = parse_request(request)
        made = built_or_problem(request, self.cache, self.say)
        (side,) = named_sides([asked], [made])
        if not isinstance(made, Built):
            return Computed(request, side, {}, {}, side.reason)
        (answer,) = compute_in([interpreter_of(made)], self.training)
        if isinstance(answer, WorkerError):
            return Computed(request, side, {}, {}, answer.reason)
        quantities = answer.quantities
        return Computed(request, side, _bits(quantities), deviations(quantities, truth))


def _bits(quantities: Quantities) -> Mapping[str, str]:
    return {
        name: hashlib.sha256(np.asarray(quantities[name], np.float64).tobytes()).hexdigest()
        for name in QUANTITIES
        if name in quantities
    }


def _check_ends(found: Levels) -> None:
    """Raises EnvironmentProblem if good or bad cannot be computed."""
    stage = found.stage
    for name, place in (("good", 0), ("bad", stage.bad)):
        tried = [c for c in found.computed if stage.place_of(c.request) == place]
        if tried and all(c.problem for c in tried):
            raise EnvironmentProblem(f"{name}, {stage.places[place].name}: {tried[-1].problem}")
