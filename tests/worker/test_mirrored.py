"""`fit` on two logical devices computes what one device computes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.measure.processes import Interpreter, Worker, WorkerError
from bench.measure.worker_files import prepare_folder
from bench.records.catalogue import WORKLOADS
from lenet5 import runtime
from lenet5.data import Dataset, Subset

MIRRORED, ALONE = WORKLOADS["fit[b128,mirrored2]"], WORKLOADS["fit[b128]"]


@pytest.fixture
def folder(digits: Dataset, tmp_path: Path) -> Path:
    """Returns the workers' folder with as many images as the check has."""
    images, labels = digits.training.images, digits.training.labels
    count = 20 * 128
    whole = Subset(np.resize(images, (count, *images.shape[1:])), np.resize(labels, count))
    prepare_folder(tmp_path, whole)
    return tmp_path


def counts_regularisation_once() -> bool:
    """Whether this Keras does under `MirroredStrategy`; Keras 3 does since 3.8."""
    version = tuple(int(part) for part in runtime.keras_version().split(".")[:2])
    return not (3, 0) <= version < (3, 8)


def prepared(worker: Worker, name: str) -> Mapping[str, Any]:
    spec = WORKLOADS[name]
    return worker.ask(
        *(300, "prepare"),
        workload=name,
        builder=spec.builder,
        arguments=dict(spec.arguments or {}),
    )


def test_two_devices_compute_the_losses_of_one_or_the_check_fails(folder: Path) -> None:
    """The regularisation counts once, not once per device."""
    with Worker(Interpreter(Path(sys.executable), {}), folder) as worker:
        worker.ask(
            300, "start", cores=[], threads=MIRRORED.threads, logical_cpus=MIRRORED.logical_cpus
        )
        alone = prepared(worker, ALONE.name)["check"]
        if counts_regularisation_once():
            assert prepared(worker, MIRRORED.name)["check"] == pytest.approx(alone, rel=1e-5)
            answer = worker.ask(300, "slice", workload=MIRRORED.name, steps=2)
            assert answer["loss"] > 0
        else:
            with pytest.raises(WorkerError, match="ArithmeticError: 2 devices compute"):
                prepared(worker, MIRRORED.name)


def test_one_device_is_not_enough(folder: Path) -> None:
    """Without workers of its own, the workload fails instead of using one device twice."""
    with Worker(Interpreter(Path(sys.executable), {}), folder) as worker:
        worker.ask(300, "start", cores=[], threads=1)
        with pytest.raises(WorkerError, match="2 logical devices are needed, there are 1"):
            prepared(worker, MIRRORED.name)
