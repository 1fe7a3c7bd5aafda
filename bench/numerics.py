"""Comparison of environments' arithmetic with NumPy: from requests to outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.environments.builds import Built, build_candidates
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import Request
from bench.measure import machine
from bench.measure.numerics import compute_in
from bench.measure.processes import WorkerError, interpreter_of
from bench.records.numerics import Computed, Mode, Quantities, make_problem, modes_of
from bench.report.tables import Table, numerics_table
from bench.verdicts import numerics
from bench.verdicts.outcomes import Outcome
from bench.verdicts.sequential import Verdict
from lenet5.data import Subset
from lenet5.devices import CPU, Device
from lenet5.errors import InputError

_Answer = Computed | EnvironmentProblem | WorkerError
_REFUSED = "InputError: --device "  # how a worker refuses a device


def hold(
    requests: Sequence[Request],
    training: Subset,
    cache: Path,
    say: Callable[[str], None],
    device: Device = CPU,
) -> tuple[Table, list[Outcome]]:
    """Computes the numerics problem in each environment; on a GPU in each of its modes.

    Args:
        requests: requests for the environments.
        training: MNIST's training images.
        cache: folder of the built environments.
        say: receives progress lines.
        device: device to compute on.

    Returns:
        The table, with a row per environment and mode, and the outcomes: PASS within the
        tolerances of the mode in force, FAIL beyond them.

    Raises:
        InputError: there is no such GPU, or no environment can compute on it.
    """
    if device.is_gpu:
        machine.describe(device=device)  # asks the driver: without a GPU nothing is built
    built = build_candidates(requests, cache, say)
    tasks = [
        (side, mode)
        for side in built
        if isinstance(side, Built)
        for mode in modes_of(device.name, side.request.settings)
    ]
    interpreters = [interpreter_of(side, device) for side, _ in tasks]
    computed = compute_in(interpreters, training, modes=[mode for _, mode in tasks])
    _check_device(device, computed)
    answers = iter(computed)
    rows: list[tuple[str, Mode, _Answer]] = []
    for request, side in zip(requests, built, strict=True):
        if isinstance(side, Built):
            for mode in modes_of(device.name, request.settings):
                rows.append((request.text, mode, next(answers)))
        else:
            rows.append((request.text, Mode(device.name), side))
    truth = numerics.solve(make_problem(training))
    table = numerics_table(
        [name for name, _, _ in rows],
        [_quantities(answer) for _, _, answer in rows],
        truth,
        [_modes(mode, answer) for _, mode, answer in rows] if device.is_gpu else None,
    )
    return table, [_outcome(*row, truth) for row in rows]


def _check_device(device: Device, computed: Sequence[Computed | WorkerError]) -> None:
    """Raises InputError if every worker refused the device."""
    refusals = [
        answer.reason.removeprefix("InputError: ").partition(": ")[2]
        for answer in computed
        if isinstance(answer, WorkerError) and answer.reason.startswith(_REFUSED)
    ]
    if refusals and len(refusals) == len(computed):
        raise InputError(f"--device {device.name}: {refusals[0]}")


def _quantities(answer: _Answer) -> Quantities | str:
    if isinstance(answer, EnvironmentProblem):
        return "not there"
    return str(answer) if isinstance(answer, Exception) else answer.quantities


def _modes(asked: Mode, answer: _Answer) -> tuple[Mode, Mode]:
    """Returns the mode that was asked for and the one in force, as far as it is known."""
    return asked, answer.mode if isinstance(answer, Computed) else asked


def _outcome(request: str, asked: Mode, answer: _Answer, truth: Quantities) -> Outcome:
    if isinstance(answer, EnvironmentProblem):  # names the request itself
        return Outcome(Verdict.FAIL, str(answer), is_there=False)
    name = request if asked.device == "cpu" else f"{request}, {asked}"
    if isinstance(answer, WorkerError):
        told = f"{name}: {answer.told}"
        return Outcome(Verdict.FAIL, told, is_there=answer.has_started)
    held = numerics.hold(answer, truth)
    verdict = Verdict.FAIL if held.wrong else Verdict.PASS
    told = "; ".join((*held.wrong, *held.notes)) or "within the tolerances"
    return Outcome(verdict, f"{name}: {told}")
