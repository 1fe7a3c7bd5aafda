"""Interrupted trainings that continue: the same bits, and refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lenet5 import checkpoint, run_directory
from lenet5.checkpoint import Interrupted
from lenet5.data import Subset
from lenet5.devices import CPU, Device
from lenet5.environment import describe_environment
from lenet5.errors import InputError
from lenet5.history import Checkpoint, Epoch, History
from lenet5.recipe import ENGINES, Recipe
from lenet5.recipes import RECIPES
from lenet5.run_directory import Run
from lenet5.runtime import threads_in_use
from lenet5.training import train as train_model
from tests import stand_in_gpu
from tests.commands import ROOT, WHOLE_RUN, Answer, contents, interrupt_in_epoch

# Dropout and patience; all else: averages, distortions, label smoothing, a schedule.
PATIENT = RECIPES["original"].with_overrides(
    {"epochs": 20, "patience": 2, "batch_size": 100, "learning_rate": 0.02}
)
AVERAGED = RECIPES["best"].with_overrides({"epochs": 3, "dropout": 0.5, "batch_size": 100})
EPOCHS = 3


@dataclass(frozen=True)
class Undisturbed:
    """A training without a pause, with its checkpoints."""

    recipe: Recipe
    engine: str
    model: tf.keras.Model
    history: History
    checkpoints: tuple[Checkpoint, ...]


def noise(count: int, seed: int) -> Subset:
    random = np.random.RandomState(seed)
    images = random.randint(0, 256, (count, 28, 28, 1)).astype(np.uint8)
    return Subset(images, random.randint(0, 10, count).astype(np.uint8))


TRAINING, VALIDATION = noise(250, 1), noise(60, 2)


def without_seconds(history: History) -> History:
    epochs = tuple(replace(epoch, train_seconds=0.0) for epoch in history.epochs)
    return replace(history, epochs=epochs, train_seconds=0.0)


def assert_same(model: tf.keras.Model, other: tf.keras.Model) -> None:
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.fixture(
    scope="module",
    params=[(recipe, engine) for recipe in (PATIENT, AVERAGED) for engine in ENGINES],
    ids=lambda given: f"{given[0].name}-{given[1]}",
)
def undisturbed(request: pytest.FixtureRequest) -> Undisturbed:
    recipe, engine = request.param
    taken: list[Checkpoint] = []
    model, history = train_model(
        recipe, TRAINING, VALIDATION, seed=3, engine=engine, on_checkpoint=taken.append
    )
    return Undisturbed(recipe, engine, model, history, tuple(taken))


def test_every_epoch_has_a_checkpoint(undisturbed: Undisturbed) -> None:
    """The last one has only the best weights: the training has ended."""
    history, taken = undisturbed.history, undisturbed.checkpoints
    assert [len(c.epochs) for c in taken] == [*range(1, len(history.epochs) + 1)]
    assert [c.ended for c in taken] == [False] * (len(taken) - 1) + [True]
    assert all(c.epochs == history.epochs[: len(c.epochs)] for c in taken)
    if undisturbed.recipe is PATIENT:
        assert history.stopped_early


@pytest.mark.parametrize("which", [0, -2, -1])
def test_a_resumed_training_ends_with_the_same_bits(
    undisturbed: Undisturbed, which: int, tmp_path: Path
) -> None:
    """The checkpoint went through its file."""
    engine, recipe = undisturbed.engine, undisturbed.recipe
    saved = Interrupted(
        Run(recipe, {}, 3, "mnist", engine), {"threads": 1}, undisturbed.checkpoints[which]
    )
    checkpoint.write(tmp_path / "checkpoint.npz", saved)
    read = checkpoint.read(tmp_path / "checkpoint.npz")
    assert read.run == saved.run
    later: list[Checkpoint] = []
    model, history = train_model(
        recipe,
        TRAINING,
        VALIDATION,
        seed=3,
        engine=engine,
        resume=read.checkpoint,
        on_checkpoint=later.append,
    )
    assert_same(model, undisturbed.model)
    assert without_seconds(history) == without_seconds(undisturbed.history)
    assert len(later) == len(undisturbed.checkpoints[which:]) - 1


def test_a_resumed_training_can_be_interrupted_and_resumed(undisturbed: Undisturbed) -> None:
    """Each checkpoint of a resumed training equals that of the undisturbed one."""
    later: list[Checkpoint] = []
    first = undisturbed.checkpoints[0]
    train_model(
        undisturbed.recipe,
        TRAINING,
        VALIDATION,
        seed=3,
        engine=undisturbed.engine,
        resume=first,
        on_checkpoint=later.append,
    )
    for one, other in zip(later, undisturbed.checkpoints[1:], strict=True):
        for name in ("best_weights", "variables"):
            for two, three in zip(getattr(one, name), getattr(other, name), strict=True):
                np.testing.assert_array_equal(two, three)


def test_seconds_of_all_parts_add_up() -> None:
    ticks = iter(range(1000))
    taken: list[Checkpoint] = []
    for resume in (None, 0):
        _, history = train_model(
            PATIENT,
            TRAINING,
            VALIDATION,
            seed=3,
            engine="graph",
            resume=None if resume is None else taken[0],
            on_checkpoint=taken.append,
            clock=lambda: float(next(ticks)),
        )
    assert history.train_seconds > taken[0].train_seconds > 0
    assert sum(epoch.train_seconds for epoch in history.epochs) < history.train_seconds


def test_a_killed_command_continues_with_the_same_result(
    lenet5: Callable[..., Answer], train: Callable[..., Answer], tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "lenet5", "train", "--dataset", "digits", "--epochs", "20"]
    argv += ["--threads", str(threads_in_use()), "--out", "killed"]
    command = subprocess.Popen(
        argv,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert command.stdout is not None
    while not command.stdout.readline().startswith("epoch  3/"):
        assert command.poll() is None
    command.kill()
    command.communicate()
    assert command.returncode == -signal.SIGKILL
    whole = [name for name in contents(tmp_path / "killed") if ".partial." not in name]
    assert whole == ["checkpoint.npz"]

    for path in ("killed", "killed/checkpoint.npz"):
        found = lenet5("evaluate", path)
        assert found.status == 2
    again = lenet5("train", "--dataset", "digits", "--out", "killed")
    assert again.err == (
        "lenet5: error: killed: it contains an interrupted run; "
        "lenet5 train --resume killed continues it, --force starts anew\n"
    )
    # Files of a process that was killed while writing.
    (tmp_path / "killed/plots").mkdir()
    for name in (".checkpoint.1.partial.npz", "plots/.errors.1.partial.png"):
        (tmp_path / "killed" / name).write_bytes(b"half")
    answer = lenet5("train", "--resume", "killed")
    assert answer.status == 0, answer.err
    assert "; continues after epoch " in answer.out.splitlines()[0]
    assert sorted(contents(tmp_path / "killed")) == WHOLE_RUN
    assert train("--epochs", 20).status == 0
    histories = [run_directory.read_history(tmp_path / name) for name in ("killed", "run")]
    assert without_seconds(histories[0]) == without_seconds(histories[1])
    metrics = [
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("killed", "run")
    ]
    for values in metrics:
        values.pop("train_seconds")
    assert metrics[0] == metrics[1]
    assert_same(
        *(tf.keras.models.load_model(tmp_path / name / "model.keras") for name in ("killed", "run"))
    )


def saved_run(
    directory: Path, epochs: int = 1, environment: dict[str, Any] | None = None, seed: int = 5
) -> None:
    """Writes a checkpoint of a run of the digits; its weights are of no use."""
    recipe = RECIPES["fast"].with_overrides({"epochs": EPOCHS})
    run = Run(recipe, {"epochs": EPOCHS}, seed, "digits", "keras")
    told = tuple(Epoch(n + 1, 1.0, 0.5, 1.0, 0.5, 0.1, 2.0) for n in range(epochs))
    state = Checkpoint(told, 3.0, (np.zeros(2, np.float32),), (np.zeros(3, np.float32),))
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint.write(
        directory / "checkpoint.npz",
        Interrupted(
            run, {"threads": threads_in_use(), **(environment or {})}, state if epochs else None
        ),
    )


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("place", [".", "unfinished"])
def test_a_run_killed_in_its_first_epoch_is_trained_from_its_beginning(
    place: str, train: Callable[..., Answer], lenet5: Callable[..., Answer], tmp_path: Path
) -> None:
    """In both places: a new run, and a newer one beside a complete run."""
    if place == "unfinished":
        assert train().status == 0
    saved_run(tmp_path / "run" / place, epochs=0)
    answer = lenet5("train", "--resume", f"run/{place}")
    assert answer.status == 0, answer.err
    assert "continues" not in answer.out
    assert sorted(contents(tmp_path / "run")) == WHOLE_RUN
    stored = json.loads((tmp_path / "run/recipe.json").read_text())
    assert (stored["seed"], stored["overrides"]) == (5, {"epochs": EPOCHS})
    again = lenet5("train", "--resume", "run")
    assert again == Answer(
        2, "", "lenet5: error: run: the run is complete, there is nothing to resume\n"
    )


@pytest.mark.parametrize("moment", ["clear", "write_json", "save_plots", "publish"])
@pytest.mark.usefixtures("scripted")
def test_a_run_killed_while_writing_its_results_can_be_resumed(
    moment: str,
    train: Callable[..., Answer],
    lenet5: Callable[..., Answer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """An error that nobody handles stands for the kill; the older run is complete until then."""

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    assert train("--seed", 1).status == 0
    home = "lenet5.run" if moment == "save_plots" else "lenet5.run_directory"
    monkeypatch.setattr("lenet5.checkpoint.discard", lambda *_, **__: None)
    with monkeypatch.context() as patch:
        if moment == "clear":  # the first call is for the new run's folder
            patch.setattr("lenet5.run._write_training", kill)
        else:
            patch.setattr(f"{home}.{moment}", kill)
        with pytest.raises(Killed):
            train("--seed", 2, "--force")
    answer = lenet5("train", "--resume", "run")
    assert answer.status == 0, answer.err
    assert sorted(contents(tmp_path / "run")) == WHOLE_RUN
    assert json.loads((tmp_path / "run/recipe.json").read_text())["seed"] == 2


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("tensorflow", "2.11.0", "TensorFlow 2.11.0, not {tensorflow}"),
        ("keras", "2.11.0", "Keras 2.11.0, not {keras}"),
        ("numpy", "1.0", "NumPy 1.0, not {numpy}"),
        ("cpu", "Z80", "processor Z80, not {cpu}"),
        ("gpu", "Voodoo2", "GPU Voodoo2, not {gpu}"),
        ("cuda", "11.0", "CUDA 11.0, not {cuda}"),
        ("cudnn", "7", "cuDNN 7, not {cudnn}"),
        ("tf32", False, "TF32 off, not on"),
        ("deterministic_ops", True, "deterministic operations on, not off"),
    ],
)
def test_another_environment_is_refused(
    entry: str,
    value: object,
    said: str,
    lenet5: Callable[..., Answer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    on_gpu = entry in stand_in_gpu.ENTRIES
    if on_gpu:
        stand_in_gpu.install(monkeypatch)
    there = {**(stand_in_gpu.ENTRIES if on_gpu else {}), entry: value}
    saved_run(tmp_path / "run", environment=there)
    before = contents(tmp_path)
    answer = lenet5("train", "--resume", "run", *(["--device", "gpu"] if on_gpu else []))
    assert answer.status == 2
    from lenet5.runtime import keras_version

    here = describe_environment(
        threads_in_use(), keras_version(), Device("gpu:0", "0") if on_gpu else CPU
    )
    reason = f"the run was begun with {said.format(**here)}: results would differ"
    assert answer.err == f"lenet5: error: {reason}\n"
    assert contents(tmp_path) == before


def test_another_number_of_threads_is_refused(
    lenet5: Callable[..., Answer], tmp_path: Path
) -> None:
    threads = threads_in_use()
    saved_run(tmp_path / "run")
    answer = lenet5("train", "--resume", "run", "--threads", threads + 1)
    assert answer.err == (
        f"lenet5: error: the run was begun with threads: {threads}, not {threads + 1}: "
        "results would differ\n"
    )


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("given", [[], ["--device", "gpu"], ["--device", "gpu:0"]])
def test_a_run_continues_on_its_gpu(
    given: list[str],
    lenet5: Callable[..., Answer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    stand_in_gpu.install(monkeypatch)
    saved_run(tmp_path / "run", environment=stand_in_gpu.ENTRIES)
    answer = lenet5("train", "--resume", "run", *given)
    assert (answer.status, answer.err) == (0, "")
    line = answer.out.splitlines()[0]
    assert line.endswith(", GPU Stand-in (gpu:0), TF32 on; continues after epoch 1")
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    assert environment["device"] == "gpu:0"


@pytest.mark.parametrize(
    ("there", "given", "said"),
    [
        ({"device": "gpu:0"}, "cpu", "device gpu:0, not cpu"),
        ({"device": "gpu:0"}, "gpu:1", "device gpu:0, not gpu:1"),
        ({"device": "cpu"}, "gpu", "device cpu, not gpu:0"),
        ({}, "gpu", "device cpu, not gpu:0"),
    ],
)
@pytest.mark.parametrize("epochs", [0, 1])
def test_another_device_is_refused_before_tensorflow_starts(
    there: dict[str, str],
    given: str,
    said: str,
    epochs: int,
    lenet5: Callable[..., Answer],
    tmp_path: Path,
) -> None:
    """Checkpoints of earlier versions have no device: they are of a CPU."""
    saved_run(tmp_path / "run", epochs, environment=there)
    before = contents(tmp_path)
    answer = lenet5("train", "--resume", "run", "--device", given)
    reason = f"the run was begun with {said}: results would differ"
    assert answer == Answer(2, "", f"lenet5: error: {reason}\n")
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("scripted")
def test_a_checkpoint_without_a_device_continues_on_the_cpu(
    lenet5: Callable[..., Answer], tmp_path: Path
) -> None:
    saved_run(tmp_path / "run")
    assert checkpoint.read(tmp_path / "run/checkpoint.npz").device == "cpu"
    answer = lenet5("train", "--resume", "run")
    assert answer.status == 0, answer.err
    assert ", CPU only; continues after epoch 1" in answer.out


def test_a_new_run_keeps_its_device_before_its_first_epoch(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in_gpu.install(monkeypatch)
    seen: list[str] = []

    def look(_: object) -> None:
        seen.append(checkpoint.read(tmp_path / "run/checkpoint.npz").device)
        raise InputError("looked")

    monkeypatch.setattr("lenet5.runtime.check_in_force", look)
    assert train("--device", "gpu").err == "lenet5: error: looked\n"
    assert seen == ["gpu:0"]


@pytest.mark.parametrize("device", ["tpu", 3, None, ["gpu"]])
def test_a_device_that_is_none_damages_a_checkpoint(device: object, tmp_path: Path) -> None:
    saved_run(tmp_path, environment={"device": device})
    with pytest.raises(InputError, match="damaged, not a checkpoint"):
        checkpoint.read(tmp_path / "checkpoint.npz")


@pytest.mark.parametrize(
    "given",
    [
        *(("--recipe", "fast"), ("--seed", "0"), ("--engine", "keras"), ("--epochs", "3")),
        *(("--dataset", "digits"), ("--out", "other"), ("--force",)),
    ],
    ids=lambda given: given[0],
)
def test_options_of_the_run_cannot_be_given_again(
    given: tuple[str, ...], lenet5: Callable[..., Answer], tmp_path: Path
) -> None:
    """A value equal to the default counts as well."""
    saved_run(tmp_path / "run")
    answer = lenet5("train", "--resume", "run", *given)
    assert answer == Answer(
        2,
        "",
        f"lenet5: error: --resume continues the run as it was begun: leave out {given[0]}\n",
    )


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (None, "run: no such run directory"),
        ("empty", "run: contains no interrupted run, there is nothing to resume"),
    ],
)
def test_a_folder_without_an_interrupted_run_is_refused(
    made: str | None, said: str, lenet5: Callable[..., Answer], tmp_path: Path
) -> None:
    if made:
        (tmp_path / "run").mkdir()
    assert lenet5("train", "--resume", "run") == Answer(2, "", f"lenet5: error: {said}\n")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("left", [0, 1, 100, 0.5, 0.99])
def test_a_damaged_checkpoint_is_told(
    left: float, lenet5: Callable[..., Answer], tmp_path: Path
) -> None:
    saved_run(tmp_path / "run")
    path = tmp_path / "run/checkpoint.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left if left >= 1 else left * len(whole))])
    assert lenet5("train", "--resume", "run") == Answer(
        2, "", "lenet5: error: run/checkpoint.npz: damaged, not a checkpoint\n"
    )


def test_a_checkpoint_of_another_model_is_told(
    lenet5: Callable[..., Answer], tmp_path: Path
) -> None:
    saved_run(tmp_path / "run")
    answer = lenet5("train", "--resume", "run")
    assert (answer.status, answer.err) == (
        2,
        "lenet5: error: the checkpoint is damaged, or of another model\n",
    )
    assert list(contents(tmp_path / "run")) == ["checkpoint.npz"]


@pytest.mark.parametrize("change", [b"epoch", b"seed"])
def test_changed_content_is_told(change: bytes, tmp_path: Path) -> None:
    """The content is JSON; a changed name makes it another document."""
    saved_run(tmp_path)
    path = tmp_path / "checkpoint.npz"
    arrays = dict(np.load(path))
    content = arrays["content"].tobytes().replace(b'"' + change, b'"x' + change)
    arrays["content"] = np.frombuffer(content, np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="damaged"):
        checkpoint.read(path)


@pytest.mark.usefixtures("scripted")
def test_a_diverged_run_leaves_no_checkpoint(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would diverge again."""
    from lenet5.history import DivergenceError

    def diverge(*_: object, **__: object) -> None:
        raise DivergenceError("the loss is nan")

    monkeypatch.setattr("lenet5.run.train", diverge)
    assert train().status == 1
    assert contents(tmp_path) == {}


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write = checkpoint.write

    def full(path: Path, interrupted: Interrupted) -> None:
        if interrupted.checkpoint is not None and len(interrupted.checkpoint.epochs) < 3:
            raise InputError(f"{path}: cannot be written: No space left on device")
        write(path, interrupted)

    monkeypatch.setattr("lenet5.checkpoint.write", full)
    answer = train("--epochs", 3)
    assert answer.status == 0
    assert answer.err == (
        "lenet5: note: no checkpoint of epoch 1: "
        "run/checkpoint.npz: cannot be written: No space left on device\n"
    )
    assert sorted(contents(tmp_path / "run")) == WHOLE_RUN


def test_ctrl_c_in_a_resumed_run_keeps_earlier_results(
    train: Callable[..., Answer],
    lenet5: Callable[..., Answer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Model and history of the first part stay, with Ctrl-C before the first new epoch."""
    interrupt_in_epoch(2, monkeypatch)
    assert train("--epochs", 3).status == 130
    before = contents(tmp_path / "run")
    answer = lenet5("train", "--resume", "run")
    assert answer.status == 130
    after = contents(tmp_path / "run")
    assert sorted(after) == sorted(before)
    epochs = [json.loads(files["history.json"])["epochs"] for files in (before, after)]
    assert epochs[0] == epochs[1]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert lenet5("train", "--resume", "run").status == 0
    assert sorted(contents(tmp_path / "run")) == WHOLE_RUN
