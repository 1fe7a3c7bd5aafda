"""Timed workloads consist of real training, use every image once, and do no other work."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench.worker import workloads
from bench.worker.main import Side
from bench.worker.workloads import Workload
from lenet5.data import Dataset, Subset


@pytest.fixture(scope="module")
def images(digits: Dataset) -> Subset:
    return workloads.first_images(digits.training, 80)


BUILDERS: dict[str, Callable[[Subset], Workload]] = {
    "loop": lambda images: workloads.loop(images, 32),
    "raw": lambda images: workloads.raw(images, 32),
    "fit": lambda images: workloads.fit(images, 32),
    "fit_call": workloads.fit_call,
    "original_fit": lambda images: workloads.original_fit(images, 32),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_repeated_training_workloads_reduce_the_loss(
    images: Subset, build: Callable[[Subset], Workload]
) -> None:
    """The timed work is real training: the loss decreases over the runs."""
    run = build(images).run
    losses = [run(3) for _ in range(3)]
    assert losses[-1] < losses[0]


def test_workloads_compute_the_same_first_steps(
    images: Subset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Covers loop, raw TensorFlow and `fit` per batch, whose loss precedes the step."""
    monkeypatch.setattr(workloads, "CHECK_STEPS", 5)
    truth = workloads.loop(images, 32).check()
    assert len(truth) == 5
    assert workloads.raw(images, 32).check() == pytest.approx(truth, rel=1e-4)
    assert workloads.fit_call(images).check() == pytest.approx(truth, rel=1e-4)


@pytest.mark.parametrize("measure", ["first_step", "memory"])
def test_single_measurements_start_with_garbage_collection(
    images: Subset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: str
) -> None:
    """Otherwise the number of objects decides whether a collection falls into the measurement."""
    done: list[str] = []

    def run(_steps: int) -> float:
        done.append("run")
        return 0.0

    monkeypatch.setattr(gc, "collect", lambda: done.append("collect"))
    for name in ("loop", "fit", "predict"):
        monkeypatch.setattr(workloads, name, lambda *_: Workload(run, list))
    for name in ("images", "labels"):
        np.save(tmp_path / f"{name}.npy", getattr(images, name))
    getattr(Side(tmp_path), measure)()
    assert done[:2] == ["collect", "run"]
    assert done.count("collect") == 1


def test_batches_restart_and_an_epoch_covers_every_image() -> None:
    take = workloads._Batches(images=10, batch_size=4)
    first_step, order = take(3)
    assert (first_step, sorted(order)) == (0, list(range(10)))
    assert [len(take(2)[1]) for _ in range(2)] == [8, 8]  # one batch remains: restart
    assert take(1)[0] == 7


def test_more_steps_than_an_epoch_repeat_its_order() -> None:
    """A fast device takes more images in a slice than there are; no batch is empty."""
    usual, take = (workloads._Batches(images=10, batch_size=4) for _ in range(2))
    order = usual(3)[1].tolist()
    assert take(6)[1].tolist() == [*order, *order, *order[:4]]
    assert len(take(6)[1]) == 24
    assert take(1)[0] == 12


def test_a_loop_with_more_steps_than_batches_computes_finite_losses(images: Subset) -> None:
    run = workloads.loop(images, 64).run  # 80 images: two batches
    losses = [run(7) for _ in range(2)]
    assert losses[-1] < losses[0]


def test_arrays_repeat_their_rows_as_needed() -> None:
    images, labels = np.arange(12).reshape(3, 2, 2), np.arange(3)
    first = workloads._Repeated(images, labels)
    assert all(len(array) == 2 for array in first(2))
    longer = first(7)
    assert longer[1].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert np.array_equal(longer[0][3:6], images)
    kept = first(7)
    assert all(np.shares_memory(one, other) for one, other in zip(longer, kept, strict=True))


def test_fit_and_predict_take_as_many_images_as_a_call_needs(
    images: Subset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    for name in ("fit", "predict"):
        real = getattr(tf.keras.Model, name)

        def watched(self: Any, x: Any, *more: Any, real: Any = real, **options: Any) -> Any:
            asked.append(len(x))
            return real(self, x, *more, **options)

        monkeypatch.setattr(tf.keras.Model, name, watched)
    workloads.fit(images, 64).run(3)
    workloads.predict(images, 64).run(3)
    assert asked == [192, 192]


WITH_OPTIONS: dict[str, Callable[..., Workload]] = {
    "fit": lambda images, **options: workloads.fit(images, 4, **options),
    "fit_call": workloads.fit_call,
    "predict": lambda images, **options: workloads.predict(images, 32, **options),
}


@pytest.mark.parametrize("build", WITH_OPTIONS.values(), ids=WITH_OPTIONS)
def test_xla_is_used_as_told_and_otherwise_as_keras_decides(
    images: Subset, monkeypatch: pytest.MonkeyPatch, build: Callable[..., Workload]
) -> None:
    """The result is the same; on a CPU Keras does not use XLA by itself."""
    monkeypatch.setattr(workloads, "CHECK_STEPS", 3)
    told: list[object] = []
    compile_model = tf.keras.Model.compile

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        told.append(options.get("jit_compile"))
        return compile_model(self, *arguments, **options)

    monkeypatch.setattr(tf.keras.Model, "compile", watched)
    truth = build(images).check()
    assert set(told) <= {None}
    told.clear()
    assert build(images, jit_compile=False).check() == pytest.approx(truth, rel=1e-6)
    assert set(told) == {False}


def test_prediction_covers_every_image(images: Subset, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    predict = tf.keras.Model.predict

    def watched(self: Any, x: Any, **more: Any) -> Any:
        asked.append(len(x))
        return predict(self, x, **more)

    monkeypatch.setattr(tf.keras.Model, "predict", watched)
    assert 0.1 < workloads.predict(images, batch_size=40).run(2) < 1
    assert 0.1 < workloads.predict_one(images).run(3) < 1
    assert asked == [80, 1, 1, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_results_are_rejected(value: float) -> None:
    with pytest.raises(ArithmeticError, match="gave"):
        workloads._finite(value)


def test_first_images_keep_their_labels(digits: Dataset) -> None:
    subset = workloads.first_images(digits.test, 7)
    assert subset.images.shape == (7, 28, 28, 1)
    assert np.array_equal(subset.labels, digits.test.labels[:7])
