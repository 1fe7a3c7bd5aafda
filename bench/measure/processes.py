"""Worker processes from the parent's side: start, commands, timeouts and cleanup.

A worker may do anything: an answer is checked, its size is limited, and so is its printed output.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.environments.builds import Built
from bench.environments.lifeline import IS_LINUX, STDIN, lifeline
from bench.environments.scratch import scratch_folder
from bench.environments.variables import clean_variables, isolation
from bench.measure import answers
from bench.measure.endings import ended, kills_for_memory, state_of, tail
from lenet5.devices import CPU, Device
from lenet5.printable import all_printable, short_line
from lenet5.run_directory import writing

_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from bench.worker.main import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)  # the worker's main asks Linux to kill it with this process
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
_IMPORT = "import tensorflow as tf; tf.keras.layers"
_LONGEST_ANSWER = 2**26  # bytes; the numerics problem's answer has about 6 MB


class WorkerError(Exception):
    """A worker reported an error, crashed or hung.

    Attributes:
        reason: one line.
        output: last lines printed by the worker, without control characters.
        gone: whether the process has ended.
        has_started: whether the worker had answered `start`, if the caller knows.
    """

    has_started = True

    def __init__(self, reason: str, output: str = "", *, gone: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.output = output
        self.gone = gone

    @property
    def told(self) -> str:
        """The reason in one line; of an ended process also its last printed line."""
        last = self.output.rpartition("\n")[2].strip() if self.gone else ""
        return f"{self.reason}; it last printed: {last}" if last else self.reason


@dataclass(frozen=True)
class Interpreter:
    """Interpreter and variables for a side's workers.

    Attributes:
        python: interpreter of the environment.
        settings: variables of the request.
        log_level: `TF_CPP_MIN_LOG_LEVEL`; at 0 TensorFlow logs the reason of an abort.
        device: device of the processes, which see no other.
    """

    python: Path
    settings: Mapping[str, str]
    log_level: int = 2
    device: Device = CPU

    @property
    def start_device(self) -> str:
        """The device in a worker's command `start`: its process sees one GPU at most."""
        return "gpu" if self.device.is_gpu else CPU.name

    def check_started(self, said: Mapping[str, Any]) -> None:
        """Rejects a started worker that computes on the CPU in place of a GPU.

        Args:
            said: versions of its answer to `start`.

        Raises:
            WorkerError: it does.
        """
        if self.device.is_gpu and "gpu" not in said:
            told = f"computes on {said.get('device', CPU.name)}, not on {self.device.name}"
            raise WorkerError(told, gone=False)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Creates a folder for workers, and removes it at the end.

    Raises:
        InputError: the folder cannot be created.
    """
    with contextlib.ExitStack() as stack:
        with writing(Path(tempfile.gettempdir())):
            folder = stack.enter_context(scratch_folder())
        yield folder


class Worker:
    """A worker process; `with` ends it."""

    def __init__(self, interpreter: Interpreter, folder: Path, *, huge_pages: bool = False) -> None:
        """Starts the process, without a command.

        Args:
            interpreter: interpreter and variables of the process.
            folder: folder prepared by `copy_code`.
            huge_pages: whether to request huge pages from Linux, with glibc 2.35 or newer. The
                placement of small pages varies: one of 22 processes ran the steps of
                `train_step[loop,b128]` 10 % slower. With huge pages, none of 22 did.

        Raises:
            WorkerError: the interpreter cannot be run.
            InputError: its log cannot be written, for example because the disk is full.
        """
        self._log = folder / f"worker-{time.monotonic_ns()}.log"
        self._buffer = bytearray()
        self._asked: deque[str] = deque()
        self._kills_for_memory = kills_for_memory()
        parent = str(os.getpid())
        boot = _BOOT if IS_LINUX else lifeline() + _BOOT
        with contextlib.ExitStack() as stack:
            self._channel, theirs = socket.socketpair()
            stack.enter_context(theirs)
            failing = stack.enter_context(contextlib.ExitStack())
            failing.callback(self._channel.close)
            with writing(self._log):
                log = stack.enter_context(self._log.open("wb"))
            self._process = _spawn(
                [*_isolated(interpreter), boot, str(folder), str(theirs.fileno()), parent],
                interpreter,
                folder,
                _HUGE_PAGES if huge_pages else {},
                stdin=STDIN,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
            failing.pop_all()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """ID of the process."""
        return self._process.pid

    def ask(self, seconds: float, do: str, **arguments: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer.

        Raises:
            WorkerError: the worker reported an error, ended, or took longer than `seconds`.
        """
        self.send(do, **arguments)
        return self.receive(seconds)

    def send(self, do: str, **arguments: Any) -> None:
        """Sends a command; `receive` returns its answer."""
        self._asked.append(do)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `receive` reports it
            self._channel.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")

    def receive(self, seconds: float) -> dict[str, Any]:
        """Waits for an answer and returns it.

        Raises:
            WorkerError: as `ask`.
        """
        deadline = time.monotonic() + seconds
        end = self._buffer.find(b"\n")
        while end < 0:
            self._channel.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                received = self._channel.recv(65536)
            except TimeoutError:
                raise self.hung(seconds) from None
            except ConnectionResetError:
                received = b""
            if not received:
                raise WorkerError(self._ended(), self.output())
            end = received.find(b"\n")
            end = end if end < 0 else end + len(self._buffer)
            self._buffer += received
            if len(self._buffer) > _LONGEST_ANSWER and not 0 <= end <= _LONGEST_ANSWER:
                raise self._invalid(f"more than {_LONGEST_ANSWER >> 20} MiB without an end of line")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return self._checked(line)

    def stop(self) -> None:
        """Stops the process until `go_on`; returns when all threads have stopped.

        A computing thread continues until the scheduler notifies the process's main thread. That
        took a median of 0.7 ms and at most 8 ms in 519 stops of `fit[b32]` (TensorFlow 2.21.0,
        Linux 6.18). Without a wait, that time counted as a pause, and slices took less wall time
        than CPU time.
        """
        self._process.send_signal(signal.SIGSTOP)
        if hasattr(os, "waitid"):  # not on macOS
            with contextlib.suppress(ChildProcessError):  # it has ended; `receive` reports it
                options = os.WSTOPPED | os.WEXITED
                os.waitid(os.P_PID, self.pid, options | os.WNOWAIT)  # Popen handles an exit
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)  # consumes this stop

    def go_on(self) -> None:
        """Resumes a stopped process."""
        self._process.send_signal(signal.SIGCONT)

    def has_answer(self, seconds: float) -> bool:
        """Waits up to `seconds` for an answer; returns whether `receive` has data."""
        return b"\n" in self._buffer or bool(select.select([self._channel], [], [], seconds)[0])

    def hung(self, seconds: float, *, is_ours: bool = False) -> WorkerError:
        """Kills a process without an answer in `seconds`; returns the error to raise.

        Args:
            seconds: the time limit.
            is_ours: whether this process has stopped it, so that its state says nothing.
        """
        state = "" if is_ours else state_of(self.pid)
        self._kill()
        part = ", after a part of an answer" if self._buffer else ""
        return WorkerError(f"timed out after {seconds:g} s{state}{part}", self.output())

    def output(self) -> str:
        """Returns the last lines printed by the process."""
        return tail(self._log)

    def interrupt(self) -> None:
        """Kills the process from another thread; a waiting `receive` raises WorkerError."""
        self._process.kill()

    def close(self) -> None:
        """Kills the process in any state, and removes its log."""
        self._channel.close()
        self._kill()
        self._log.unlink(missing_ok=True)

    def _checked(self, line: bytes) -> dict[str, Any]:
        do = self._asked.popleft() if self._asked else ""
        try:
            answer = all_printable(json.loads(line))
        except (ValueError, RecursionError):
            raise self._invalid("not JSON") from None
        error = answer.get("error") if isinstance(answer, dict) else None
        if isinstance(error, str):
            raise WorkerError(short_line(error), self.output(), gone=False)
        if error is not None:
            raise self._invalid("its error is not a text")
        try:
            return answers.checked(do, answer)
        except ValueError as problem:
            raise self._invalid(str(problem)) from None

    def _invalid(self, problem: str) -> WorkerError:
        """Kills a process that cannot be understood; returns the error to raise."""
        self._kill()
        return WorkerError(f"sent an invalid answer: {short_line(problem)}", self.output())

    def _ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        code = self._process.poll()
        part = ", after a part of an answer" if self._buffer else ""
        if code is None:
            self._kill()
            return f"closed its channel{part}"
        if code == -signal.SIGKILL and kills_for_memory() > self._kills_for_memory:
            return f"killed by SIGKILL while the system ran out of memory{part}"
        return ended(code) + part

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def time_running(start: float, end: float, pauses: Sequence[tuple[float, float]]) -> float:
    """Returns the seconds from start to end, minus the pauses between them.

    Args:
        start: time on the clock of `time.perf_counter`, common to all processes of a system.
        end: time on the same clock.
        pauses: times of each stop and the next resumption, on the same clock, without overlaps.
            Parts before the start or after the end do not count.
    """
    stopped = (min(end, until) - max(start, since) for since, until in pauses)
    return end - start - sum(seconds for seconds in stopped if seconds > 0)


