"""Comparison of environments' arithmetic with NumPy: from requests to outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.environments.builds import Built, build_candidates
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import Request
from bench.measure.numerics import compute_in
from bench.measure.processes import WorkerError, interpreter_of
from bench.records.numerics import Quantities, by_name, make_problem
from bench.report.tables import Table, numerics_table
from bench.verdicts.numerics import TOLERANCES, beyond, deviations, solve
from bench.verdicts.outcomes import Outcome
from bench.verdicts.sequential import Verdict
from lenet5.data import Subset

_Answer = Mapping[str, Any] | EnvironmentProblem | WorkerError


def hold(
    requests: Sequence[Request], training: Subset, cache: Path, say: Callable[[str], None]
) -> tuple[Table, list[Outcome]]:
    """Computes the numerics problem in each environment.

    Args:
        requests: requests for the environments.
        training: MNIST's training images.
        cache: folder of the built environments.
        say: receives progress lines.

    Returns:
        The table, with a row per environment, and the outcomes: PASS within the tolerances, FAIL
        beyond them.
    """
    built = build_candidates(requests, cache, say)
    there = [interpreter_of(side) for side in built if isinstance(side, Built)]
    computed = iter(compute_in(there, training))
    answers = [next(computed) if isinstance(side, Built) else side for side in built]
    truth = solve(make_problem(training))
    names = [request.text for request in requests]
    outcomes = [_outcome(*pair, truth) for pair in zip(names, answers, strict=True)]
    return numerics_table(names, [_quantities(answer) for answer in answers], truth), outcomes


def _quantities(answer: _Answer) -> Quantities | str:
    if isinstance(answer, EnvironmentProblem):
        return "not there"
    return str(answer) if isinstance(answer, Exception) else by_name(answer)


def _outcome(request: str, answer: _Answer, truth: Quantities) -> Outcome:
    if isinstance(answer, EnvironmentProblem):  # names the request itself
        return Outcome(Verdict.FAIL, str(answer), is_there=False)
    if isinstance(answer, WorkerError):
        told = f"{request}: {answer.told}"
        return Outcome(Verdict.FAIL, told, is_there=answer.has_started)
    wrong = beyond(deviations(by_name(answer), truth), TOLERANCES)
    verdict = Verdict.FAIL if wrong else Verdict.PASS
    return Outcome(verdict, f"{request}: {'; '.join(wrong) or 'within the tolerances'}")
