"""TensorFlow agrees with NumPy float64 within the tolerances, and repeats its bits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bench.measure.numerics import compute_in
from bench.measure.processes import Interpreter
from bench.records.numerics import DETERMINISTIC_OPS, QUANTITIES, Mode, by_name, make_problem
from bench.verdicts.numerics import deviations, solve, tolerances
from lenet5.data import Dataset
from lenet5.devices import CPU, Device

DETERMINISTIC = pytest.param({DETERMINISTIC_OPS: "1"}, id="deterministic")
REPEATING = {"cpu": (pytest.param({}, id=""), DETERMINISTIC), "gpu": (DETERMINISTIC,)}
"""Settings under which two runs have the same bits; a GPU's differ without the variable."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeats bits under the settings of the device."""
    if "settings" in metafunc.fixturenames:
        is_gpu = (metafunc.config.option.device or CPU.name) != CPU.name
        metafunc.parametrize("settings", REPEATING["gpu" if is_gpu else "cpu"])
        metafunc.parametrize("threads", [1, 2])


@pytest.fixture(scope="module")
def mode(pytestconfig: pytest.Config) -> Mode:
    """Device and arithmetic of this process, as they are in force."""
    from bench.worker.numerics import mode_in_force

    found = mode_in_force()
    return Mode(pytestconfig.option.device, **found) if found else Mode()


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
    deviating: dict[str, float],
    mode: Mode,
    quantity: str,
    record_property: Callable[[str, object], None],
) -> None:
    """One batch's logits, loss and gradients, and the losses of fifty steps, without dropout."""
    record_property("relative_deviation", deviating[quantity])
    record_property("mode", str(mode))
    assert deviating[quantity] <= tolerances(mode)[quantity]


def test_two_processes_compute_the_same_bits(
    mnist: Dataset, pytestconfig: pytest.Config, settings: dict[str, str], threads: int
) -> None:
    """Fifty steps with dropout and distorted images; the variable is `enable_op_determinism`."""
    device = _device(pytestconfig.option.device or CPU.name, os.environ)
    ours = Interpreter(Path(sys.executable), settings, device=device)
    one, other = compute_in([ours, ours], mnist.training, threads)
    assert not isinstance(one, Exception), one
    assert one == other


def _device(name: str, environment: Mapping[str, str]) -> Device:
    """Returns the device of this process, which sees no other GPU since TensorFlow's start."""
    return CPU if name == CPU.name else Device(name, environment["CUDA_VISIBLE_DEVICES"])