def time_import(
    interpreter: Interpreter, folder: Path, cores: Sequence[int], seconds: float
) -> float:
    """Measures wall seconds of a process that imports TensorFlow and accesses `tf.keras.layers`.

    Raises:
        WorkerError: the process failed, or took longer than `seconds`.
        InputError: its log cannot be written.
    """
    log = folder / "import.log"
    command = [*_isolated(interpreter), lifeline() + _IMPORT]
    with writing(log):
        opened = log.open("wb")
    with running_on(cores), opened as output:
        start = time.perf_counter()
        process = _spawn(
            command,
            interpreter,
            folder,
            {},
            stdin=STDIN,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        code = process.wait(timeout=seconds)
        wall_seconds = time.perf_counter() - start
    except subprocess.TimeoutExpired:
        told = f"timed out after {seconds:g} s{state_of(process.pid)}"
        raise WorkerError(told, tail(log)) from None
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
    if code != 0:
        raise WorkerError(ended(code), tail(log))
    return wall_seconds


@contextlib.contextmanager
def running_on(cores: Sequence[int]) -> Iterator[None]:
    """Pins this process and its new children to these cores; without cores, to none."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _spawn(
    command: Sequence[str],
    interpreter: Interpreter,
    folder: Path,
    variables: Mapping[str, str],
    **options: Any,
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={
                **clean_variables(folder / "home"),
                **interpreter.device.variables,
                **variables,
                "TF_CPP_MIN_LOG_LEVEL": str(interpreter.log_level),
                **interpreter.settings,
            },
            start_new_session=True,  # only the parent handles Ctrl-C
            **options,
        )
    except OSError as error:
        raise WorkerError(f"{interpreter.python}: cannot be run: {error.strerror}") from None


def _isolated(interpreter: Interpreter) -> list[str]:
    return [str(interpreter.python), *isolation(interpreter.settings), "-c"]


def interpreter_of(built: Built, device: Device = CPU) -> Interpreter:
    """Returns interpreter and variables for an environment's workers on a device."""
    return Interpreter(built.python, built.request.settings, device=device)
