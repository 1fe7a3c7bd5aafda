"""Seeds in parallel processes: one that hangs is given up, and Ctrl-C leaves none behind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.measure import seeds
from bench.measure.processes import Interpreter, Worker
from bench.measure.seeds import Job, train_seeds
from bench.measure.worker_files import prepare_training_folder
from bench.records.trainings import Trained
from lenet5.data import Dataset, Subset
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


def side(tmp_path: Path, **settings: str) -> Mapping[str, Interpreter]:
    return {"": Interpreter(stub_python(tmp_path), settings)}


def test_a_training_that_hangs_twice_is_given_up(folder: Path, tmp_path: Path) -> None:
    found: list[Trained] = []
    train_seeds(
        [Job("", seed, RECIPE, "graph") for seed in range(3)],
        side(tmp_path, TF_STUB_FAULT="train - hang"),
        folder,
        processes=1,
        on_trained=lambda _, trained, __: found.append(trained),
        epoch_seconds=0.25,
    )
    (hung,) = found  # the others are not tried
    assert (hung.wrong, hung.crashed, hung.started) == (None, True, True)
    assert hung.problem == hung.retried == "gave no answer in 0.5 s"


@pytest.mark.parametrize("fatal", ["start", "train"])
def test_a_training_that_needs_a_second_process_says_why(
    fatal: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three seeds the second one loses its first process."""
    asked: list[str] = []

    class Watched(Worker):
        def ask(self, seconds: float, do: str, **arguments: Any) -> dict[str, Any]:
            asked.append(do)
            if do == fatal and asked.count(do) == 2:
                self.interrupt()
            return super().ask(seconds, do, **arguments)

    monkeypatch.setattr(seeds, "Worker", Watched)
    found: list[Trained] = []
    train_seeds(
        [Job("", seed, RECIPE, "graph") for seed in range(3)],
        side(tmp_path),
        folder,
        processes=1,
        on_trained=lambda _, trained, __: found.append(trained),
    )
    assert [trained.retried for trained in found] == ["", "killed by SIGKILL", ""]
    assert not any(trained.crashed for trained in found)


def test_a_worker_is_told_recipe_seed_and_engine_of_its_job(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    class Watched(Worker):
        def ask(self, seconds: float, do: str, **arguments: Any) -> dict[str, Any]:
            if do == "train":
                asked.append(arguments)
            return super().ask(seconds, do, **arguments)

    monkeypatch.setattr(seeds, "Worker", Watched)
    jobs = [Job("", seed, RECIPE, engine) for seed, engine in enumerate(ENGINES)]
    told: list[Job] = []
    train_seeds(
        jobs,
        side(tmp_path),
        folder,
        processes=1,
        on_trained=lambda job, _, __: told.append(job),
    )
    assert told == jobs
    assert asked == [
        {"recipe": asdict(RECIPE), "seed": seed, "engine": engine}
        for seed, engine in enumerate(ENGINES)
    ]


def test_ctrl_c_ends_every_process_and_begins_no_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    pids: list[int] = []

    class Watched(Worker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            pids.append(self.pid)

    def on_trained(job: Job, _: Trained, __: Mapping[str, Any]) -> None:
        told.append(job.seed)
        raise KeyboardInterrupt

    monkeypatch.setattr(seeds, "Worker", Watched)
    jobs = [Job("", seed, RECIPE, "graph") for seed in range(40)]
    with pytest.raises(KeyboardInterrupt):
        train_seeds(jobs, side(tmp_path), folder, processes=2, on_trained=on_trained)
    assert len(told) == 1
    assert 1 <= len(pids) < 40
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
