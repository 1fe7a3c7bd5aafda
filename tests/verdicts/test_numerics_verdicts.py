"""Deviations from the truth, also of missing quantities; `bench` tests TensorFlow itself."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bench.records.numerics import (
    GRADIENTS,
    QUANTITIES,
    STEPS,
    Computed,
    Mode,
    make_problem,
    modes_of,
)
from bench.verdicts import numpy_lenet5
from bench.verdicts.numerics import (
    TF32_TOLERANCES,
    TOLERANCES,
    Held,
    beyond,
    deviations,
    hold,
    hold_mode,
    solve,
    tolerances,
)
from lenet5.data import Subset
from lenet5.recipes import find_recipe

FLOAT16 = "weights rounded to float16"


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


@pytest.fixture(scope="module")
def mutated(training: Subset, truth: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Deviations of wrong arithmetic, by its name."""
    problem = make_problem(training)
    rounded = tuple(w.astype(np.float16).astype(np.float32) for w in problem.weights)
    found = {FLOAT16: solve(replace(problem, weights=rounded))}
    for kernel in numpy_lenet5.L2_KERNELS:
        others = tuple(other for other in numpy_lenet5.L2_KERNELS if other != kernel)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(numpy_lenet5, "L2_KERNELS", others)
            found[f"no L2 of array {kernel}"] = solve(problem)
    recipe = find_recipe("original").with_overrides({"adam_epsilon": 1e-3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.verdicts.numerics.find_recipe", lambda _: recipe)
        found["Adam's epsilon of 1e-3"] = solve(problem)
    return {name: deviations(quantities, truth) for name, quantities in found.items()}


def test_tolerances_are_at_most_a_tenth_of_the_smallest_mutations(
    mutated: dict[str, dict[str, float]],
) -> None:
    """Weights rounded to float16, L2 missing in one layer, Adam's epsilon of 1e-3."""
    for quantity in QUANTITIES:
        smallest = min(off[quantity] for off in mutated.values() if off[quantity] > 0)
        assert TOLERANCES[quantity] <= smallest / 10, quantity


@pytest.mark.parametrize(
    ("mode", "unseen"),
    [
        (Mode(), []),
        (Mode("gpu:0"), []),
        (Mode("gpu:0", deterministic_ops=True), []),
        (Mode("gpu:0", tf32=True), [FLOAT16]),
        (Mode("gpu:0", tf32=True, deterministic_ops=True), [FLOAT16]),
    ],
    ids=str,
)
def test_tf32_hides_weights_rounded_to_as_few_bits_and_no_other_mutation(
    mutated: dict[str, dict[str, float]], mode: Mode, unseen: list[str]
) -> None:
    assert [name for name, off in mutated.items() if not beyond(off, tolerances(mode))] == unseen


def test_emulated_tf32_is_within_its_tolerances_and_beyond_all_others(
    training: Subset, truth: dict[str, list[float]]
) -> None:
    """Each tolerance is 2 to 20 times the emulation's deviation, which depends on the images."""
    off = deviations(solve(make_problem(training), numpy_lenet5.to_tf32), truth)
    assert not beyond(off, TF32_TOLERANCES)
    for quantity in QUANTITIES:
        assert off[quantity] > TOLERANCES[quantity], quantity
        assert 2 < TF32_TOLERANCES[quantity] / off[quantity] < 20, quantity


def test_tf32_keeps_ten_bits_and_rounds_ties_to_even() -> None:
    step = 2.0**-10
    factors = np.array([1, 1 + step, 1 + step / 2, 1 + 3 * step / 2, 1 + 0.51 * step, 0, -3e-30])
    expected = [1, 1 + step, 1, 1 + 2 * step, 1 + step, 0]
    rounded = numpy_lenet5.to_tf32(factors)
    assert rounded[:-1].tolist() == expected
    assert rounded[-1] == pytest.approx(-3e-30, rel=step)
    assert np.array_equal(numpy_lenet5.to_tf32(rounded), rounded)


def test_tolerances_of_a_mode() -> None:
    """Deterministic operations cost precision in one gradient only, and only on a GPU."""
    assert tolerances(Mode()) == tolerances(Mode("gpu:1")) == TOLERANCES
    assert tolerances(Mode(deterministic_ops=True)) == TOLERANCES
    wider = tolerances(Mode("gpu:0", deterministic_ops=True))
    assert [name for name in QUANTITIES if wider[name] != TOLERANCES[name]] == [
        "gradient conv1 kernel"
    ]
    for mode in (Mode("gpu:0", tf32=True), Mode("gpu:0", tf32=True, deterministic_ops=True)):
        assert all(tolerances(mode)[name] >= wider[name] for name in QUANTITIES)
        assert tolerances(mode) == TF32_TOLERANCES


@pytest.mark.parametrize(
    ("quantity", "mode", "seen"),
    [
        ("logits", Mode("gpu:0", tf32=True), 9.4e-4),
        *((name, Mode("gpu:0", tf32=True), 5e-4) for name in GRADIENTS if "kernel" in name),
        ("gradient conv1 kernel", Mode("gpu:0", deterministic_ops=True), 1.4e-4),
    ],
)
def test_a_tolerance_is_above_a_figure_of_the_h200_and_at_most_ten_times_as_large(
    quantity: str, mode: Mode, seen: float
) -> None:
    """TensorFlow 2.21.0; the gradients of kernels deviate by 5e-4 to 9e-4 with TF32."""
    assert 1 < tolerances(mode)[quantity] / seen <= 10


def test_the_mode_in_force_is_held_against_the_one_asked_for() -> None:
    on, off = Mode("gpu:0", tf32=True), Mode("gpu:0")
    deterministic = Mode("gpu:0", deterministic_ops=True)
    for mode in (Mode(), on, off, deterministic):
        assert hold_mode(mode, mode) == Held()
    assert hold_mode(off, on).wrong == ("TF32 is switched off, but in force",)
    assert not hold_mode(on, off).wrong
    assert "judged as TF32 off" in hold_mode(on, off).notes[0]
    assert hold_mode(deterministic, off).wrong
    assert hold_mode(off, deterministic).wrong
    assert len(hold_mode(deterministic, on).wrong) == 2


def test_a_problem_is_held_by_the_tolerances_of_the_mode_in_force() -> None:
    values = {quantity: [1.0, 2.0] for quantity in QUANTITIES}
    off = [1.0, 2.0 * (1 + 9e-4)]
    answer = {"logits": off, "loss": [1.0, 2.0], "losses": [1.0, 2.0], "gradients": [off] * 10}
    on, without = Mode("gpu:0", tf32=True), Mode("gpu:0")
    assert hold(Computed(on, on, answer), values) == Held()
    found = hold(Computed(on, without, answer), values)
    assert len(found.wrong) == 11
    assert len(found.notes) == 1


@pytest.mark.parametrize("answer", [[], [math.nan], [1.0, 2.0]])
def test_missing_or_invalid_quantities_deviate_by_infinity(
    truth: dict[str, list[float]], answer: list[float]
) -> None:
    assert deviations({**truth, "loss": answer}, truth)["loss"] == math.inf


def test_a_gpu_has_three_modes_and_a_setting_holds_for_all() -> None:
    on, off = Mode("gpu:0", tf32=True), Mode("gpu:0")
    assert modes_of("cpu", {}) == modes_of("cpu", {"TF_DETERMINISTIC_OPS": "1"}) == (Mode(),)
    assert modes_of("gpu:0", {}) == (on, off, Mode("gpu:0", deterministic_ops=True))
    assert modes_of("gpu:0", {"TF_DETERMINISTIC_OPS": "0"}) == (on, off)
    assert modes_of("gpu:0", {"TF_DETERMINISTIC_OPS": "true"}) == (
        replace(on, deterministic_ops=True),
        replace(off, deterministic_ops=True),
    )
    assert str(on) == "gpu:0, TF32 on"
    assert off.shown(on) == "gpu:0, TF32 off (asked for: TF32 on)"
    assert str(Mode()) == Mode().shown(Mode()) == "cpu"
