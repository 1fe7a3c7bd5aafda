"""Seeds in parallel processes, with hangs, retries and Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from bench.measure import seeds
from bench.measure.processes import Interpreter, Worker
from bench.measure.seeds import train_seeds
from bench.measure.worker_files import prepare_training_folder
from bench.records.trainings import SeedTask
from lenet5.data import Dataset, Subset
from lenet5.devices import CPU, Device
from lenet5.recipe import ENGINES
from lenet5.recipes import find_recipe
from tests.measure.stub_worker import stub_python

RECIPE = find_recipe("fast").with_overrides({"epochs": 1})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    black = Subset(np.zeros((10, 28, 28, 1), np.uint8), np.zeros(10, np.uint8))
    made = tmp_path / "training"
    made.mkdir()
    prepare_training_folder(made, Dataset("mnist", black, black, black))
    return made


def side(tmp_path: Path, **settings: str) -> Mapping[int, Interpreter]:
    return {0: Interpreter(stub_python(tmp_path), settings)}


def test_a_training_that_hangs_twice_is_abandoned(folder: Path, tmp_path: Path) -> None:
    jobs = [SeedTask(0, seed, RECIPE, "graph") for seed in range(3)]
    sides = side(tmp_path, TF_STUB_FAULT="train - hang")
    (done,) = train_seeds(jobs, sides, folder, processes=1, epoch_seconds=0.25)
    hung = done.trained  # the other seeds are skipped
    assert (hung.wrong, hung.crashed, hung.started) == (None, True, True)
    told = "timed out after 0.5 s; it last printed: a stray print"
    assert hung.problem == hung.retried == told


@pytest.mark.parametrize("fatal", ["start", "train"])
def test_a_retried_training_records_the_reason(
    fatal: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three seeds loses its first process."""
    asked: list[str] = []

    class Watched(Worker):
        def ask(self, seconds: float, do: str, **arguments: Any) -> dict[str, Any]:
            asked.append(do)
            if do == fatal and asked.count(do) == 2:
                self.interrupt()
            return super().ask(seconds, do, **arguments)

    monkeypatch.setattr(seeds, "Worker", Watched)
    jobs = [SeedTask(0, seed, RECIPE, "graph") for seed in range(3)]
    found = [done.trained for done in train_seeds(jobs, side(tmp_path), folder, processes=1)]
    assert [trained.retried.partition(";")[0] for trained in found] == ["", "killed by SIGKILL", ""]
    assert not any(trained.crashed for trained in found)


def test_a_worker_receives_recipe_seed_and_engine_of_its_task(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    class Watched(Worker):
        def ask(self, seconds: float, do: str, **arguments: Any) -> dict[str, Any]:
            if do == "train":
                asked.append(arguments)
            return super().ask(seconds, do, **arguments)

    monkeypatch.setattr(seeds, "Worker", Watched)
    jobs = [SeedTask(0, seed, RECIPE, engine) for seed, engine in enumerate(ENGINES)]
    assert [done.task for done in train_seeds(jobs, side(tmp_path), folder, processes=1)] == jobs
    assert asked == [
        {"recipe": asdict(RECIPE), "seed": seed, "engine": engine}
        for seed, engine in enumerate(ENGINES)
    ]


def test_ctrl_c_ends_every_process_and_starts_no_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []

    class Watched(Worker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            pids.append(self.pid)

    monkeypatch.setattr(seeds, "Worker", Watched)
    jobs = [SeedTask(0, seed, RECIPE, "graph") for seed in range(40)]
    records = train_seeds(jobs, side(tmp_path), folder, processes=2)
    next(records)
    with pytest.raises(KeyboardInterrupt):
        records.throw(KeyboardInterrupt())
    assert 1 <= len(pids) < 40
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("device", "asked", "said"),
    [(CPU, "cpu", None), (Device("gpu:3", "GPU-89"), "gpu", "gpu:3")],
)
def test_a_worker_trains_on_the_device_of_its_interpreter(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: Device,
    asked: str,
    said: str | None,
) -> None:
    """Its process sees one GPU, whose number only this process knows."""
    seen: list[Any] = []

    class Watched(Worker):
        def ask(self, seconds: float, do: str, **arguments: Any) -> dict[str, Any]:
            answer = super().ask(seconds, do, **arguments)
            if do == "start":  # answered: the process has variables of its own
                variables = psutil.Process(self.pid).environ()
                seen.append((arguments["device"], variables["CUDA_VISIBLE_DEVICES"]))
            return answer

    monkeypatch.setattr(seeds, "Worker", Watched)
    sides = {0: replace(side(tmp_path)[0], device=device)}
    jobs = [SeedTask(0, 0, RECIPE, "graph")]
    (done,) = train_seeds(jobs, sides, folder, processes=1)
    assert seen == [(asked, device.cuda_visible_devices)]
    assert done.said.get("device") == said


def test_a_worker_that_computes_on_the_cpu_unasked_trains_nothing(
    folder: Path, tmp_path: Path
) -> None:
    on_gpu = replace(side(tmp_path, TF_STUB_FAULT="start - silent")[0], device=Device("gpu:3", "3"))
    (done,) = train_seeds([SeedTask(0, 0, RECIPE, "graph")], {0: on_gpu}, folder, processes=1)
    assert (done.trained.wrong, done.trained.started) == (None, False)
    assert done.trained.problem == "computes on cpu, not on gpu:3"
