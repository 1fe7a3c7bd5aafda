"""Images per second of training steps and of prediction, on real MNIST images, by pytest-benchmark.

Each benchmark has one untimed call first (tracing, caches, warm-up), and every call waits for its
result. `extra_info` has `images_per_second` (median round), `images` per call, batch, threads and
versions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from bench.report.session import ENVIRONMENT
from bench.worker import workloads
from bench.worker.workloads import Workload
from lenet5.data import Dataset, Subset

IMAGES = 4_800
ROUNDS = 3


@pytest.fixture(scope="module")
def images(mnist: Dataset) -> Subset:
    """The first 4,800 training images: 150 steps of 32, 37.5 of 128, 9.4 of 512."""
    return workloads.first_images(mnist.training, IMAGES)


@pytest.fixture
def measure(
    benchmark: Any,
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> Callable[[Workload, int, int], None]:
    """Times rounds of a workload over a number of images and stores the versions."""

    def run(workload: Workload, images: int, batch_size: int) -> None:
        environment = pytestconfig.stash[ENVIRONMENT]
        versions = {name: environment[name] for name in ("tensorflow", "keras", "numpy", "threads")}
        benchmark.extra_info.update(versions, images=images, batch_size=batch_size)
        steps = math.ceil(images / batch_size)
        benchmark.pedantic(workload.run, (steps,), rounds=ROUNDS, iterations=1, warmup_rounds=1)
        if benchmark.stats is not None:  # --benchmark-disable calls it once and times nothing
            speed = images / benchmark.stats.stats.median
            benchmark.extra_info["images_per_second"] = speed
            record_property("images_per_second", speed)

    return run


Measure = Callable[[Workload, int, int], None]


@pytest.mark.parametrize("batch_size", [32, 128, 512], ids=["loop,b32", "loop,b128", "loop,b512"])
def test_train_step(images: Subset, measure: Measure, batch_size: int) -> None:
    """Steps of the engine `graph`."""
    measure(workloads.loop(images, batch_size), IMAGES, batch_size)


@pytest.mark.parametrize("batch_size", [32, 128], ids=["b32", "b128"])
def test_fit(images: Subset, measure: Measure, batch_size: int) -> None:
    measure(workloads.fit(images, batch_size), IMAGES, batch_size)


@pytest.mark.parametrize("batch_size", [32], ids=["b32"])
def test_original_fit(images: Subset, measure: Measure, batch_size: int) -> None:
    measure(workloads.original_fit(images, batch_size), IMAGES, batch_size)


@pytest.mark.parametrize("batch_size", [1, 512], ids=["b1", "b512"])
def test_predict(images: Subset, measure: Measure, batch_size: int) -> None:
    """Batch 1: 20 calls with an image each. Batch 512: one call with all images."""
    if batch_size == 1:
        measure(workloads.predict_one(images), 20, batch_size)
    else:
        measure(workloads.predict(images, batch_size), IMAGES, batch_size)
