"""Code that ends a process when its parent is gone, also after `kill -9` of the parent."""

from __future__ import annotations

import os
import subprocess
import sys

IS_LINUX = sys.platform == "linux"
STDIN = subprocess.DEVNULL if IS_LINUX else subprocess.PIPE
"""`stdin` of a process with `lifeline()`; the parent keeps the pipe open, and writes nothing."""

# Linux kills the process, whatever it does. TensorFlow imports ctypes in any case.
_BY_LINUX = """
import ctypes, os
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != {parent}:
    os._exit(1)
"""
# Elsewhere a thread waits for the end of a pipe, which only the parent holds open.
_BY_PIPE = """
import os, threading
def _wait_for_end():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=_wait_for_end, daemon=True).start()
"""


def lifeline(*, is_linux: bool = IS_LINUX) -> str:
    """Returns Python code for the start of a child of this process.

    Args:
        is_linux: whether Linux kills the child; otherwise the child needs a pipe as `stdin`.
    """
    return _BY_LINUX.format(parent=os.getpid()) if is_linux else _BY_PIPE
