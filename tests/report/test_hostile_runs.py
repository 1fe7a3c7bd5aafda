"""A gated run's files are data of limited size and depth; each bad one is named in the report."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.report import session
from bench.report.session import PLOTS, head_html
from tests.report.test_session import gated, plots, run_directory  # noqa: F401 - fixtures


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def large(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(session._LARGEST_FILE + 1)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", ["metrics.json", "environment.json", "plots/roc.png"])
@pytest.mark.parametrize("spoil", [deep, pipe, large, device])
def test_a_bad_file_is_named_and_the_others_are_shown(
    name: str,
    spoil: Callable[[Path], None],
    run_directory: Path,  # noqa: F811
) -> None:
    spoil(run_directory / name)
    head = head_html({"tensorflow": "2.21.0"}, [gated(run_directory)], [])
    assert f"{run_directory / name} is damaged" in head
    assert head.count("<img") == len(PLOTS) - name.endswith(".png")
    assert "Recipe</th>" in head
