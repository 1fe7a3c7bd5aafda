"""Answers and output of a worker are data: of limited size and depth, printable, and never lost."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.measure import processes
from bench.measure.processes import Interpreter, Worker, WorkerError

CHANNEL = "import socket, sys; channel = socket.socket(fileno=int(sys.argv[3]))\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "private"
    (made / "home").mkdir(parents=True)
    return made


def answering(folder: Path, code: str) -> Worker:
    """A worker whose process runs this code in place of `bench.worker.main`."""
    script = folder / "script.py"
    script.write_text(CHANNEL + code, encoding="utf-8")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" "{script}" "$@"\n')
    python.chmod(0o755)
    return Worker(Interpreter(python, {}), folder)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("'[' * 100_000", "sent an invalid answer: not JSON"),
        ("'{\"a\":' * 5_000 + '1' + '}' * 5_000", "sent an invalid answer: not JSON"),
        ("'[1]'", "sent an invalid answer: a JSON object is expected, not list"),
        ("'__import__(\"os\")'", "sent an invalid answer: not JSON"),
        ('\'{"error": {"a": 1}}\'', "sent an invalid answer: its error is not a text"),
        ('\'{"error": "\\\\u001b[2J"}\'', r"\x1b[2J"),
    ],
)
def test_an_invalid_answer_is_an_error_of_the_worker(
    answer: str, reason: str, folder: Path
) -> None:
    with (
        answering(
            folder, f"channel.sendall(({answer}).encode() + b'\\n'); channel.recv(1)"
        ) as worker,
        pytest.raises(WorkerError) as caught,
    ):
        worker.receive(60)
    assert caught.value.reason == reason


def test_an_endless_answer_ends_its_worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LONGEST_ANSWER", 2**20)
    with answering(folder, "while True: channel.sendall(bytes(2**16))") as worker:
        with pytest.raises(WorkerError, match=r"more than 1 MiB without an end of line"):
            worker.receive(60)
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid, 0)


def test_only_the_end_of_the_output_is_read_and_it_is_printable(folder: Path) -> None:
    code = "print('x' * 10**6); print('\\x1b[2J\\x07last', flush=True)\n"
    with answering(folder, code + "channel.sendall(b'{}\\n'); channel.recv(1)") as worker:
        worker.receive(60)
        output = worker.output()
    assert output.endswith("x\n\\x1b[2J\\x07last")
    assert len(output) < 70_000


def test_names_in_an_answer_are_printable(folder: Path) -> None:
    code = 'channel.sendall(b\'{"\\\\u001b": ["\\\\ud800"]}\\n\'); channel.recv(1)'
    with answering(folder, code) as worker:
        assert worker.receive(60) == {r"\x1b": [r"\ud800"]}
