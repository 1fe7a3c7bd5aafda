"""Commands that build environments: uv and Python."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from lenet5.printable import printable, without_credentials

# Variables that could change the resolved packages; variables for indexes and caches are kept.
_NOT_FOR_UV = (
    *("CONDA_", "PYTHON", "VIRTUAL_ENV", "UV_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_EXCLUDE"),
    *("UV_OVERRIDE", "UV_PRERELEASE", "UV_PROJECT", "UV_PYTHON", "UV_REQUIRE_HASHES"),
    *("UV_RESOLUTION", "UV_SYSTEM_PYTHON", "UV_TORCH_BACKEND", "UV_VENV_", "UV_WORKING_DIR"),
)


class EnvironmentProblem(Exception):  # noqa: N818 - a verdict on the environment, not a bug
    """Failure to build an environment, or to import TensorFlow in it.

    The first line names the request and the failure; uv's own lines follow, indented.
    """


def uv(scratch: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs uv, without the variables that could change the resolved packages."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_FOR_UV)}
    # In a separate folder, uv finds the user's configuration, but no project's.
    return run([_find_uv(), *arguments, "--color", "never", "--no-progress"], variables, scratch)


def run(
    command: Sequence[str | Path],
    variables: Mapping[str, str],
    folder: Path,
    seconds: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command with exactly these variables; its output is made printable.

    Raises:
        EnvironmentProblem: it took longer than `seconds`.
    """
    try:
        done = subprocess.run(
            command,
            env=dict(variables),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(f"{command[0]} timed out after {seconds:g} s") from None
    said = printable(done.stdout), printable(done.stderr)
    return subprocess.CompletedProcess(done.args, done.returncode, *said)


def _find_uv() -> str:
    with contextlib.suppress(ImportError, FileNotFoundError):
        from uv import find_uv_bin

        return find_uv_bin()
    if found := shutil.which("uv"):
        return found
    raise EnvironmentProblem("uv is required to build environments: pip install uv")


def uv_text(message: str) -> str:
    """Returns uv's stderr without passwords, each line indented below the request's line."""
    lines = [line.rstrip() for line in without_credentials(message).splitlines()]
    text = "\n".join(lines).strip("\n") or "uv failed without a message"
    return textwrap.indent(text, "  ")
