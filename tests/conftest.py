"""Fixtures for tests of commands.

This module must not import TensorFlow: the root conftest.py starts it later.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from lenet5.cli import main
from lenet5.data import Dataset
from lenet5.runtime import threads_in_use
from tests.commands import Answer


@pytest.fixture
def lenet5(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Answer]:
    """Runs a command in this process, in a temporary folder without the user's data."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: object, **environment: str) -> Answer:
        environment.setdefault("TFDS_DATA_DIR", str(tmp_path / "no-data"))
        status = main([str(argument) for argument in argv], environment)
        return Answer(status, *capsys.readouterr())

    return run


@pytest.fixture
def train(lenet5: Callable[..., Answer]) -> Callable[..., Answer]:
    """Runs `lenet5 train` on the digits; writes to the folder `run`."""

    def run(*argv: object) -> Answer:
        digits = ("--dataset", "digits", "--threads", threads_in_use(), "--out", "run")
        return lenet5("train", *digits, *argv)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run directory from real training, and the command's output."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    argv = ["train", "--dataset", "digits", "--epochs", "2", "--out", str(directory)]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*argv, "--threads", str(threads_in_use())], {}) == 0
    return directory, out.getvalue()


@pytest.fixture
def trained_copy(trained: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the trained run for tests that damage it."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in trained[0].glob("*.*"):
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


@pytest.fixture
def scripted(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces training, scores and plots by fast stand-ins with known values."""
    from tests import scripted_training

    scripted_training.install(monkeypatch, digits.test.labels)
