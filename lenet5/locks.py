"""Locks between processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path, report: Callable[[str], None], waiting: str) -> Iterator[None]:
    """Holds a lock; it ends with the process.

    Args:
        path: lock file, created if it is missing.
        report: receives the line `waiting` if another process holds the lock.
        waiting: reason of the wait, such as `another process prepares it`.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
