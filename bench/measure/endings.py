"""How a process ended, or why it does not answer, in words."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil

from lenet5.printable import printable

_OUTPUT_LINES = 10
_OUTPUT_BYTES = 2**14  # read from the end of a log, which may be large
_LONGEST = 500  # characters of a line
_WATCHED_SECONDS = 0.1
_LOOKS = 10


def ended(code: int) -> str:
    """Returns the end of a process in words, from its status as in `Popen.returncode`."""
    return f"killed by {_signal_name(-code)}" if code < 0 else f"ended with status {code}"


def kills_for_memory(root: Path = Path("/")) -> int:
    """Returns the processes that Linux has killed for lack of memory; 0 without a report.

    Args:
        root: parent folder of `proc`.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        words = (root / "proc" / "vmstat").read_text().split()
        return int(words[words.index("oom_kill") + 1])
    return 0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def state_of(pid: int) -> str:
    """Returns whether a process without an answer is stopped or computes; empty if it waits."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_STOPPED:
            return ", stopped by a signal"
        for _ in range(_LOOKS):
            if process.status() != psutil.STATUS_RUNNING:  # a full machine may let it wait its turn
                return ""
            time.sleep(_WATCHED_SECONDS / _LOOKS)
    except psutil.Error:
        return ""
    return ", still computing"


def tail(log: Path) -> str:
    """Returns the last printed lines; the log may be large, binary, or removed."""
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _OUTPUT_BYTES, 0))
            text = file.read(_OUTPUT_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = printable(text).splitlines()
    return "\n".join(line[-_LONGEST:] for line in lines[-_OUTPUT_LINES:])
