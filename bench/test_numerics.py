"""What TensorFlow computes is what NumPy computes with float64, within the tolerances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.numerics import QUANTITIES, TOLERANCES, by_name, deviations, make_problem, solve
from lenet5.data import Dataset


@pytest.fixture(scope="module")
def deviating(mnist: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Largest relative deviation of each quantity in this environment."""
    from bench.arithmetic import compute

    folder: Path = tmp_path_factory.mktemp("numerics")
    problem = make_problem(mnist.training)
    problem.save(folder)
    return deviations(by_name(compute(folder)), solve(problem))


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_arithmetic_agrees_with_numpy(
    deviating: dict[str, float], quantity: str, record_property: Callable[[str, object], None]
) -> None:
    """One batch's logits, loss and gradients, and the loss of fifty steps, without dropout."""
    record_property("relative_deviation", deviating[quantity])
    assert deviating[quantity] <= TOLERANCES[quantity]
