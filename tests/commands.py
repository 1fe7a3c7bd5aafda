"""Helpers for tests of commands: answers, folders, subprocesses and a full disk."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lenet5.history import Progress
from lenet5.plots import PLOT_FILES

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Answer:
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


def contents(directory: Path) -> dict[str, bytes]:
    """Returns the content of every file below a folder."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def of_checkout() -> dict[str, str]:
    """Returns variables for a subprocess that imports from this checkout.

    With `PYTHONSAFEPATH`, which users may set, the current folder is not on the import path.
    """
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}


def run_apart(argv: list[str], folder: Path, **options: Any) -> Answer:
    """Runs a program that uses `lenet5` in a subprocess."""
    # Python must buffer its output, unlike in some containers: most write errors occur at exit.
    environment = {**of_checkout(), "PYTHONUNBUFFERED": ""}
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
INTERRUPTED_RUN = [
    "checkpoint.npz",
    "environment.json",
    "history.json",
    "model.keras",
    "recipe.json",
]


def interrupt_in_epoch(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Presses Ctrl-C in an epoch of `lenet5 train`, which prints no epochs then."""

    def interrupt(_: object, progress: Progress) -> None:
        if progress.epoch == number:
            raise KeyboardInterrupt

    monkeypatch.setattr("lenet5.terminal.ProgressBar.update", interrupt)
    monkeypatch.setattr("lenet5.terminal.ProgressBar.write_epoch", lambda *_: None)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limits the size of files, like a disk that becomes full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python would cut a bytecode file at the limit, and fail to import it later.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sys.dont_write_bytecode = before
