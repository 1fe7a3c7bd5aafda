"""Files of a built environment in the cache, and the mark of its users."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import weakref
from collections.abc import Iterator
from pathlib import Path

from lenet5.errors import InputError
from lenet5.run_directory import read_json

COMPLETE = "complete.json"
PYTHON = "bin/python"
_USED = "used"  # its time is that of the last use; users lock it together, a removal alone
_NAME = re.compile(r"[0-9a-f]+")


class Use:
    """Marks an environment as in use; ends with this object, and with the process."""

    def __init__(self, folder: Path) -> None:
        """Notes the time, and waits for a removal of the environment.

        Nothing happens where the cache cannot be written: nobody removes anything from it.

        Args:
            folder: folder of the environment, with or without its files.
        """
        with contextlib.suppress(OSError):
            descriptor = os.open(folder / _USED, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            weakref.finalize(self, os.close, descriptor)
            os.utime(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)


class InUseError(Exception):
    """An environment has users."""


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Keeps users out of an environment.

    Yields:
        Whether that is sure: no use was ever marked, or a file system without locks, is not.

    Raises:
        InUseError: another process uses it, or this one.
    """
    descriptor = None
    try:
        try:
            # Not created here: a new file would look like a use.
            descriptor = os.open(folder / _USED, os.O_RDWR | os.O_NOFOLLOW)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError("a process uses it") from None
        except OSError:
            yield False
        else:
            yield True
    finally:
        if descriptor is not None:
            os.close(descriptor)


def last_mark(folder: Path) -> float:
    """Returns the time of the last use or of the build, in seconds since 1970; 0 without both."""
    times = [0.0]
    for name in (_USED, COMPLETE):
        with contextlib.suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times)


def complete(folder: Path) -> tuple[Path, tuple[str, ...]] | None:
    """Returns the interpreter and the lock of a complete environment; None without one."""
    with contextlib.suppress(InputError, KeyError, TypeError):
        about = read_json(folder / COMPLETE)
        python = folder / checked_name(about["home"]) / PYTHON
        if python.exists():
            return python, tuple(about["lock"])
    return None


def checked_name(stored: str) -> str:
    """Returns a stored folder name, which leads nowhere else.

    Raises:
        TypeError: it is a path, or no text.
    """
    if not _NAME.fullmatch(stored):
        raise TypeError
    return stored


def environments_in(cache: Path) -> list[Path]:
    """Returns the folders of the environments, by name; links are left alone."""
    with contextlib.suppress(OSError), os.scandir(cache / "environments") as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        )
    return []


def bytes_in(folder: Path, *, without: str = "") -> int:
    """Returns the bytes on the disk of a folder's files, links not followed.

    Args:
        folder: the folder.
        without: name of subfolders that do not count.
    """
    total = 0
    for place, folders, files in os.walk(folder):
        if without in folders:
            folders.remove(without)
        for name in (*files, *folders):
            with contextlib.suppress(OSError):  # it has gone
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total
