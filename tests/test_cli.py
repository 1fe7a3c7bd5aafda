"""The command `lenet5`: what it prints, its exit status, and what it leaves behind."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lenet5 import __version__
from lenet5.cli import default_data_dir, default_mnist_dir, main
from lenet5.data import Dataset, normalise
from lenet5.errors import InputError
from lenet5.evaluation import Evaluation
from lenet5.model import build_for, load_model
from lenet5.plots import PLOT_FILES
from lenet5.recipe import RECIPES
from lenet5.runtime import threads_in_use
from lenet5.training import Epoch, History, Progress, TrainingInterrupted

ROOT = Path(__file__).parent.parent

ACCURACY = "test accuracy 99.00 % (3 wrong of 300; 95 % interval 97.10-99.66 %)\n"
EPOCHS = (
    Epoch(1, 1.5, 0.5, 1.25, 0.6, 3e-3, train_seconds=2.0),
    Epoch(2, 0.75, 0.8, 0.5, 0.9, 1e-3, train_seconds=4.0),
)
HISTORY = History(EPOCHS, best_epoch=2, train_seconds=7.0)


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    status: int
    out: str
    err: str


@pytest.fixture
def lenet5(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Answer]:
    """Runs a command in this process, in a folder of its own, away from anybody's data."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: object, **environment: str) -> Answer:
        environment.setdefault("TFDS_DATA_DIR", str(tmp_path / "no-data"))
        status = main([str(argument) for argument in argv], environment)
        return Answer(status, *capsys.readouterr())

    return run


@pytest.fixture
def train(lenet5: Callable[..., Answer]) -> Callable[..., Answer]:
    """Runs `lenet5 train` on the digits, into the folder `run`."""

    def run(*argv: object) -> Answer:
        digits = ("--dataset", "digits", "--threads", threads_in_use(), "--out", "run")
        return lenet5("train", *digits, *argv)

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that was really trained, and what the command printed."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    argv = ["train", "--dataset", "digits", "--epochs", "2", "--out", str(directory)]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*argv, "--threads", str(threads_in_use())], {}) == 0
    return directory, out.getvalue()


