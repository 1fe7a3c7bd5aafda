"""The worker's part of a measurement on a GPU, with a stand-in for the device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench.worker import main, workloads
from bench.worker.main import NotMeasured, Side
from bench.worker.workloads import Workload
from lenet5 import devices, runtime
from lenet5.data import Dataset

FACTS = {"device": "gpu:0", "gpu": "Stand-in", "tf32": True, "deterministic_ops": False}


@pytest.fixture
def folder(digits: Dataset, tmp_path: Path) -> Path:
    """Returns a worker's folder with 80 images."""
    for name in ("images", "labels"):
        np.save(tmp_path / f"{name}.npy", getattr(digits.training, name)[:80])
    return tmp_path


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces device and workloads; returns what is run, awaited and read, in order."""
    found: list[str] = []

    def made(name: str) -> Any:
        def build(*_: object, **options: object) -> Workload:
            def run(steps: int) -> float:
                xla = f" {options['jit_compile']}" if "jit_compile" in options else ""
                found.append(f"{name} {steps}{xla}")
                return 0.5

            return Workload(run, list)

        return build

    def used(device: str) -> dict[str, int]:
        found.append(f"memory of {device}")
        return {"current": 1, "peak": 3 * 2**20}

    for name in ("loop", "fit", "predict"):
        monkeypatch.setattr(workloads, name, made(name))
    monkeypatch.setattr(devices, "read_device", lambda *_: devices.Device("gpu:0", "0"))
    monkeypatch.setattr(runtime, "start_tensorflow", lambda *_: None)
    monkeypatch.setattr(devices, "allow_tf32", lambda **_: None)
    monkeypatch.setattr(devices, "describe_device", lambda _: FACTS)
    monkeypatch.setattr(devices, "wait_for", lambda device: found.append(f"wait {device.name}"))
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", used)
    return found


@pytest.fixture
def side(done: list[str], folder: Path) -> Side:
    """Returns a worker that was started on the stand-in."""
    started = Side(folder)
    versions = started.start([], 1, device="gpu")["versions"]
    assert versions["scheduling"] == "default"
    assert FACTS.items() <= versions.items()
    done.clear()
    return started


def test_each_measurement_waits_for_the_device(side: Side, done: list[str]) -> None:
    """A call returns while the GPU still computes."""
    side.prepare("w", "loop", {"batch_size": 32})
    assert side.slice("w", 3)["loss"] == 0.5
    assert side.first_step()["value"] > 0
    assert done == ["loop 3", "wait gpu:0", "loop 1", "wait gpu:0"]


def test_memory_is_measured_without_xla_after_the_device_has_finished(
    side: Side, done: list[str]
) -> None:
    work = ["loop 75", "fit 75 False", "predict 18 False", "wait gpu:0"]
    assert side.memory()["value"] > 1
    assert done == work
    done.clear()
    assert side.device_memory() == {"value": 3.0, "loss": 0.5}
    assert done == [*work, "memory of GPU:0"]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_first_fit_has_a_hundred_steps(side: Side, done: list[str], jit_compile: bool) -> None:
    answer = main._answer(side, {"do": "first_fit", "jit_compile": jit_compile})
    assert answer["value"] > 0
    assert done == [f"fit 100 {jit_compile}", "wait gpu:0"]


@pytest.mark.usefixtures("done")
def test_no_process_on_a_gpu_reserves_its_core(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even on a machine with one core."""
    asked: list[str] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: asked.append("rr"), raising=False)
    said = Side(folder).start([0], 1, device="gpu")["versions"]
    assert (said["scheduling"], asked) == ("default", [])


def test_a_cpu_has_no_device_memory(folder: Path) -> None:
    side = Side(folder)
    with pytest.raises(NotMeasured, match="needs a GPU"):
        side.device_memory()
    answer = main._answer(side, {"do": "device_memory"})
    assert answer == {"error": "not measured: needs a GPU"}


def test_the_cpus_memory_is_measured_as_keras_decides(done: list[str], folder: Path) -> None:
    """The CPU's workloads stay as they are."""
    Side(folder).memory()
    assert done == ["loop 75", "fit 75", "predict 18"]


def test_a_real_first_fit_trains(folder: Path) -> None:
    answer = Side(folder).first_fit(jit_compile=False)
    assert answer["value"] > 0
    assert 0 < answer["loss"] < 5
