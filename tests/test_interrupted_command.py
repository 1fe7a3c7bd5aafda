"""Ctrl-C in `lenet5 train` at each critical point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lenet5.history import History, TrainingInterrupted
from lenet5.model import build_for
from lenet5.plots import PLOT_FILES
from lenet5.recipe import ENGINES
from lenet5.runtime import threads_in_use
from tests.commands import (
    INTERRUPTED_RUN,
    ROOT,
    WHOLE_RUN,
    Answer,
    contents,
    interrupt_in_epoch,
)


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_keeps_the_finished_epochs(
    engine: str,
    train: Callable[..., Answer],
    lenet5: Callable[..., Answer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    interrupt_in_epoch(2, monkeypatch)
    answer = train("--epochs", 3, "--engine", engine)
    assert answer.status == 130
    assert (
        answer.err
        == "lenet5: interrupted; finished epochs are in run; lenet5 train --resume run continues\n"
    )
    assert sorted(contents(tmp_path / "run")) == INTERRUPTED_RUN
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert history["interrupted"] is True
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1]

    again = lenet5("evaluate", "run", "--threads", threads_in_use())
    assert again.status == 0
    assert again.out.startswith("test accuracy ")
    assert again.err == (
        "lenet5: note: run was interrupted and has no stored test score; "
        "lenet5 train --resume run continues it\n"
    )


@pytest.mark.usefixtures("scripted")
def test_ctrl_c_before_the_first_epoch_keeps_no_model(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(recipe: Any, *_: object, **__: object) -> None:
        raise TrainingInterrupted(build_for(recipe, seed=0), History(interrupted=True))

    monkeypatch.setattr("lenet5.run.train", interrupted)
    assert train().status == 130
    assert sorted(contents(tmp_path / "run")) == [
        "checkpoint.npz",
        "environment.json",
        "history.json",
        "recipe.json",
    ]


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("moment", ["evaluate", "save_plots"])
def test_ctrl_c_after_training_keeps_the_model_and_an_older_run(
    moment: str, train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train("--seed", 1)
    first = contents(tmp_path / "run")

    def interrupt(first: object, *_: object) -> None:
        if isinstance(first, Path):  # after one plot
            first.mkdir()
            (first / PLOT_FILES[0]).write_text("a plot")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"lenet5.run.{moment}", interrupt)
        answer = train("--seed", 2, "--force")
    assert answer.status == 130
    assert answer.err == (
        "lenet5: interrupted; finished epochs are in run/unfinished; "
        "lenet5 train --resume run/unfinished continues\n"
    )
    left = contents(tmp_path / "run")
    assert {name: left[name] for name in WHOLE_RUN} == first
    assert sorted(contents(tmp_path / "run/unfinished")) == INTERRUPTED_RUN
    assert json.loads(left["unfinished/history.json"])["interrupted"] is True

    assert train("--seed", 3, "--force").status == 0
    third = contents(tmp_path / "run")
    assert sorted(third) == WHOLE_RUN
    assert json.loads(third["recipe.json"])["seed"] == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_sigterm_keeps_the_finished_epochs(engine: str, tmp_path: Path) -> None:
    """A CI job sends it at its time limit."""
    argv = [sys.executable, "-m", "lenet5", "train", "--dataset", "digits", "--epochs", "900"]
    argv += ["--engine", engine, "--threads", "1", "--out", "run"]
    (tmp_path / "tmp").mkdir()
    command = subprocess.Popen(
        argv,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    while not command.stdout.readline().startswith("epoch  2/"):
        assert command.poll() is None
    command.terminate()
    _, said = command.communicate(timeout=60)
    assert command.returncode == 130
    assert (
        said
        == "lenet5: interrupted; finished epochs are in run; lenet5 train --resume run continues\n"
    )
    assert sorted(contents(tmp_path / "run")) == INTERRUPTED_RUN
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert len(history["epochs"]) >= 2
    left = {path.name for path in (tmp_path / "tmp").iterdir()}
    assert left <= {"__pycache__"}  # of the modules that TensorFlow's AutoGraph generates


def test_ctrl_c_before_training_leaves_nothing(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lenet5.data.load_dataset", interrupt)
    assert train() == Answer(130, "", "lenet5: interrupted\n")
    assert contents(tmp_path) == {}
