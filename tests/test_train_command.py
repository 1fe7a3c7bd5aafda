"""`lenet5 train`: output, exit status and files."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from lenet5 import run_directory
from lenet5.loading import load_model
from lenet5.recipe import DEFAULT_ENGINE, ENGINES
from lenet5.recipes import RECIPES
from lenet5.runtime import threads_in_use
from tests import scripted_training, stand_in_gpu
from tests.commands import (
    ROOT,
    WHOLE_RUN,
    Answer,
    contents,
    largest_file,
    of_checkout,
    run_apart,
)


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(
    ("asked", "engine"), [([], "keras"), *(([f"--engine={name}"], name) for name in ENGINES)]
)
def test_training_prints_every_epoch_and_the_score(
    train: Callable[..., Answer], asked: list[str], engine: str
) -> None:
    """Without a terminal there is no progress bar."""
    assert train("--epochs", 2, "--seed", 4, *asked) == Answer(
        0,
        f"recipe fast, engine {engine}, seed 4, 1,297 training images of digits, "
        f"threads {threads_in_use()}, CPU only\n"
        "epoch  1/2  loss 1.5000  accuracy 50.00 %  "
        "validation loss 1.2500  accuracy 60.00 %  648 images/s\n"
        "epoch  2/2  loss 0.7500  accuracy 80.00 %  "
        "validation loss 0.5000  accuracy 90.00 %  324 images/s\n"
        f"{scripted_training.ACCURACY}"
        "best epoch 2 of 2, 7.0 s; run directory run\n",
        "",
    )


@pytest.mark.usefixtures("scripted")
def test_a_gpu_is_printed_and_recorded(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = stand_in_gpu.install(monkeypatch)
    answer = train("--device", "gpu")
    assert (answer.status, answer.err) == (0, "")
    line = answer.out.splitlines()[0]
    assert line.endswith(f", threads {threads_in_use()}, GPU Stand-in (gpu:0), TF32 on")
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    told = {name: environment[name] for name in stand_in_gpu.ENTRIES}
    assert told == stand_in_gpu.ENTRIES
    assert asked.growing == tf.config.list_physical_devices("GPU")


@pytest.mark.parametrize(
    ("device", "visible", "reason"),
    [
        ("tpu", None, "--device is 'tpu', expected cpu, gpu or gpu:N"),
        ("gpu:x", None, "--device is 'gpu:x', expected cpu, gpu or gpu:N"),
        ("gpu:-1", None, "--device is 'gpu:-1', expected cpu, gpu or gpu:N"),
        ("gpu:1", "7", "--device gpu:1: CUDA_VISIBLE_DEVICES='7' shows 1 GPU"),
    ],
)
def test_a_device_that_is_none_is_refused(
    device: str,
    visible: str | None,
    reason: str,
    lenet5: Callable[..., Answer],
    tmp_path: Path,
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    answer = lenet5("train", "--device", device, **environment)
    assert answer == Answer(2, "", f"lenet5: error: {reason}\n")
    assert contents(tmp_path) == {}


def test_without_a_gpu_training_ends_in_one_line(tmp_path: Path) -> None:
    """In a fresh process; no machine has a GPU 99."""
    environment = {**of_checkout(), "CUDA_VISIBLE_DEVICES": "99"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    argv = [sys.executable, "-m", "lenet5", "train", "--dataset", "digits", "--device", "gpu"]
    done = subprocess.run(
        argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("lenet5: error: --device gpu:0: ")
    assert contents(tmp_path) == {}


@pytest.mark.usefixtures("scripted")
def test_early_stopping_is_printed(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    early = replace(scripted_training.HISTORY, stopped_early=True)
    monkeypatch.setattr(scripted_training, "HISTORY", early)
    last = train().out.splitlines()[-1]
    assert last == "best epoch 2 of 2, stopped early, 7.0 s; run directory run"


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((), "digits-fast-seed0"),
        (("--engine", "keras"), "digits-fast-seed0"),
        (("--engine", "graph"), "digits-fast-graph-seed0"),
        (("--recipe", "original", "--seed", "12"), "digits-original-seed12"),
        (("--recipe", "best", "--engine", "graph"), "digits-best-graph-seed0"),
    ],
)
def test_the_run_directory_is_named_after_the_run(
    lenet5: Callable[..., Answer], tmp_path: Path, arguments: tuple[str, ...], name: str
) -> None:
    """The name includes the engine, unless it is the default."""
    answer = lenet5("train", "--dataset", "digits", "--threads", threads_in_use(), *arguments)
    assert answer.out.endswith(f"; run directory runs/{name}\n")
    assert sorted(contents(tmp_path / "runs" / name)) == WHOLE_RUN


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("engine", ENGINES)
def test_the_run_directory_records_the_arguments(
    train: Callable[..., Answer], tmp_path: Path, engine: str
) -> None:
    train("--epochs", 2, "--seed", 4, "--engine", engine)
    recipe = json.loads((tmp_path / "run/recipe.json").read_text())
    assert recipe["overrides"] == {"epochs": 2}
    assert recipe["recipe"]["epochs"] == 2
    assert recipe["seed"] == 4
    assert recipe["dataset"] == "digits"
    assert recipe["engine"] == engine
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    assert environment["threads"] == threads_in_use()
    assert environment["tensorflow"].split("+")[0] == tf.__version__
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert [epoch["validation_loss"] for epoch in history["epochs"]] == [1.25, 0.5]
    assert history["interrupted"] is False
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert (metrics["test_errors"], metrics["test_images"]) == (3, 300)
    assert metrics["engine"] == engine


class Terminal(io.StringIO):
    """A stream that reports to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("scripted")
