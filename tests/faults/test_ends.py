"""Sessions that end early: the disk is full, a signal, a second session on the same ledger."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.verdicts.outcomes import Exit
from tests.faults.kills import Place, environment, place_of, records
from tests.faults.session import ROOT

BLOCKS = 24  # of an unkilled session of speed
# Python ignores SIGINT if its parent did, as a shell does for background processes.
_WITH_CTRL_C = (
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "sys.argv = sys.argv[1:]; runpy.run_module('tests.faults.session', run_name='__main__')"
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return place_of("speed", tmp_path)


def started(place: Place, ledger: Path, **options: Any) -> subprocess.Popen[str]:
    """Starts a session; its output is a pipe."""
    _, _, _, *arguments = place.command(ledger)
    return subprocess.Popen(
        [sys.executable, "-c", _WITH_CTRL_C, "session", *arguments],
        cwd=ROOT,
        # A bytecode file that does not fit would be cut, and then break later imports.
        env={**environment(place), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


@pytest.fixture
def begin(place: Place) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts sessions, and ends those that are left."""
    all_of_them: list[subprocess.Popen[str]] = []

    def start(ledger: Path, **options: Any) -> subprocess.Popen[str]:
        all_of_them.append(started(place, ledger, **options))
        return all_of_them[-1]

    yield start
    for process in all_of_them:
        process.kill()
        process.communicate()


def limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_gives_one_line_and_a_ledger_that_continues(
    begin: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """No file may have more than 18,000 bytes: neither the ledger nor the report is complete."""
    ledger = tmp_path / "r.jsonl"
    full = begin(ledger, preexec_fn=lambda: limit_files(18_000))
    said = full.communicate(timeout=600)[0]
    assert full.returncode == Exit.USAGE, said
    assert "Traceback" not in said
    told = [line for line in said.splitlines() if f"{ledger}: cannot be written" in line]
    assert told, said
    assert told[0] == f"{ledger}: cannot be written: File too large"
    assert "ERROR: a report cannot be written: File too large" in said
    kept = records(ledger)
    assert 0 < len(kept) < BLOCKS
    again = begin(ledger)
    assert again.communicate(timeout=600)[0]
    assert again.returncode == Exit.INCONCLUSIVE
    assert kept <= records(ledger)
    assert (len(records(ledger)), max(records(ledger).values())) == (BLOCKS, 1)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after", range(0, 20, 2))
def test_a_signal_keeps_the_records_and_the_session_continues(
    begin: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    number: signal.Signals,
    after: int,
) -> None:
    ledger = tmp_path / "r.jsonl"
    first = begin(ledger)
    while first.poll() is None and not (ledger.exists() and len(records(ledger)) >= after):
        time.sleep(0.01)
    first.send_signal(number)
    said = first.communicate(timeout=600)[0]
    assert first.returncode == Exit.INTERRUPTED, said
    assert "Traceback" not in said
    kept = records(ledger)
    assert len(kept) >= after
    begin(ledger).communicate(timeout=600)
    assert kept <= records(ledger)
    assert (len(records(ledger)), max(records(ledger).values())) == (BLOCKS, 1)
    assert list((tmp_path / "temporary").glob("lenet5*")) == []


@pytest.mark.faults
def test_a_second_session_on_the_same_ledger_is_refused(
    begin: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    ledger = tmp_path / "r.jsonl"
    first = begin(ledger)
    while not ledger.exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = begin(ledger)
    said = second.communicate(timeout=600)[0]
    assert second.returncode == Exit.USAGE
    assert f"INCONCLUSIVE: {ledger}: another process appends to it: wait until it ends" in said
    assert first.communicate(timeout=600)[0]
    assert (len(records(ledger)), max(records(ledger).values())) == (BLOCKS, 1)
