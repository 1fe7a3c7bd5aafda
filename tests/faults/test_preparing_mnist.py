"""The real MNIST, prepared by killed, interrupted, starved and concurrent processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lenet5 import data
from tests.commands import ROOT, Answer
from tests.preparing import CACHE, LOCK, Small, load, names

pytestmark = pytest.mark.faults

KILLS, INTERRUPTS, MUTATIONS, SIZES = 20, 6, 500, 8
PREPARED = [CACHE, LOCK]


@pytest.fixture
def mnist_dir(pytestconfig: pytest.Config) -> Path:
    """The folder with MNIST's four files."""
    folder: Path | None = pytestconfig.option.mnist_dir
    assert folder is not None, "these trials need LENET5_MNIST_DIR or --mnist-dir"
    return folder


# A job in background ignores SIGINT, and so would its children.
_COMMAND = """
import resource, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1))
sys.argv = ["lenet5", "data"]
from lenet5.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def start(mnist_dir: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `lenet5 data`, with a limit of the size of its files in bytes; -1: none."""
    (tmp_path / "tmp").mkdir()

    def run(data_dir: Path, largest: int = -1) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _COMMAND, str(largest)],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONDONTWRITEBYTECODE": "1",  # Python would cut a bytecode file at the limit
                "TFDS_DATA_DIR": str(data_dir),
                "LENET5_MNIST_DIR": str(mnist_dir),
                "LENET5_CACHE_DIR": "",
                "TMPDIR": str(tmp_path / "tmp"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def answer_of(process: subprocess.Popen[str]) -> Answer:
    out, err = process.communicate(timeout=600)
    return Answer(process.returncode, out, err)


def check_prepared(answer: Answer, data_dir: Path, tmp_path: Path) -> None:
    """The arrays are MNIST's, and nothing else is left."""
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.startswith("mnist: 55,000 training, 5,000 validation, 10,000 test images;")
    assert data._read_cache(data.mnist_cache(data_dir)) is not None
    check_rest(data_dir, PREPARED)
    assert names(tmp_path / "tmp") in ([], ["__pycache__"])


def check_rest(data_dir: Path, rest: list[str]) -> None:
    assert names(data_dir / "lenet5") == rest
    assert set(names(data_dir)) <= {"lenet5", "mnist"}
    if (data_dir / "mnist").exists():
        assert set(names(data_dir / "mnist")) <= {"3.0.1"}


def seconds_of_a_preparation(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> float:
    began = time.monotonic()
    assert answer_of(start(tmp_path / "timed")).status == 0
    return time.monotonic() - began


def test_a_killed_preparation_leaves_nothing_to_the_next_process(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """A third process that waits meanwhile goes on."""
    whole = seconds_of_a_preparation(start, tmp_path)
    moments = np.random.RandomState(0)
    for attempt in range(KILLS):
        folder = tmp_path / str(attempt)
        killed = start(folder)
        time.sleep(moments.uniform(0, whole))
        waiting = start(folder) if attempt % 2 else None
        killed.kill()
        killed.communicate()
        if waiting is not None:
            told = answer_of(waiting)
            wait = f"lenet5: {data.mnist_cache(folder)}: another process prepares it, waiting\n"
            assert (told.status, told.err.replace(wait, "")) == (0, "")
        check_prepared(answer_of(start(folder)), folder, tmp_path)
        shutil.rmtree(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_preparation_leaves_nothing(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, number: signal.Signals
) -> None:
    whole = seconds_of_a_preparation(start, tmp_path)
    moments = np.random.RandomState(0)
    for attempt in range(INTERRUPTS):
        folder = tmp_path / str(attempt)
        process = start(folder)
        while not (folder / "lenet5" / LOCK).exists():  # the handlers are installed before
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.8 * whole))
        process.send_signal(number)
        answer = answer_of(process)
        if answer.status == 0:  # it was faster
            check_prepared(answer, folder, tmp_path)
        else:
            assert answer == Answer(130, "", "lenet5: interrupted\n")
            check_rest(folder, [LOCK])
        shutil.rmtree(folder)


def test_eight_processes_prepare_once(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "shared"
    answers = [answer_of(process) for process in [start(folder) for _ in range(8)]]
    assert {answer.status for answer in answers} == {0}
    assert len({answer.out for answer in answers}) == 1
    waited = f"lenet5: {data.mnist_cache(folder)}: another process prepares it, waiting\n"
    assert sorted(answer.err for answer in answers) == ["", *[waited] * 7]
    check_rest(folder, PREPARED)


def test_a_full_disk_gives_one_line_and_leaves_nothing(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """A limit of the size of files stands for the disk; the largest file has 47,040,016 bytes."""
    sizes = np.random.RandomState(0)
    for attempt in range(SIZES):
        folder = tmp_path / str(attempt)
        answer = answer_of(start(folder, sizes.randint(100, 47_040_000)))
        assert (answer.status, answer.out) == (2, "")
        assert len(answer.err.splitlines()) == 1
        assert answer.err.endswith("; LENET5_CACHE_DIR may name another folder\n")
        check_rest(folder, [LOCK])


def test_no_mutation_of_the_cache_gives_wrong_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lengths, bits, bytes, missing files and files of other parts, drawn with a fixed seed."""
    small = Small()
    small.install(monkeypatch)
    draw = np.random.RandomState(0)
    for attempt in range(MUTATIONS):
        load(tmp_path)
        files = sorted(data.mnist_cache(tmp_path).iterdir())
        _mutate(draw, *(files[index] for index in draw.randint(len(files), size=2)))
        lines: list[str] = []
        dataset = load(tmp_path, report=lines.append)
        assert data.sha256_of(dataset) == small.sha256, attempt
        assert lines in ([], [f"{data.mnist_cache(tmp_path)}: damaged, prepared again"])
        assert names(tmp_path / "lenet5") == PREPARED


def _mutate(draw: np.random.RandomState, file: Path, other: Path) -> None:
    content = bytearray(file.read_bytes())
    # The header has 128 bytes: half of all places are drawn there.
    place = draw.randint((128, len(content))[draw.randint(2)])
    kind = draw.randint(8)
    if kind == 0:
        file.write_bytes(content[:place])
    elif kind == 1:
        file.write_bytes(content + bytes(int(draw.randint(1, 100))))
    elif kind == 2:
        file.unlink()
        file.symlink_to("nowhere")
    elif kind == 3:
        file.write_bytes(other.read_bytes())
    elif kind == 4:
        np.save(file, np.load(file)[::-1])
    else:
        content[place] ^= draw.randint(1, 256) if kind == 7 else 1 << draw.randint(8)
        file.write_bytes(content)
