"""Command `python -m bench environments`: table, removal and exit status."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from bench import __main__ as command
from bench.environments.cache.entries import Use
from lenet5.run_directory import write_json

DAY_SECONDS = 86_400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a cache with three environments, used 40 days, 10 days and an hour ago."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "lenet5-bench"
    for key, request, days in (
        ("aa11", "tensorflow[and-cuda]==2.21.0", 40.5),
        ("aa22", "tensorflow-cpu==2.20.0 TF_A=1", 10.5),
        ("bb33", "tf-nightly", 1 / 24),
    ):
        folder = cache / "environments" / key
        python = folder / "f0" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_bytes(bytes(2**20))
        write_json(folder / "complete.json", {"request": request, "home": "f0", "lock": []})
        (folder / "used").touch()
        moment = time.time() - days * DAY_SECONDS
        for name in ("used", "complete.json"):
            os.utime(folder / name, (moment, moment))
    return cache


def keys(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "environments").iterdir() if path.is_dir())


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    status = command.main(["environments", *arguments])
    return status, capsys.readouterr().out.splitlines()


def test_without_an_option_nothing_is_removed(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = run(capsys=capsys)
    assert status == 0
    assert re.fullmatch(rf"{cache}: 3 environments, 3\.\d MB", lines[0])
    cells = [re.split(" {2,}", line) for line in lines[1:]]
    assert cells[0] == ["key", "request", "size", "last use"]
    assert [[row[0], row[1], row[3]] for row in cells[1:]] == [
        ["aa11", "tensorflow[and-cuda]==2.21.0", "40 days ago"],
        ["aa22", "tensorflow-cpu==2.20.0 TF_A=1", "10 days ago"],
        ["bb33", "tf-nightly", "today"],
    ]
    assert keys(cache) == ["aa11", "aa22", "bb33"]


def test_old_environments_are_removed_and_used_ones_kept(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use = Use(cache / "environments" / "aa11")
    os.utime(cache / "environments" / "aa11" / "used", (0, 0))
    status, lines = run("--remove-older-than", "7", capsys=capsys)
    assert status == 0
    assert lines[-3] == "aa11: kept: a process uses it"
    assert re.fullmatch(r"aa22: removed, 1\.\d MB freed", lines[-2])
    assert re.fullmatch(r"1 of 2 removed, 1\.\d MB \([\d,]+ bytes\) freed", lines[-1])
    assert keys(cache) == ["aa11", "bb33"]
    del use


def test_named_environments_are_removed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One in use is kept, and the exit status tells it."""
    use = Use(cache / "environments" / "bb33")
    status, lines = run("--remove", "bb", "aa1", capsys=capsys)
    assert status == 1
    assert "bb33: kept: a process uses it" in lines
    assert keys(cache) == ["aa22", "bb33"]
    del use
    assert run("--remove", "bb33", capsys=capsys)[0] == 0
    assert keys(cache) == ["aa22"]


def test_every_repeated_option_counts(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--remove", "aa11", "--remove", "bb33", capsys=capsys)[0] == 0
    assert keys(cache) == ["aa22"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--remove", "aa"], "--remove aa: begins 2 keys: give more of it"),
        (["--remove", "../x"], "--remove ../x: no such environment"),
        (["--remove-older-than", "-3"], "--remove-older-than is -3, expected 0 or more days"),
    ],
)
def test_a_wrong_choice_removes_nothing(
    arguments: list[str], told: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["environments", *arguments]) == 4
    assert capsys.readouterr().err == f"bench: error: {told}\n"
    assert len(keys(cache)) == 3


def test_an_empty_cache_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    status, lines = run("--remove-older-than", "0", capsys=capsys)
    assert (status, lines) == (0, [f"{tmp_path}/lenet5-bench: 0 environments, 0.0 MB"])
    assert list(tmp_path.iterdir()) == []
