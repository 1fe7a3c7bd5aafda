"""Images per second of training steps and of prediction, on real MNIST images, by pytest-benchmark.

Each benchmark has one untimed call first (tracing, caches, warm-up), and every call waits for its
result and for the device. `extra_info` has `images_per_second` (median round), `images` per call,
batch, threads and versions; on a GPU also the device, and a property names it.

A GPU gets larger batches and more images: a small batch measures the host. Whether `fit` uses XLA
is Keras's choice; on GPUs it does, and then compiles within the untimed call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from bench.report.session import DEVICE, ENVIRONMENT
from bench.report.versions import DEVICE_FACTS, device_words
from bench.worker import workloads
from bench.worker.workloads import Workload
from lenet5.data import Dataset, Subset
from lenet5.devices import Device, wait_for

IMAGES = 4_800
IMAGES_ON_GPU = 20_480
LOOP_BATCHES = 32, 128, 512
LOOP_BATCHES_ON_GPU = 32, 512, 2048
ROUNDS = 3


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrises the loop by the batch sizes of the session's device."""
    if "loop_batch_size" in metafunc.fixturenames:
        on_gpu = metafunc.config.stash[DEVICE].is_gpu
        sizes = LOOP_BATCHES_ON_GPU if on_gpu else LOOP_BATCHES
        ids = [f"loop,b{size}" for size in sizes]
        metafunc.parametrize("loop_batch_size", sizes, ids=ids)


@pytest.fixture(scope="module")
def images(mnist: Dataset, device: Device) -> Subset:
    """The first training images.

    CPU: 4,800, which are 150 steps of 32, 37.5 of 128, 9.4 of 512. GPU: 20,480, which are 640 steps
    of 32, 40 of 512, 10 of 2048.
    """
    return workloads.first_images(mnist.training, IMAGES_ON_GPU if device.is_gpu else IMAGES)


@pytest.fixture
def measure(
    benchmark: Any,
    pytestconfig: pytest.Config,
    device: Device,
    record_property: Callable[[str, object], None],
) -> Callable[[Workload, int, int], None]:
    """Times rounds of a workload over a number of images and stores the versions."""

    def run(workload: Workload, images: int, batch_size: int) -> None:
        environment = pytestconfig.stash[ENVIRONMENT]
        versions = {name: environment[name] for name in ("tensorflow", "keras", "numpy", "threads")}
        if device.is_gpu:
            versions |= {name: environment[name] for name in DEVICE_FACTS}
            record_property("device", device_words(environment))
        benchmark.extra_info.update(versions, images=images, batch_size=batch_size)
        steps = math.ceil(images / batch_size)

        def run_to_the_end(steps: int) -> None:
            workload.run(steps)
            wait_for(device)

        benchmark.pedantic(run_to_the_end, (steps,), rounds=ROUNDS, iterations=1, warmup_rounds=1)
        if benchmark.stats is not None:  # --benchmark-disable calls it once and times nothing
            speed = images / benchmark.stats.stats.median
            benchmark.extra_info["images_per_second"] = speed
            record_property("images_per_second", speed)

    return run


Measure = Callable[[Workload, int, int], None]


def test_train_step(images: Subset, measure: Measure, loop_batch_size: int) -> None:
    """Steps of the engine `graph`."""
    measure(workloads.loop(images, loop_batch_size), len(images.labels), loop_batch_size)


@pytest.mark.parametrize("batch_size", [32, 128], ids=["b32", "b128"])
def test_fit(images: Subset, measure: Measure, batch_size: int) -> None:
    measure(workloads.fit(images, batch_size), len(images.labels), batch_size)


@pytest.mark.parametrize("batch_size", [32], ids=["b32"])
def test_original_fit(images: Subset, measure: Measure, batch_size: int) -> None:
    measure(workloads.original_fit(images, batch_size), len(images.labels), batch_size)


@pytest.mark.parametrize("batch_size", [1, 512], ids=["b1", "b512"])
def test_predict(images: Subset, measure: Measure, batch_size: int) -> None:
    """Batch 1: 20 calls with an image each. Batch 512: one call with all images."""
    if batch_size == 1:
        measure(workloads.predict_one(images), 20, batch_size)
    else:
        measure(workloads.predict(images, batch_size), len(images.labels), batch_size)
