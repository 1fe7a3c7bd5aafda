"""The command `lenet5`: tables, invalid arguments, standard streams."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lenet5 import __version__
from lenet5.cli import main
from lenet5.folders import default_cache_dir, default_data_dir, default_mnist_dir
from lenet5.runtime import threads_in_use
from tests.commands import (
    Answer,
    run_apart,
)


def test_recipes_are_printed_as_a_table(lenet5: Callable[..., Answer]) -> None:
    table = """\
name              original      fast      best
batch_size              32       128        32
epochs                  20         9        20
learning_rate        0.001     0.005     0.002
schedule          constant    linear    cosine
patience                 3      None      None
min_accuracy          0.97      0.98      0.99
max_accuracy          0.99     0.992     0.998
warmup_fraction        0.0       0.1       0.1
l2                   0.001     0.001     1e-05
dropout                0.5       0.5       0.0
label_smoothing        0.0       0.0      0.03
average_decay          0.0       0.0     0.999
rotation_degrees       0.0       0.0       8.0
shear_degrees          0.0       0.0       5.0
scaling                0.0       0.0      0.12
shift_pixels           0.0       0.0       1.0
adam_beta_1            0.9       0.9       0.9
adam_beta_2          0.999     0.999      0.99
adam_epsilon         1e-07     1e-07     1e-07
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
    "missing files: train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
    "t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz; the folder named by LENET5_MNIST_DIR "
    "or --mnist-dir must hold MNIST's four original files, packed (.gz) or unpacked"
)
WRONG_ARGUMENTS = [
    ([], "the following arguments are required: COMMAND (see lenet5 --help)"),
    (["train", "--recipe", "slow"], "unknown recipe 'slow': choose one of original, fast, best"),
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
    (["train", "--out", ""], "argument --out: the name is empty (see lenet5 train --help)"),
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
def test_an_invalid_argument_gives_a_one_line_error(
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
        (
            ["train", "--engine", "products"],
            "argument --engine: invalid choice: 'products' (choose from ",
        ),
    ],
)
def test_an_invalid_choice_gives_a_one_line_error(
    argv: list[str], beginning: str, lenet5: Callable[..., Answer]
) -> None:
    """The format of argparse's list of choices differs between Python versions."""
    answer = lenet5(*argv)
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith(f"lenet5: error: {beginning}")
    assert answer.err.count("\n") == 1


def test_invalid_arguments_are_reported_before_heavy_imports(
    trained: tuple[Path, str], trained_copy: Path, tmp_path: Path
) -> None:
    """This includes checks of files and settings: a run, an image, Keras's variables."""
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


def test_invalid_keras_settings_give_a_one_line_error(
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


def test_a_different_number_of_threads_is_refused(
    trained: tuple[Path, str], lenet5: Callable[..., Answer]
) -> None:
    running = threads_in_use()
    assert lenet5("evaluate", trained[0], "--threads", running + 1) == Answer(
        2,
        "",
        f"lenet5: error: TensorFlow runs with {running} threads already, "
        f"{running + 1} were requested\n",
    )


def test_data_folders_come_from_environment_variables() -> None:
    home = Path.home()
    assert default_data_dir({}) == home / "tensorflow_datasets"
    assert default_data_dir({"TFDS_DATA_DIR": "~/sets"}) == home / "sets"
    assert default_mnist_dir({}) is None
    assert default_mnist_dir({"LENET5_MNIST_DIR": ""}) is None
    assert default_mnist_dir({"LENET5_MNIST_DIR": "/mnist"}) == Path("/mnist")
    assert default_cache_dir({"LENET5_CACHE_DIR": ""}) is None
    assert default_cache_dir({"LENET5_CACHE_DIR": "~/cache"}) == home / "cache"


@pytest.mark.parametrize(
    "address",
    [
        *("gs://bucket/sets", "GS://bucket", "gs:/bucket", " gs://bucket", "s3://bucket"),
        *("hdfs://host/sets", "file:///sets", "https://x.invalid/sets"),
    ],
)
@pytest.mark.parametrize("variable", ["TFDS_DATA_DIR", "LENET5_MNIST_DIR", "LENET5_CACHE_DIR"])
def test_a_folder_that_is_an_address_is_refused(
    variable: str, address: str, lenet5: Callable[..., Answer]
) -> None:
    told = f"lenet5: error: {variable} is {address}: name a local folder\n"
    assert lenet5("data", **{variable: address}) == Answer(2, "", told)


def test_an_mnist_folder_that_is_an_address_is_refused(lenet5: Callable[..., Answer]) -> None:
    assert lenet5("data", "--mnist-dir", "gs://bucket") == Answer(
        2,
        "",
        "lenet5: error: argument --mnist-dir: gs://bucket is an address: name a local folder "
        "(see lenet5 data --help)\n",
    )


@pytest.mark.parametrize("name", ["a:b/c", "c:/sets", "./gs:/bucket"])
def test_a_folder_with_a_colon_is_no_address(name: str) -> None:
    assert default_data_dir({"TFDS_DATA_DIR": name}) == Path(name)


def test_an_unknown_home_folder_gives_an_error(lenet5: Callable[..., Answer]) -> None:
    answer = lenet5("recipes", LENET5_MNIST_DIR="~nobody-of-that-name/mnist")
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith("lenet5: error: ~nobody-of-that-name/mnist: ")


def test_a_closed_pipe_gives_no_traceback(tmp_path: Path) -> None:
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
def test_unwritable_output_gives_no_traceback(
    redirection: str, status: int, err: str, tmp_path: Path
) -> None:
    argv = ["/bin/sh", "-c", f'"$0" -m lenet5 recipes {redirection}', sys.executable]
    assert run_apart(argv, tmp_path, capture_output=True) == Answer(status, "", err)