@pytest.fixture
def trained_copy(trained: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the trained run, to be damaged."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in trained[0].glob("*.*"):
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


@pytest.fixture
def scripted(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training, scores and plots by script: with figures that are known, and at once."""
    labels = digits.test.labels
    probabilities = np.full((len(labels), 10), 0.01, np.float32)
    probabilities[np.arange(len(labels)), (labels + (np.arange(len(labels)) < 3)) % 10] = 0.91

    def script(recipe: Any, training: Any, *_: object, on_progress: Any, on_epoch: Any) -> Any:
        images = len(training.labels)
        for epoch in EPOCHS:
            accuracy = epoch.training_accuracy
            for done in (images // 2, images):
                on_progress(Progress(epoch.epoch, 2, done, images, epoch.training_loss, accuracy))
            on_epoch(epoch)
        return build_for(recipe, seed=0), HISTORY

    def draw(folder: Path, *_: object) -> None:
        folder.mkdir(exist_ok=True)
        for name in PLOT_FILES:
            (folder / name).write_text("a plot")

    monkeypatch.setattr("lenet5.run.train", script)
    monkeypatch.setattr("lenet5.run.evaluate", lambda *_: Evaluation(labels, probabilities, 0.25))
    monkeypatch.setattr("lenet5.run.save_plots", draw)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def run_apart(argv: list[str], folder: Path, **options: Any) -> Answer:
    """Runs a program that runs `lenet5`, in a process of its own."""
    # Python must not write at once, as it may do in a container: most output fails at the end.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        argv,
        env=environment,
        cwd=folder,
        text=True,
        check=False,
        **options,
    )
    return Answer(done.returncode, done.stdout or "", done.stderr)


WHOLE_RUN = sorted(
    ["recipe.json", "environment.json", "history.json", "model.keras", "metrics.json"]
    + [f"plots/{name}" for name in PLOT_FILES]
)
INTERRUPTED_RUN = ["environment.json", "history.json", "model.keras", "recipe.json"]


# ---- recipes, help, wrong arguments


def test_recipes_are_printed_as_a_table(lenet5: Callable[..., Answer]) -> None:
    table = """\
name             original      fast
batch_size             32        64
epochs                 20         6
learning_rate       0.001     0.003
schedule         constant    linear
patience                3      None
min_accuracy         0.97      0.98
max_accuracy         0.99     0.992
warmup_fraction       0.0       0.1
l2                  0.001     0.001
dropout               0.5       0.5
adam_beta_1           0.9       0.9
adam_beta_2         0.999     0.999
adam_epsilon        1e-07     1e-07
"""
    assert lenet5("recipes") == Answer(0, table, "")


def exit_of(*argv: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(argv, {})
    return caught.value.code


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of("--version") == 0
    assert capsys.readouterr().out == f"lenet5 {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of("--help") == 0
    out = capsys.readouterr().out
    for command in ("train", "evaluate", "predict", "data", "recipes"):
        assert re.search(rf"^    {command}  +\w", out, re.MULTILINE), command
        assert exit_of(command, "--help") == 0
        assert capsys.readouterr().out.startswith(f"usage: lenet5 {command} ")


NO_MNIST = (
    "not there: train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
    "t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz; the folder named by LENET5_MNIST_DIR "
    "or --mnist-dir must hold MNIST's four original .gz files"
)
WRONG_ARGUMENTS = [
    ([], "the following arguments are required: COMMAND (see lenet5 --help)"),
    (["train", "--recipe", "best"], "unknown recipe 'best': choose one of original, fast"),
    (
        ["train", "--epochs", "0"],
        "argument --epochs: '0' is not a whole number from 1 to 1000 (see lenet5 train --help)",
    ),
    (
        ["train", "--epochs", "1.5"],
        "argument --epochs: '1.5' is not a whole number from 1 to 1000 (see lenet5 train --help)",
    ),
    (
        ["train", "--seed", "536870912"],
        "argument --seed: '536870912' is not a whole number from 0 to 536870911 "
        "(see lenet5 train --help)",
    ),
    (
        ["evaluate", "run", "--threads", "-1"],
        "argument --threads: '-1' is not a whole number from 1 to 256 (see lenet5 evaluate --help)",
    ),
    (["train", "--out", ""], "argument --out: an empty name (see lenet5 train --help)"),
    (["train", "--fast"], "unrecognized arguments: --fast (see lenet5 --help)"),
    (["train", "--mnist-dir", "nowhere"], f"nowhere: {NO_MNIST}"),
    (["data", "--mnist-dir", "nowhere"], f"nowhere: {NO_MNIST}"),
    (["evaluate", "nowhere"], "nowhere: not a run directory, it has no recipe.json"),
    (["predict", "nowhere", "a.png"], "nowhere: not a run directory, it has no recipe.json"),
    (
        ["predict", "nowhere"],
        "the following arguments are required: IMAGE (see lenet5 predict --help)",
    ),
]


@pytest.mark.parametrize(("argv", "message"), WRONG_ARGUMENTS, ids=lambda value: str(value)[:40])
def test_a_wrong_argument_is_answered_in_one_line(
    argv: list[str], message: str, lenet5: Callable[..., Answer], tmp_path: Path
) -> None:
    assert lenet5(*argv) == Answer(2, "", f"lenet5: error: {message}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "beginning"),
    [
        (["test"], "argument COMMAND: invalid choice: 'test' (choose from "),
        (
            ["train", "--dataset", "cifar"],
            "argument --dataset: invalid choice: 'cifar' (choose from ",
        ),
    ],
)
def test_a_wrong_choice_is_answered_in_one_line(
    argv: list[str], beginning: str, lenet5: Callable[..., Answer]
) -> None:
    """The list of choices is printed by argparse, a little differently in each Python."""
    answer = lenet5(*argv)
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith(f"lenet5: error: {beginning}")
    assert answer.err.count("\n") == 1


def test_wrong_arguments_are_answered_before_anything_heavy_is_imported(
    trained: tuple[Path, str], trained_copy: Path, tmp_path: Path
) -> None:
    """Also what needs a look at files: a run, an image, the settings of Keras."""
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    run = str(trained[0])
    (trained_copy / "recipe.json").write_text(
        (trained_copy / "recipe.json").read_text().replace("digits", "mnist")
    )
    wrong = [
        *(argv for argv, _ in WRONG_ARGUMENTS),
        ["train", "--dataset", "digits", "--out", run],
        ["train", "--dataset", "digits", "--out", str(tmp_path)],
        ["evaluate", str(tmp_path / "empty")],
        ["predict", run, str(tmp_path / "text.png")],
        ["evaluate", str(trained_copy), "--mnist-dir", "nowhere"],
    ]
    code = f"""
import os, sys
from lenet5.cli import main
assert [main(argv, {{}}) for argv in {wrong!r}] == [2] * {len(wrong)}
os.environ["KERAS_BACKEND"] = "jax"
assert main(["evaluate", {run!r}], {{}}) == 2
assert main(["recipes"], {{}}) == 0
heavy = "tensorflow", "keras", "tensorflow_datasets", "sklearn", "matplotlib"
print([name for name in heavy if name in sys.modules])
"""
    answer = run_apart([sys.executable, "-c", code], tmp_path / "empty", capture_output=True)
    assert answer.status == 0, answer.err
    assert answer.out.splitlines()[-1] == "[]"


def test_settings_of_keras_that_cannot_work_are_answered_in_one_line(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    message = (
        "TF_USE_LEGACY_KERAS is set, but tf_keras is missing: pip install tf-keras, or unset it"
    )
    assert train() == Answer(2, "", f"lenet5: error: {message}\n")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    message = "KERAS_BACKEND is 'jax': this suite measures TensorFlow, unset it"
    assert train() == Answer(2, "", f"lenet5: error: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_threads_than_tensorflow_runs_with_is_refused(
    trained: tuple[Path, str], lenet5: Callable[..., Answer]
) -> None:
    running = threads_in_use()
    assert lenet5("evaluate", trained[0], "--threads", running + 1) == Answer(
        2,
        "",
        f"lenet5: error: TensorFlow runs with {running} threads already, "
        f"{running + 1} were asked for\n",
    )


def test_folders_of_data_are_named_by_variables() -> None:
    home = Path.home()
    assert default_data_dir({}) == home / "tensorflow_datasets"
    assert default_data_dir({"TFDS_DATA_DIR": "~/sets"}) == home / "sets"
    assert default_mnist_dir({}) is None
    assert default_mnist_dir({"LENET5_MNIST_DIR": ""}) is None
    assert default_mnist_dir({"LENET5_MNIST_DIR": "/mnist"}) == Path("/mnist")


def test_a_folder_of_nobodys_home_is_told(lenet5: Callable[..., Answer]) -> None:
    answer = lenet5("recipes", LENET5_MNIST_DIR="~nobody-of-that-name/mnist")
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith("lenet5: error: ~nobody-of-that-name/mnist: ")


# ---- train


@pytest.mark.usefixtures("scripted")
def test_training_prints_every_epoch_and_the_score(train: Callable[..., Answer]) -> None:
    """Without a terminal there is no bar."""
    assert train("--epochs", 2, "--seed", 4) == Answer(
        0,
        "recipe fast, seed 4, 1,297 training images of digits, "
        f"threads {threads_in_use()}, CPU only\n"
        "epoch  1/2  loss 1.5000  accuracy 50.00 %  "
        "validation loss 1.2500  accuracy 60.00 %  648 images/s\n"
        "epoch  2/2  loss 0.7500  accuracy 80.00 %  "
        "validation loss 0.5000  accuracy 90.00 %  324 images/s\n"
        f"{ACCURACY}"
        "best epoch 2 of 2, 7.0 s; run directory run\n",
        "",
    )


@pytest.mark.usefixtures("scripted")
def test_a_run_that_stopped_early_says_so(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.HISTORY", replace(HISTORY, stopped_early=True))
    last = train().out.splitlines()[-1]
    assert last == "best epoch 2 of 2, stopped early, 7.0 s; run directory run"


@pytest.mark.usefixtures("scripted")
def test_the_run_directory_is_named_after_the_run(
    lenet5: Callable[..., Answer], tmp_path: Path
) -> None:
    answer = lenet5(
        *("train", "--dataset", "digits", "--recipe", "original", "--seed", 12),
        *("--threads", threads_in_use()),
    )
    assert answer.out.endswith("; run directory runs/digits-original-seed12\n")
    assert sorted(contents(tmp_path / "runs/digits-original-seed12")) == WHOLE_RUN


@pytest.mark.usefixtures("scripted")
def test_the_run_directory_records_what_was_asked_for(
    train: Callable[..., Answer], tmp_path: Path
) -> None:
    train("--epochs", 2, "--seed", 4)
    recipe = json.loads((tmp_path / "run/recipe.json").read_text())
    assert recipe["overrides"] == {"epochs": 2}
    assert recipe["recipe"]["epochs"] == 2
    assert recipe["seed"] == 4
    assert recipe["dataset"] == "digits"
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    assert environment["threads"] == threads_in_use()
    assert environment["tensorflow"].split("+")[0] == tf.__version__
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert [epoch["validation_loss"] for epoch in history["epochs"]] == [1.25, 0.5]
    assert history["interrupted"] is False
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert (metrics["test_errors"], metrics["test_images"]) == (3, 300)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("scripted")
def test_a_terminal_gets_a_bar(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With epoch, share, time passed and left, images/s, loss and accuracy; a second a step."""
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
    assert answer.out.endswith(f"{ACCURACY}best epoch 2 of 2, 7.0 s; run directory run\n")


def test_a_real_run_is_whole_and_evaluate_prints_the_same_score(
    trained: tuple[Path, str], lenet5: Callable[..., Answer]
) -> None:
    directory, printed = trained
    assert sorted(contents(directory)) == WHOLE_RUN
    score = next(line for line in printed.splitlines() if line.startswith("test accuracy"))
    answer = lenet5("evaluate", directory, "--threads", threads_in_use())
    assert answer == Answer(0, f"{score}\n", "")
    metrics = json.loads((directory / "metrics.json").read_text())
    assert f" ({metrics['test_errors']:,} wrong of 300; " in score


def test_another_process_prints_the_same_score_and_no_log_lines(
    trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What TensorFlow's C++ writes to descriptor 2 shows only in a process of its own."""
    directory, printed = trained
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    argv = [sys.executable, "-m", "lenet5", "evaluate", str(directory)]
    answer = run_apart([*argv, "--threads", str(threads_in_use())], tmp_path, capture_output=True)
    assert (answer.status, answer.err) == (0, "")
    assert answer.out in printed
    assert answer.out.startswith("test accuracy ")


def test_training_that_diverges_ends_with_status_1(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wild = replace(RECIPES["fast"], name="wild", learning_rate=1e30)
    monkeypatch.setitem(RECIPES, "wild", wild)
    answer = train("--recipe", "wild")
    assert answer.status == 1
    assert re.fullmatch(r"lenet5: training diverged: the loss is \S+ in epoch 1, .*\n", answer.err)
    assert contents(tmp_path / "run") == {}


# ---- an existing folder, a full disk


@pytest.mark.usefixtures("scripted")
def test_an_existing_run_is_overwritten_only_with_force(
    train: Callable[..., Answer], tmp_path: Path
) -> None:
    train("--seed", 1)
    (tmp_path / "run/notes.txt").write_text("mine")
    first = contents(tmp_path / "run")
    assert train("--seed", 2) == Answer(
        2, "", "lenet5: error: run: a run is there already; --force overwrites it\n"
    )
    assert contents(tmp_path / "run") == first
    assert train("--seed", 2, "--force").status == 0
    second = contents(tmp_path / "run")
    assert sorted(second) == sorted([*WHOLE_RUN, "notes.txt"])
    assert json.loads(second["recipe.json"])["seed"] == 2
    assert second["notes.txt"] == b"mine"


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_folder_that_is_no_run_is_never_touched(
    force: list[str], train: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "run/plots").mkdir(parents=True)
    (tmp_path / "run/plots/roc.png").write_text("mine")
    assert train(*force) == Answer(
        2, "", "lenet5: error: run: exists and is not a run, choose another --out\n"
    )
    assert contents(tmp_path) == {"run/plots/roc.png": b"mine"}


def test_an_output_folder_that_cannot_be_written_is_told_before_training(
    train: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    assert train("--out", "file/run") == Answer(
        2, "", "lenet5: error: file/run: cannot be written: Not a directory\n"
    )
    assert contents(tmp_path) == {"file": b"mine"}


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can grow beyond this size, as on a disk that fills up."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("scripted")
def test_a_disk_too_small_for_the_model_does_not_cost_the_score(
    train: Callable[..., Answer], tmp_path: Path
) -> None:
    with largest_file(50_000):
        answer = train()
    assert answer.status == 2
    assert answer.out.endswith(ACCURACY)
    reason = os.strerror(errno.EFBIG)
    assert answer.err == f"lenet5: error: run/model.keras: cannot be written: {reason}\n"
    assert sorted(contents(tmp_path / "run")) == [
        "environment.json",
        "history.json",
        "recipe.json",
    ]


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("failing", ["save_plots", "save_model"])
def test_a_disk_that_is_full_does_not_cost_an_older_run(
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
    assert answer.out.endswith(ACCURACY)
    assert answer.err == (
        f"lenet5: error: run/unfinished/{name}: cannot be written: No space left on device\n"
    )
    left = contents(tmp_path / "run")
    assert {name: left[name] for name in WHOLE_RUN} == first
    assert not [name for name in left if "partial" in name]


# ---- Ctrl-C


def test_ctrl_c_keeps_the_epochs_that_were_finished(
    train: Callable[..., Answer],
    lenet5: Callable[..., Answer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def interrupt(_: object, progress: Progress) -> None:
        if progress.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("lenet5.cli._ProgressBar.update", interrupt)
    monkeypatch.setattr("lenet5.cli._ProgressBar.write_epoch", lambda *_: None)
    answer = train("--epochs", 3)
    assert answer.status == 130
    assert answer.err == "lenet5: interrupted; what was finished is in run\n"
    assert sorted(contents(tmp_path / "run")) == INTERRUPTED_RUN
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert history["interrupted"] is True
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1]

    again = lenet5("evaluate", "run", "--threads", threads_in_use())
    assert again.status == 0
    assert again.out.startswith("test accuracy ")
    assert again.err == "lenet5: note: run was interrupted, its test score was never stored\n"


@pytest.mark.usefixtures("scripted")
def test_ctrl_c_before_the_first_epoch_keeps_no_model(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(recipe: Any, *_: object, **__: object) -> None:
        raise TrainingInterrupted(build_for(recipe, seed=0), History(interrupted=True))

    monkeypatch.setattr("lenet5.run.train", interrupted)
    assert train().status == 130
    assert sorted(contents(tmp_path / "run")) == [
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
        if isinstance(first, Path):  # with one plot written
            first.mkdir()
            (first / PLOT_FILES[0]).write_text("a plot")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"lenet5.run.{moment}", interrupt)
        answer = train("--seed", 2, "--force")
    assert answer.status == 130
    assert answer.err == "lenet5: interrupted; what was finished is in run/unfinished\n"
    left = contents(tmp_path / "run")
    assert {name: left[name] for name in WHOLE_RUN} == first
    assert sorted(contents(tmp_path / "run/unfinished")) == INTERRUPTED_RUN
    assert json.loads(left["unfinished/history.json"])["interrupted"] is True

    assert train("--seed", 3, "--force").status == 0
    third = contents(tmp_path / "run")
    assert sorted(third) == WHOLE_RUN
    assert json.loads(third["recipe.json"])["seed"] == 3


def test_ctrl_c_before_training_leaves_nothing(
    train: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lenet5.data.load_dataset", interrupt)
    assert train() == Answer(130, "", "lenet5: interrupted\n")
    assert contents(tmp_path) == {}


# ---- evaluate, predict, data


def test_evaluate_notes_another_score_than_was_stored(
    trained_copy: Path, lenet5: Callable[..., Answer]
) -> None:
    metrics = json.loads((trained_copy / "metrics.json").read_text())
    metrics["test_errors"] += 1
    (trained_copy / "metrics.json").write_text(json.dumps(metrics))
    answer = lenet5("evaluate", trained_copy, "--threads", threads_in_use())
    assert answer.status == 0
    assert answer.err == (
        f"lenet5: note: {trained_copy / 'metrics.json'} has another count of wrong images; "
        "TensorFlow or machine differ\n"
    )


def damage_recipe(run: Path) -> None:
    (run / "recipe.json").write_text('{"recipe": ')


def damage_model(run: Path) -> None:
    content = (run / "model.keras").read_bytes()
    (run / "model.keras").write_bytes(content[: len(content) // 2])


def remove_model(run: Path) -> None:
    (run / "model.keras").unlink()


def change_recipe(run: Path) -> None:
    content = json.loads((run / "recipe.json").read_text())
    content["recipe"]["l2"] = 5e-4
    (run / "recipe.json").write_text(json.dumps(content))


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (damage_recipe, "/recipe.json: damaged, not JSON"),
        (damage_model, "/model.keras: not a whole Keras model file"),
        (remove_model, ": has no model.keras; the run ended before it was written"),
        (change_recipe, "/model.keras: not the model that its recipe 'fast' describes"),
    ],
)
def test_a_damaged_run_is_answered_in_one_line(
    command: str,
    damage: Callable[[Path], None],
    complaint: str,
    trained_copy: Path,
    lenet5: Callable[..., Answer],
    digit: Path,
) -> None:
    damage(trained_copy)
    images = [digit] if command == "predict" else []
    answer = lenet5(command, trained_copy, *images, "--threads", threads_in_use())
    assert answer == Answer(2, "", f"lenet5: error: {trained_copy}{complaint}\n")


@pytest.fixture
def digit(digits: Dataset, tmp_path: Path) -> Path:
    """The first test image as a PNG file."""
    Image.fromarray(digits.test.images[0, :, :, 0]).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def test_predict_prints_digit_and_probabilities(
    trained: tuple[Path, str], digits: Dataset, lenet5: Callable[..., Answer], digit: Path
) -> None:
    """The same for a dark digit on a light ground."""
    dark = digit.with_name("dark.png")
    Image.fromarray(255 - digits.test.images[0, :, :, 0]).save(dark)
    model = load_model(trained[0] / "model.keras", RECIPES["fast"])
    (answers,) = model.predict(normalise(digits.test.images[:1]), verbose=0)
    listed = " ".join(f"{number}:{share:.3f}" for number, share in enumerate(answers))
    expected = f"{answers.argmax()} ({100 * answers.max():.1f} %)  {listed}\n"
    answer = lenet5("predict", trained[0], digit, dark, "--threads", threads_in_use())
    assert answer == Answer(0, f"{digit}: {expected}{dark}: {expected}", "")


def test_predict_reads_every_image_before_it_answers(
    trained: tuple[Path, str], lenet5: Callable[..., Answer], digit: Path
) -> None:
    text = digit.with_name("text.png")
    text.write_text("no image")
    assert lenet5("predict", trained[0], digit, text) == Answer(
        2, "", f"lenet5: error: {text}: not an image that Pillow can read\n"
    )


def test_a_file_name_that_is_no_text_is_printed_escaped(
    trained: tuple[Path, str], lenet5: Callable[..., Answer], digit: Path
) -> None:
    strange = digit.rename(digit.with_name(os.fsdecode(b"\xff.png")))
    answer = lenet5("predict", trained[0], strange, "--threads", threads_in_use())
    assert answer.status == 0
    assert answer.out.startswith(f"{digit.parent}/\\udcff.png: ")


def test_data_says_what_there_is_and_where(lenet5: Callable[..., Answer]) -> None:
    assert lenet5("data", "--dataset", "digits") == Answer(
        0, "digits: 1,297 training, 200 validation, 300 test images; built into scikit-learn\n", ""
    )


def test_data_that_cannot_be_had_is_told(
    lenet5: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, report: Callable[[str], None], **__: object) -> None:
        report("somewhere: damaged, prepared again")
        raise InputError("MNIST cannot be had")

    monkeypatch.setattr("lenet5.data.load_dataset", fail)
    assert lenet5("data") == Answer(
        2, "", "lenet5: somewhere: damaged, prepared again\nlenet5: error: MNIST cannot be had\n"
    )


# ---- standard streams


def test_a_reader_that_has_gone_gets_no_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "lenet5", "recipes"]
    answer = run_apart(argv, tmp_path, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert answer == Answer(141, "", "")


@pytest.mark.parametrize(
    ("redirection", "status", "err"),
    [
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 2, "lenet5: error: [Errno 28] No space left on device\n"),
    ],
)
def test_output_that_cannot_be_written_gives_no_traceback(
    redirection: str, status: int, err: str, tmp_path: Path
) -> None:
    argv = ["/bin/sh", "-c", f'"$0" -m lenet5 recipes {redirection}', sys.executable]
    assert run_apart(argv, tmp_path, capture_output=True) == Answer(status, "", err)
