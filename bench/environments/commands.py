"""Commands that build environments: uv and Python."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lenet5.printable import printable, without_credentials

# Variables that could change the resolved packages; variables for indexes and caches are kept.
_NOT_FOR_UV = (
    *("CONDA_", "PYTHON", "VIRTUAL_ENV", "UV_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_EXCLUDE"),
    *("UV_OVERRIDE", "UV_PRERELEASE", "UV_PROJECT", "UV_PYTHON", "UV_REQUIRE_HASHES"),
    *("UV_RESOLUTION", "UV_SYSTEM_PYTHON", "UV_TORCH_BACKEND", "UV_VENV_", "UV_WORKING_DIR"),
)
_NEWS_SECONDS = 60.0  # between two signs of life of a long command


class EnvironmentProblem(Exception):  # noqa: N818 - a verdict on the environment, not a bug
    """Failure to build an environment, or to import TensorFlow in it.

    The first line names the request and the failure; uv's own lines follow, indented.
    """


def uv(
    scratch: Path, *arguments: str | Path, still: Callable[[float], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs uv, without the variables that could change the resolved packages.

    `still` receives the seconds since its start, once a minute.
    """
    variables = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_FOR_UV)}
    # In a separate folder, uv finds the user's configuration, but no project's.
    command = [_find_uv(), *arguments, "--color", "never", "--no-progress"]
    return run(command, variables, scratch, still=still)


def run(
    command: Sequence[str | Path],
    variables: Mapping[str, str],
    folder: Path,
    seconds: float = math.inf,
    still: Callable[[float], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command with exactly these variables; its output is made printable.

    Args:
        command: the command and its arguments.
        variables: its environment variables.
        folder: its working folder.
        seconds: time after which it is killed.
        still: receives the seconds since its start, once a minute.

    Raises:
        EnvironmentProblem: it took longer than `seconds`.
    """
    with subprocess.Popen(
        command,
        env=dict(variables),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            output = _output(process, str(command[0]), seconds, still)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, *map(printable, output))


def _output(
    process: subprocess.Popen[str],
    name: str,
    seconds: float,
    still: Callable[[float], None] | None,
) -> tuple[str, str]:
    waited = 0.0
    while True:
        step = min(seconds - waited, _NEWS_SECONDS if still else math.inf)
        try:
            return process.communicate(timeout=None if math.isinf(step) else step)
        except subprocess.TimeoutExpired:
            waited += step
        if waited >= seconds:
            raise EnvironmentProblem(f"{name} timed out after {seconds:g} s")
        if still:
            still(waited)


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
