"""Command `python -m bench history`: page, news, gate and errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import __main__ as command
from bench.records import results
from tests import histories
from tests.histories import noise
from tests.synthetic import LOOP

NAME = f"{LOOP} of tf-nightly on a processor, 2 cores"
WORSE = [value + 0.05 * (place >= 20) for place, value in enumerate(noise(30))]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder with 30 runs; the last ten are slower. The current folder is empty."""
    folder = tmp_path / "archive"
    for stored in histories.nightlies(WORSE):
        path = folder / stored.path
        path.parent.mkdir(parents=True)
        results.write(path, stored.results)
    (folder / "foreign.jsonl").write_text("{}\n")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return folder


def test_the_page_is_written_and_the_news_are_printed(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["history", str(archive)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 new level for the worse in 1 current series of 30 runs"
    row = [NAME, "+5.0 %", "+4.9 to +5.2 %", "2026-01-20 to 2026-01-21", "1.052", "worse"]
    assert row in [re.split(" {2,}", line) for line in lines]
    assert "left out: foreign.jsonl: is damaged or not a ledger" in lines
    assert lines[-1] == "history.html"
    assert NAME in Path("history.html").read_text(encoding="utf-8")


def test_the_gate_fails_until_the_step_is_accepted(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["history", str(archive), "--gate"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"gate: worse: {NAME}"
    Path("bench-accepted.toml").write_text(
        f'[[step]]\nseries = "{NAME}"\ndate = 2026-01-21\nreason = "known"\n'
    )
    assert command.main(["history", str(archive), "--gate"]) == 0


def test_the_gate_says_if_there_are_too_few_runs(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["history", str(archive / "2026/01/01"), "--gate"]) == 6
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"gate: too few runs, or no newest value: {NAME}"
    assert command.main(["history", str(archive / "2026/01/01")]) == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["history"], "name the folder"),
        (["history", "absent"], "absent: is not a folder"),
        (["history", "{archive}", "--accepted", "absent.toml"], "absent.toml: cannot be read"),
        (["history", "{archive}", "--out", "."], "is a folder, name a file"),
        (["history", "--calibrate", "absent.jsonl"], "absent.jsonl: cannot be read"),
        (["history", "{archive}", "--calibrate", "x.jsonl"], "--calibrate stands alone"),
    ],
)
def test_bad_input_is_one_line_and_exits_with_4(
    archive: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    given = [argument.replace("{archive}", str(archive)) for argument in arguments]
    assert command.main(given) == 4
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1


def test_unknown_accepted_steps_and_unreadable_archives_exit_with_4(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("known.toml").write_text('[[step]]\nseries = "x"\ndate = 2026-01-21\nreason = "y"\n')
    assert command.main(["history", str(archive), "--accepted", "known.toml"]) == 4
    assert "known.toml: no series is named 'x'" in capsys.readouterr().err
    only = archive / "only"
    only.mkdir()
    (archive / "foreign.jsonl").rename(only / "foreign.jsonl")
    assert command.main(["history", str(only)]) == 4
    assert "no run can be read; foreign.jsonl: is damaged" in capsys.readouterr().err
