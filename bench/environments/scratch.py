"""Private folders: temporary ones, and those whose programs run here.

Each new temporary folder removes those that killed processes have left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.environments.commands import EnvironmentProblem

_PREFIX = "lenet5-bench."
_ELSEWHERE = "give another cache folder with XDG_CACHE_HOME"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Creates a folder for this process, and removes it at the end.

    A lock on the folder itself marks it as in use; the lock ends with the process.

    Raises:
        OSError: the folder cannot be created.
    """
    parent = Path(tempfile.gettempdir())
    for path in _own_folders(parent):
        with contextlib.suppress(OSError), _locked(path):
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            try:
                stack.enter_context(_locked(folder))
            except (BlockingIOError, FileNotFoundError):  # another process takes it for a remnant
                continue
            except OSError:  # a file system without locks: no process removes it
                pass
            break
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _own_folders(parent: Path) -> list[Path]:
    """Returns this user's folders by name; links and other users' folders are left alone."""
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == os.getuid():
                        found.append(Path(entry.path))
    return found


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks a folder.

    Raises:
        BlockingIOError: another process has locked it.
        FileNotFoundError: another process has removed it.
        OSError: the file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise FileNotFoundError(folder)
        yield
    finally:
        os.close(descriptor)


def make_private(folder: Path) -> None:
    """Creates a folder for its user alone, or checks an existing one and closes it to others.

    Raises:
        EnvironmentProblem: another user owns the folder, or could write into it or replace it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid not in (0, os.geteuid()):
        raise EnvironmentProblem(f"{folder} belongs to another user: {_ELSEWHERE}")
    if found.st_mode & _OTHERS_WRITE:
        raise EnvironmentProblem(
            f"others can write programs into {folder}: remove it, or chmod go-w {folder}"
        )
    if found.st_uid == os.geteuid() and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        folder.chmod(0o700)
    for parent in folder.resolve().parents:
        _check_parent(parent)


def _check_parent(parent: Path) -> None:
    """Rejects a folder in which anybody could put another folder in place of the private one."""
    found = parent.stat()
    if not found.st_mode & stat.S_IWOTH:
        return
    if not found.st_mode & stat.S_ISVTX or found.st_uid not in (0, os.geteuid()):
        raise EnvironmentProblem(f"others can replace folders in {parent}: {_ELSEWHERE}")
