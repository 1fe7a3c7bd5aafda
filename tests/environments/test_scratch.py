"""Private folders: removed at the end, or by the next process if theirs was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.environments.scratch import scratch_folder

ROOT = Path(__file__).parents[2]
HOLD = """
import signal
from bench.environments.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "images.npy").write_bytes(b"x")
    print(folder, flush=True)
    signal.pause()
"""


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the parent of all temporary folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def holder(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """Starts a process that holds a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_removed_at_the_end(parent: Path) -> None:
    with scratch_folder() as folder:
        (folder / "file").touch()
        assert folder.parent == parent
    assert list(parent.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_by_the_next(parent: Path) -> None:
    process, left = holder(parent)
    with scratch_folder(), scratch_folder():
        assert (left / "images.npy").exists()  # its process lives
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert (left / "images.npy").exists()
    with scratch_folder() as folder:
        assert list(parent.iterdir()) == [folder]


def test_other_folders_and_links_are_left_alone(parent: Path) -> None:
    kept = parent / "results"
    kept.mkdir()
    (kept / "file").touch()
    (parent / "lenet5-bench.link").symlink_to(kept)
    (parent / "lenet5-bench.file").touch()
    before = sorted(parent.rglob("*"))
    with scratch_folder():
        pass
    assert sorted(parent.rglob("*")) == before


def test_folders_of_other_users_are_left_alone(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (parent / "lenet5-bench.theirs").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with scratch_folder():
        pass
    assert (parent / "lenet5-bench.theirs").is_dir()


def test_many_processes_create_folders_at_once(parent: Path) -> None:
    """None removes a folder of another."""
    code = (
        "from bench.environments.scratch import scratch_folder\n"
        "for _ in range(50):\n"
        "    with scratch_folder() as folder:\n"
        "        (folder / 'a').write_text('b')\n"
        "        assert (folder / 'a').read_text() == 'b'\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "TMPDIR": str(parent)}
        )
        for _ in range(4)
    ]
    assert [process.wait(timeout=60) for process in started] == [0] * 4
    assert list(parent.iterdir()) == []