def test_a_terminal_shows_a_progress_bar(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has epoch, share, time passed and left, images/s, loss and accuracy; a step takes 1 s."""
    seconds = itertools.count()
    monkeypatch.setattr("tqdm.std.time", lambda: float(next(seconds)))
    monkeypatch.setenv("COLUMNS", "200")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    answer = train("--epochs", 2)
    bars = re.findall(r"epoch [^\r\n]*\]", terminal.getvalue())
    for begins, ends in [
        (r"epoch 1/2: +50%\|[^|]*\| 1\.30k/2\.59k", r"loss 1\.5000, accuracy 50\.00 %"),
        (r"epoch 2/2: +75%\|[^|]*\| 1\.9\dk/2\.59k", r"loss 0\.7500, accuracy 80\.00 %"),
    ]:
        expected = re.compile(rf"{begins} \[00:\d\d<00:\d\d, \d+ images/s, {ends}\]")
        assert any(expected.fullmatch(bar) for bar in bars), bars
    assert "epoch" in answer.out
    assert answer.out.endswith(
        f"{scripted_training.ACCURACY}best epoch 2 of 2, 7.0 s; run directory run\n"
    )


def test_a_real_run_is_complete_and_evaluate_prints_the_same_score(
    trained: tuple[Path, str], lenet5: Callable[..., Answer]
) -> None:
    directory, printed = trained
    assert sorted(contents(directory)) == WHOLE_RUN
    score = next(line for line in printed.splitlines() if line.startswith("test accuracy"))
    answer = lenet5("evaluate", directory, "--threads", threads_in_use())
    assert answer == Answer(0, f"{score}\n", "")
    metrics = json.loads((directory / "metrics.json").read_text())
    assert f" ({metrics['test_errors']:,} wrong of 300; " in score


@pytest.mark.parametrize("engine", ENGINES)
def test_another_process_trains_to_the_same_bits_and_prints_no_log_lines(
    engine: str,
    request: pytest.FixtureRequest,
    train: Callable[..., Answer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hash seed differs; only a subprocess reveals C++ output to descriptor 2."""
    if engine == DEFAULT_ENGINE:
        run, printed = request.getfixturevalue("trained")
    else:
        run, printed = tmp_path / "run", train("--epochs", 2, "--engine", engine).out
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    monkeypatch.setenv("PYTHONHASHSEED", "12345")
    argv = [sys.executable, "-m", "lenet5", "train", "--dataset", "digits", "--epochs", "2"]
    argv += ["--threads", str(threads_in_use()), "--engine", engine, "--out", "other"]
    other = run_apart(argv, tmp_path, capture_output=True)
    assert (other.status, other.err) == (0, "")
    scores = [
        next(line for line in text.splitlines() if line.startswith("test accuracy"))
        for text in (printed, other.out)
    ]
    assert scores[0] == scores[1]
    recipe = RECIPES["fast"].with_overrides({"epochs": 2})
    ours, others = (
        load_model(folder / "model.keras", recipe).get_weights()
        for folder in (run, tmp_path / "other")
    )
    assert [weight.tobytes() for weight in ours] == [weight.tobytes() for weight in others]


@pytest.mark.parametrize("engine", ENGINES)
def test_diverged_training_exits_with_status_1(
    engine: str, train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wild = replace(RECIPES["fast"], name="wild", learning_rate=1e30)
    monkeypatch.setitem(RECIPES, "wild", wild)
    answer = train("--recipe", "wild", "--engine", engine)
    assert answer.status == 1
    assert re.fullmatch(r"lenet5: training diverged: the loss is \S+ in epoch 1, .*\n", answer.err)
    assert contents(tmp_path / "run") == {}


@pytest.mark.usefixtures("scripted")
def test_an_existing_run_is_overwritten_only_with_force(
    train: Callable[..., Answer], tmp_path: Path
) -> None:
    train("--seed", 1)
    (tmp_path / "run/notes.txt").write_text("mine")
    first = contents(tmp_path / "run")
    assert train("--seed", 2) == Answer(
        2, "", "lenet5: error: run: it contains a run already; --force overwrites it\n"
    )
    assert contents(tmp_path / "run") == first
    assert train("--seed", 2, "--force").status == 0
    second = contents(tmp_path / "run")
    assert sorted(second) == sorted([*WHOLE_RUN, "notes.txt"])
    assert json.loads(second["recipe.json"])["seed"] == 2
    assert second["notes.txt"] == b"mine"


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_second_training_into_one_folder_is_refused(
    force: list[str], train: Callable[..., Answer], tmp_path: Path
) -> None:
    with run_directory.reserved(tmp_path / "run", force=False):
        refused = Answer(2, "", "lenet5: error: run: another process trains into it\n")
        assert train(*force) == refused
    assert contents(tmp_path) == {}


def test_of_two_trainings_at_once_one_gets_the_folder(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "lenet5", "train", "--dataset", "digits", "--epochs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            [*argv, "--out", "run"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [command.communicate(timeout=300)[1] for command in both]
    assert sorted(command.returncode for command in both) == [0, 2]
    assert "lenet5: error: run: " in "".join(said)
    assert sorted(contents(tmp_path / "run")) == WHOLE_RUN


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_folder_that_is_not_a_run_is_never_changed(
    force: list[str], train: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "run/plots").mkdir(parents=True)
    (tmp_path / "run/plots/roc.png").write_text("mine")
    assert train(*force) == Answer(
        2, "", "lenet5: error: run: exists and is not a run, choose another --out\n"
    )
    assert contents(tmp_path) == {"run/plots/roc.png": b"mine"}


def test_an_unwritable_output_folder_is_reported_before_training(
    train: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    assert train("--out", "file/run") == Answer(
        2, "", "lenet5: error: file/run: cannot be written: Not a directory\n"
    )
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.usefixtures("scripted")
def test_a_disk_too_small_for_the_model_does_not_lose_the_score(
    train: Callable[..., Answer], tmp_path: Path
) -> None:
    with largest_file(50_000):
        answer = train()
    assert answer.status == 2
    assert answer.out.endswith(scripted_training.ACCURACY)
    reason = os.strerror(errno.EFBIG)
    assert answer.err.splitlines() == [
        f"lenet5: note: no checkpoint of epoch 2: run/checkpoint.npz: cannot be written: {reason}",
        f"lenet5: error: run/model.keras: cannot be written: {reason}",
    ]
    assert sorted(contents(tmp_path / "run")) == [
        "environment.json",
        "history.json",
        "recipe.json",
    ]


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("failing", ["save_plots", "save_model"])
def test_a_full_disk_does_not_damage_an_older_run(
    failing: str, train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train("--seed", 1)
    first = contents(tmp_path / "run")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"lenet5.run.{failing}", fail)
    answer = train("--seed", 2, "--force")
    name = {"save_plots": "plots", "save_model": "model.keras"}[failing]
    assert answer.status == 2
    assert answer.out.endswith(scripted_training.ACCURACY)
    assert answer.err == (
        f"lenet5: error: run/unfinished/{name}: cannot be written: No space left on device\n"
    )
    left = contents(tmp_path / "run")
    assert {name: left[name] for name in WHOLE_RUN} == first
    assert not [name for name in left if "partial" in name]
