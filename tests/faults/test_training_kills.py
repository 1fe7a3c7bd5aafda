"""Kills of `lenet5 train` at random moments: a resumed run ends as an undisturbed one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lenet5.recipe import ENGINES
from tests.commands import ROOT, WHOLE_RUN, contents

pytestmark = pytest.mark.faults

TRIES = 20
EPOCHS = 60


@dataclass(frozen=True)
class Outcome:
    """What must not depend on kills.

    Attributes:
        weights: SHA-256 of the weights.
        history: epochs without seconds.
        scores: content of `metrics.json` without seconds.
    """

    weights: str
    history: list[list[float]]
    scores: dict[str, object]


def outcome(directory: Path) -> Outcome:
    model = tf.keras.models.load_model(directory / "model.keras")
    digest = hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights()))
    history = json.loads((directory / "history.json").read_text())
    scores = json.loads((directory / "metrics.json").read_text())
    del scores["train_seconds"]
    rows = [[v for k, v in e.items() if k != "train_seconds"] for e in history["epochs"]]
    rows.append([history["best_epoch"], history["stopped_early"], history["interrupted"]])
    return Outcome(digest.hexdigest(), rows, scores)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "lenet5", "train", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_complete(run: Path) -> bool:
    return (run / "metrics.json").is_file() and not (run / "checkpoint.npz").is_file()


def begin(folder: Path, engine: str) -> subprocess.Popen[str]:
    told = ("--dataset", "digits", "--epochs", str(EPOCHS), "--engine", engine, "--threads", "1")
    return start(folder, *told, "--out", "run")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_killed_trainings_end_as_undisturbed_ones(
    engine: str, how: signal.Signals, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Each run is killed at two random moments of a run's whole time."""
    started = time.monotonic()
    (tmp_path / "whole").mkdir()
    assert begin(tmp_path / "whole", engine).wait() == 0
    seconds = time.monotonic() - started
    expected = outcome(tmp_path / "whole/run")
    moments = np.random.RandomState([ENGINES.index(engine), how])
    killed = resumed = 0
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        run = folder / "run"
        for kill in (True, True, False):
            if is_complete(run):  # also if the kill came after the last file
                break
            again = (run / "checkpoint.npz").is_file()
            command = start(folder, "--resume", "run") if again else begin(folder, engine)
            if kill:
                time.sleep(moments.uniform(0, seconds))
                command.send_signal(how)
            _, said = command.communicate()
            assert command.returncode in ((0, -how, 130) if kill else (0,)), said
            killed += command.returncode != 0
            resumed += again
        assert outcome(run) == expected, number
        assert sorted(contents(run)) == WHOLE_RUN
        assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []
    told = f"{engine} {how.name}: {TRIES} runs, {killed} times killed, {resumed} times resumed"
    record_property("counts", told)
    print(told)
