"""Folders whose programs run here belong to their user alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bench.environments.commands import EnvironmentProblem

_ELSEWHERE = "give another cache folder with XDG_CACHE_HOME"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


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
