"""A Dask scheduler and workers as processes on loopback addresses, without dashboards."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.commands import of_checkout

HOSTS = ("127.0.0.2", "127.0.0.3")
"""Addresses of two workers on one machine, as if on two hosts."""
ON_MACHINE = ("--nthreads", "1", "--resources", "machine=1")
_START_SECONDS = 60.0

StartWorker = Callable[..., psutil.Process]


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, StartWorker]]:
    """Starts a scheduler.

    Args:
        folder: folder of its files; the workers keep their caches there.

    Yields:
        Its address, and a function that starts a worker: from a host, options and variables to the
        process. All processes end with the context.
    """
    file = folder / "scheduler.json"
    with ExitStack() as stack:

        def start(kind: str, *options: str, **variables: str) -> psutil.Process:
            log = stack.enter_context((folder / f"{kind}-{time.monotonic_ns()}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options, "--no-dashboard"],
                env={**of_checkout(), "XDG_CACHE_HOME": str(folder / "cache"), **variables},
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(_end, process)
            return psutil.Process(process.pid)

        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        address = _address_in(file)

        def worker(host: str, *options: str, **variables: str) -> psutil.Process:
            local = ("--local-directory", str(folder / f"worker-{time.monotonic_ns()}"))
            return start("worker", address, "--host", host, *local, *options, **variables)

        yield address, worker


def wait_until(is_so: Callable[[], bool], seconds: float = _START_SECONDS) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.05)


def measuring(worker: psutil.Process) -> list[psutil.Process]:
    """Returns the measuring stubs below a worker, or below its nanny."""
    found = []
    for child in worker.children(recursive=True):
        try:
            if any("stub_worker" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:  # it has ended meanwhile
            continue
    return found


def _address_in(file: Path) -> str:
    def is_whole() -> bool:
        try:
            return bool(json.loads(file.read_text())["address"])
        except (OSError, ValueError, KeyError):
            return False

    wait_until(is_whole)
    return str(json.loads(file.read_text())["address"])


def _end(process: subprocess.Popen[bytes]) -> None:
    family = [psutil.Process(process.pid)] if process.poll() is None else []
    family += [child for parent in family for child in parent.children(recursive=True)]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
