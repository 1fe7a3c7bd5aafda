"""An environment compared with itself, one side's processes started by a Dask worker, is PASS.

Dask's nanny sets variables that change times. The Dask worker starts the process, and the channel
comes from here. With those variables the side takes 1.037 times as long (99.4 % interval 1.031 to
1.044, 12 blocks; TensorFlow 2.21.0, AMD EPYC with AVX-512, 2 cores).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed
import psutil
import pytest

from bench import speed
from bench.environments.builds import build
from bench.environments.request import parse_request
from bench.measure import machine, processes
from bench.measure.processes import Interpreter
from bench.plans.speed import Terms
from bench.records.blocks import Block, Results
from bench.records.catalogue import WORKLOADS
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import Decision, decide
from lenet5.data import Dataset
from tests.measure.dask import HOSTS, scheduler

pytestmark = pytest.mark.faults

LOOP = "train_step[loop,b128]"
_MARK = "TF_FAULTS_SIDE"
_LIMIT_SECONDS = 120.0
_OF_DASK = ("MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def start_here(path: str) -> None:
    """Starts a process with the descriptors that come over a socket, and ends it on request."""
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(path)
        told, (channel, log), *_ = socket.recv_fds(control, 2**16, 2)
        order = json.loads(told)
        *command, _, _ = order["command"]
        process = processes._spawn(
            [*command, str(channel), str(os.getpid())],
            Interpreter(Path(order["python"]), order["settings"]),
            Path(order["folder"]),
            {**order["variables"], **{name: os.environ[name] for name in order["leaked"]}},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[channel],
        )
        os.close(channel)
        os.close(log)
        control.sendall(f"{process.pid}\n".encode())
        control.recv(1)
        process.kill()
        control.sendall(f"{process.wait()}\n".encode())


@dataclass
class Elsewhere:
    """A process that another one has started; as `subprocess.Popen`, as far as `Worker` uses it."""

    pid: int
    control: socket.socket
    code: int | None = None
    stdin: None = None

    def send_signal(self, number: int) -> None:
        """Sends a signal."""
        if self.code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the process."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Returns the status after `wait`."""
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        """Lets the parent wait for the end, which must have been asked for."""
        if self.code is None:
            self.control.settimeout(timeout or _LIMIT_SECONDS)
            self.control.sendall(b"e")
            self.code = int(self.control.recv(100))
            self.control.close()
        return self.code


def test_a_side_started_under_dask_has_the_speed_of_the_other(
    mnist: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision = decided(mnist, tmp_path, monkeypatch)
    assert decision.verdict is Verdict.PASS, decision.finding


def test_the_variables_of_dask_would_be_noticed(
    mnist: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial above has the power to see them, on a machine without other work."""
    decision = decided(mnist, tmp_path, monkeypatch, leaked=_OF_DASK)
    assert decision.low > 1, decision.finding


def decided(
    mnist: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaked: Sequence[str] = ()
) -> Decision:
    """Compares this environment with itself; the candidate's processes are Dask's children.

    Args:
        mnist: the images.
        tmp_path: folder of all files.
        monkeypatch: replaces the start of the candidate's processes.
        leaked: variables of the Dask worker that the candidate's processes get.
    """
    live: list[Elsewhere] = []
    kept: list[Any] = []  # Dask cancels a task that no future refers to
    connect: Any = distributed.Client  # it has no types
    real_spawn, real_seconds = processes._spawn, machine.children_cpu_seconds
    with scheduler(tmp_path) as (address, start):
        start(HOSTS[0], "--nthreads", "4")
        with connect(address, timeout=_LIMIT_SECONDS) as client:
            client.wait_for_workers(1, timeout=_LIMIT_SECONDS)

            def spawn(
                command: Sequence[str],
                interpreter: Interpreter,
                folder: Path,
                variables: Mapping[str, str],
                **options: Any,
            ) -> Any:
                if _MARK not in interpreter.settings:
                    return real_spawn(command, interpreter, folder, variables, **options)
                path = str(tmp_path / f"socket-{len(live)}")
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(path)
                    listener.listen()
                    kept.append(client.submit(start_here, path, pure=False, key=path))
                    listener.settimeout(_LIMIT_SECONDS)
                    control, _ = listener.accept()
                order = {
                    "command": [*command],
                    "python": str(interpreter.python),
                    "settings": dict(interpreter.settings),
                    "folder": str(folder),
                    "variables": dict(variables),
                    "leaked": [*leaked],
                }
                descriptors = [*options["pass_fds"], options["stdout"].fileno()]
                socket.send_fds(control, [json.dumps(order).encode()], descriptors)
                live.append(Elsewhere(int(control.recv(100)), control))
                return live[-1]

            def seconds() -> float:
                """Counts the processes elsewhere as ours too: they are no disturbance."""
                used = real_seconds()
                for process in live:
                    if process.code is None:
                        times = psutil.Process(process.pid).cpu_times()
                        used += times.user + times.system
                return used

            monkeypatch.setattr(processes, "_spawn", spawn)
            monkeypatch.setattr(machine, "children_cpu_seconds", seconds)
            found = compared(mnist, tmp_path / "cache")
            assert len(live) >= 4  # a process in each block
    (decision,) = decide(found)
    print(decision.finding)
    return decision


def compared(mnist: Dataset, cache: Path) -> Results:
    """Compares this environment with itself; the candidate's processes have a mark."""
    requests = [parse_request("."), parse_request(f". {_MARK}=dask")]
    built = [build(request, cache, say=print) for request in requests]
    terms = Terms(requests[0], (requests[1],), {LOOP: WORKLOADS[LOOP]})

    def tell(_: Results, block: Block | None) -> None:
        print(block and (block.number, block.seconds, block.disturbed, block.failures))

    return speed.measure(terms, built, [[LOOP]], mnist.training, tell)
