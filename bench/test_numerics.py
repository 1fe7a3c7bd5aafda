"""TensorFlow agrees with NumPy float64 within the tolerances, and repeats its bits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.measure.numerics import compute_in
from bench.measure.processes import Interpreter
from bench.records.numerics import QUANTITIES, by_name, make_problem
from bench.verdicts.numerics import TOLERANCES, deviations, solve
from lenet5.data import Dataset


@pytest.fixture(scope="module")
def deviating(mnist: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Largest relative deviation of each quantity in this environment."""
    from bench.worker.numerics import compute

    folder: Path = tmp_path_factory.mktemp("numerics")
    problem = make_problem(mnist.training)
    problem.save(folder)
    return deviations(by_name(compute(folder)), solve(problem))


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_arithmetic_agrees_with_numpy(
    deviating: dict[str, float], quantity: str, record_property: Callable[[str, object], None]
) -> None:
    """One batch's logits, loss and gradients, and the losses of fifty steps, without dropout."""
    record_property("relative_deviation", deviating[quantity])
    assert deviating[quantity] <= TOLERANCES[quantity]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("settings", [{}, {"TF_DETERMINISTIC_OPS": "1"}], ids=["", "deterministic"])
def test_two_processes_compute_the_same_bits(
    mnist: Dataset, threads: int, settings: dict[str, str]
) -> None:
    """Fifty steps with dropout and distorted images; the variable is `enable_op_determinism`."""
    ours = Interpreter(Path(sys.executable), settings)
    one, other = compute_in([ours, ours], mnist.training, threads)
    assert not isinstance(one, Exception), one
    assert one == other
