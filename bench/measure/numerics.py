"""Computes the numerics problem in several environments."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.measure.processes import Interpreter, Worker, WorkerError, private_folder
from bench.measure.worker_files import NUMERICS_FILES, copy_code
from bench.records.numerics import (
    DETERMINISTIC_OPS,
    Computed,
    Mode,
    default_mode,
    make_problem,
)
from lenet5.data import Subset
from lenet5.run_directory import writing

_LIMIT_SECONDS = 300.0

Task = tuple[Interpreter, Mode]


def compute_in(
    interpreters: Sequence[Interpreter],
    training: Subset,
    threads: int = 1,
    modes: Sequence[Mode] | None = None,
) -> list[Computed | WorkerError]:
    """Computes the problem in each environment, one after the other.

    Args:
        interpreters: interpreters with settings and device.
        training: MNIST's training images.
        threads: number of TensorFlow threads.
        modes: mode of each process; None: TensorFlow's default on the device.

    Returns:
        The problem as computed in each environment, or its error.

    Raises:
        InputError: the problem cannot be written, for example because the disk is full.
    """
    if modes is None:
        modes = [default_mode(one.device.name, one.settings) for one in interpreters]
    with private_folder() as folder:
        prepare_numerics_folder(folder, training)
        tasks = list(zip(interpreters, modes, strict=True))
        return list(compute_all(tasks, folder, threads=threads))


def prepare_numerics_folder(folder: Path, training: Subset) -> None:
    """Writes code and problem to a private folder.

    Raises:
        InputError: a file cannot be written.
    """
    with writing(folder):
        copy_code(folder, NUMERICS_FILES)
        make_problem(training).save(folder)


def compute_all(
    tasks: Sequence[Task],
    folder: Path,
    *,
    threads: int = 1,
    at_once: int = 1,
    limit: Callable[[], float] = lambda: _LIMIT_SECONDS,
) -> Generator[Computed | WorkerError, None, None]:
    """Computes the problem in processes of their own.

    Args:
        tasks: interpreter and mode of each process.
        folder: folder of `prepare_numerics_folder`.
        threads: number of TensorFlow threads.
        at_once: number of processes at a time.
        limit: returns the seconds to wait for an answer.

    Yields:
        The problem as computed, or an error, in the order of the tasks.
    """
    for first in range(0, len(tasks), at_once):
        with ExitStack() as stack:
            started = [
                _started(task, folder, threads, stack) for task in tasks[first : first + at_once]
            ]
            asked = [
                one if isinstance(one, WorkerError) else _asked(one, limit()) for one in started
            ]
            for (interpreter, mode), one in zip(tasks[first : first + at_once], asked, strict=True):
                if isinstance(one, WorkerError):
                    yield one
                    continue
                try:
                    yield _read(one.receive(limit()), interpreter, mode)
                except WorkerError as error:
                    yield error


def _started(task: Task, folder: Path, threads: int, stack: ExitStack) -> Worker | WorkerError:
    """Returns a worker that starts TensorFlow in a mode."""
    interpreter, mode = task
    if mode.deterministic_ops and DETERMINISTIC_OPS not in interpreter.settings:
        settings = {**interpreter.settings, DETERMINISTIC_OPS: "1"}
        interpreter = replace(interpreter, settings=settings)
    try:
        worker = stack.enter_context(Worker(interpreter, folder))
    except WorkerError as error:
        error.has_started = False
        return error
    arguments = {"device": interpreter.start_device, "tf32": mode.tf32}
    worker.send("start", cores=[], threads=threads, **arguments)
    return worker


def _asked(worker: Worker, seconds: float) -> Worker | WorkerError:
    """Returns a started worker that computes the problem."""
    try:
        worker.receive(seconds)
    except WorkerError as error:
        error.has_started = False
        return error
    worker.send("numerics")
    return worker


def _read(answer: Mapping[str, Any], interpreter: Interpreter, asked: Mode) -> Computed:
    if not interpreter.device.is_gpu:
        return Computed(asked, asked, answer["quantities"])
    found = [answer.get(name) for name in ("tf32", "deterministic_ops")]
    if None in found:
        raise WorkerError("sent an invalid answer: its mode on the GPU is missing", gone=False)
    return Computed(asked, Mode(interpreter.device.name, *map(bool, found)), answer["quantities"])
