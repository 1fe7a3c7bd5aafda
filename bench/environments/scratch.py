"""Private temporary folders; each new one removes those that killed processes have left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "lenet5-bench."


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
