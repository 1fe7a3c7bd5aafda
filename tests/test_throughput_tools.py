"""What `bench` times is what it says: every image once, in turns, on a clock that is handed in."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from bench import workloads
from bench.loop_versus_original import alternate
from lenet5.data import Dataset, Subset


@pytest.fixture(scope="module")
def images(digits: Dataset) -> Subset:
    return workloads.first_images(digits.training, 80)


def test_alternating_sides_take_turns_in_swapped_order_after_a_warm_up() -> None:
    calls: list[str] = []
    now = 0.0

    def side(name: str, seconds: float) -> None:
        nonlocal now
        calls.append(name)
        now += seconds

    sides = {"loop": lambda: side("loop", 2.0), "original": lambda: side("original", 5.0)}
    measured = alternate(sides, images=100, rounds=range(4, 9), clock=lambda: now)
    assert calls == ["loop", "original", *2 * ["loop", "original", "original", "loop"]]
    assert measured == {"loop": [50.0] * 4, "original": [20.0] * 4, "ratio": 2.5}


@pytest.mark.parametrize(
    ("loop", "rounds"),
    [
        pytest.param([2, 2, 2, 2, 2], 2, id="far-enough-apart"),
        pytest.param([4, 4, 4, 2, 2], 4, id="slow-at-first"),
        pytest.param([2, 4, 4, 4, 4], 2, id="one-undisturbed-round-is-enough"),
        pytest.param([4, 4, 4, 4, 4], 5, id="never"),
    ],
)
def test_ratio_is_of_the_best_rounds_and_more_are_timed_until_it_is_reached(
    loop: list[float], rounds: int
) -> None:
    durations = {"loop": iter([9.0, *loop]), "original": iter([9.0] + [5.0] * 5)}
    now = 0.0

    def side(name: str) -> None:
        nonlocal now
        now += next(durations[name])

    sides = {"loop": partial(side, "loop"), "original": partial(side, "original")}
    measured = alternate(sides, images=10, rounds=range(2, 6), clock=lambda: now)
    assert measured["loop"] == [10 / seconds for seconds in loop[:rounds]]
    assert measured["original"] == [2.0] * rounds
    assert measured["ratio"] == 5.0 / min(loop[:rounds])


@pytest.mark.parametrize(
    "train", [workloads.train_loop, workloads.train_fit, workloads.train_original]
)
def test_training_workloads_learn_when_called_again(
    images: Subset, train: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timed work is real training: the loss that each call computes goes down."""
    losses: list[float] = []
    monkeypatch.setattr(workloads, "_check_finite", losses.append)
    call = train(images, 32)  # type: ignore[operator]
    for _ in range(4):
        call()
    assert losses[-1] < losses[0]


def test_prediction_answers_every_image(images: Subset, monkeypatch: pytest.MonkeyPatch) -> None:
    sums: list[float] = []
    monkeypatch.setattr(workloads, "_check_finite", sums.append)
    workloads.predict(images, batch_size=512, calls=1)()
    workloads.predict(images, batch_size=1, calls=4)()
    assert sums == pytest.approx([80, 20, 20, 20, 20], rel=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_work_that_computes_nonsense_is_no_measurement(value: float) -> None:
    with pytest.raises(ArithmeticError, match="gave"):
        workloads._check_finite(value)


def test_first_images_keep_their_labels(digits: Dataset) -> None:
    subset = workloads.first_images(digits.test, 7)
    assert subset.images.shape == (7, 28, 28, 1)
    assert np.array_equal(subset.labels, digits.test.labels[:7])
