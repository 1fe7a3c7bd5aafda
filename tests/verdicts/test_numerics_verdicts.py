"""Deviations from the truth, also of missing quantities; `bench` tests TensorFlow itself."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bench.records.numerics import GRADIENTS, QUANTITIES, STEPS, make_problem
from bench.verdicts import numpy_lenet5
from bench.verdicts.numerics import TOLERANCES, beyond, deviations, solve
from lenet5.data import Subset
from lenet5.recipes import find_recipe


@pytest.fixture(scope="module")
def training() -> Subset:
    random = np.random.RandomState(0)
    images = random.randint(0, 64, (1_600, 28, 28, 1)).astype(np.uint8)
    labels = np.arange(1_600) % 10
    images[np.arange(1_600), 4 + 2 * labels] = 255  # a bright row encodes the label
    return Subset(images, labels.astype(np.uint8))


@pytest.fixture(scope="module")
def truth(training: Subset) -> dict[str, list[float]]:
    return solve(make_problem(training))


def test_the_truth_has_every_quantity(truth: dict[str, list[float]]) -> None:
    assert set(truth) == set(QUANTITIES) == set(TOLERANCES)
    assert len(truth["losses"]) == STEPS
    assert sum(len(truth[gradient]) for gradient in GRADIENTS) == 44_426
    assert truth["losses"][0] == truth["loss"][0]
    assert truth["losses"][-1] < truth["losses"][0]


def test_the_problem_is_deterministic(training: Subset) -> None:
    one, other = make_problem(training), make_problem(training)
    for a, b in zip(one.weights, other.weights, strict=True):
        assert a.tobytes() == b.tobytes()
    assert sorted(one.order) == list(range(1_600))


def test_a_deviation_is_relative_to_the_largest_magnitude(truth: dict[str, list[float]]) -> None:
    largest = max(map(abs, truth["logits"]))
    off = dict(truth)
    off["logits"] = [*truth["logits"][:-1], truth["logits"][-1] + 0.01 * largest]
    found = deviations(off, truth)
    assert found["logits"] == pytest.approx(0.01)
    assert found["loss"] == 0
    assert beyond(found, TOLERANCES) == [
        f"logits deviates by 0.01 of its largest, tolerance {TOLERANCES['logits']:.2g}"
    ]


def test_tolerances_are_at_most_a_tenth_of_the_smallest_mutations(
    training: Subset, truth: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights rounded to float16, L2 missing in one layer, Adam's epsilon of 1e-3."""
    problem = make_problem(training)
    rounded = tuple(w.astype(np.float16).astype(np.float32) for w in problem.weights)
    mutated = [solve(replace(problem, weights=rounded))]
    for kernel in numpy_lenet5.L2_KERNELS:
        others = tuple(other for other in numpy_lenet5.L2_KERNELS if other != kernel)
        with monkeypatch.context() as patch:
            patch.setattr(numpy_lenet5, "L2_KERNELS", others)
            mutated.append(solve(problem))
    recipe = find_recipe("original").with_overrides({"adam_epsilon": 1e-3})
    with monkeypatch.context() as patch:
        patch.setattr("bench.verdicts.numerics.find_recipe", lambda _: recipe)
        mutated.append(solve(problem))
    found = [deviations(quantities, truth) for quantities in mutated]
    for quantity in QUANTITIES:
        smallest = min(off[quantity] for off in found if off[quantity] > 0)
        assert TOLERANCES[quantity] <= smallest / 10, quantity


@pytest.mark.parametrize("answer", [[], [math.nan], [1.0, 2.0]])
def test_missing_or_invalid_quantities_deviate_by_infinity(
    truth: dict[str, list[float]], answer: list[float]
) -> None:
    assert deviations({**truth, "loss": answer}, truth)["loss"] == math.inf
