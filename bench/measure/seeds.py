"""Trains many seeds in parallel, each in a process with one thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.measure.processes import Interpreter, Worker, WorkerError
from bench.records import ledger
from bench.records.trainings import SeedTask, Trained, check_trained
from lenet5.printable import short_line

_START_SECONDS = 300.0
_EPOCH_SECONDS = 60.0  # ten times the duration of an epoch on a slow core
_TRIES = 2  # a fresh process distinguishes a fault from an accident


@dataclass(frozen=True)
class TrainedSeed:
    """The record of a task.

    Attributes:
        task: the task.
        trained: its result.
        said: versions reported by the worker.
        seconds: time of the task, with its processes.
    """

    task: SeedTask
    trained: Trained
    said: Mapping[str, Any]
    seconds: float = 0.0


def train_seeds(
    tasks: Sequence[SeedTask],
    sides: Mapping[int, Interpreter],
    folder: Path,
    *,
    processes: int,
    epoch_seconds: float = _EPOCH_SECONDS,
) -> Generator[TrainedSeed, None, None]:
    """Runs every task; after a failure in two processes, a place gets no further tasks.

    Args:
        tasks: tasks in the order of their start.
        sides: interpreter and settings of each place.
        folder: folder prepared by `prepare_training_folder`.
        processes: number of parallel processes.
        epoch_seconds: timeout of a training, per epoch.

    Yields:
        The record of each finished task.

    Raises:
        KeyboardInterrupt: after the end of every process.
    """
    live: set[Worker] = set()
    lock = threading.Lock()
    stopping = threading.Event()
    failed: set[int] = set()

    def train(task: SeedTask) -> TrainedSeed | None:
        reason, retried, started = "", "", False
        start = time.monotonic()
        for _ in range(_TRIES):
            if task.place in failed:
                return None
            try:
                with Worker(sides[task.place], folder) as worker, _listed(worker, live, lock):
                    if stopping.is_set():  # checked once listed, so that no worker is missed
                        return None
                    side = sides[task.place]
                    said = worker.ask(
                        _START_SECONDS, "start", cores=[], threads=1, device=side.start_device
                    )["versions"]
                    side.check_started(said)
                    if side.device.is_gpu:  # its worker sees one GPU and cannot know its number
                        said["device"] = side.device.name
                    started = True
                    limit_seconds = epoch_seconds * (task.recipe.epochs + 1)
                    answer = worker.ask(
                        limit_seconds,
                        "train",
                        recipe=asdict(task.recipe),
                        seed=task.seed,
                        engine=task.engine,
                    )
                    trained = replace(_read(answer, task.seed), retried=retried)
                return TrainedSeed(task, trained, said, time.monotonic() - start)
            except WorkerError as error:
                reason = error.told
                retried = retried or reason
        failed.add(task.place)
        fault = Trained(
            *(task.seed, None, 10_000),
            problem=reason,
            crashed=True,
            started=started,
            retried=retried,
        )
        return TrainedSeed(task, fault, {}, time.monotonic() - start)

    with ThreadPoolExecutor(processes) as pool:
        try:
            futures = [pool.submit(train, task) for task in tasks]
            for future in as_completed(futures):
                if (done := future.result()) is not None:
                    yield done
        except BaseException:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            with lock:
                for worker in live:
                    worker.interrupt()
            raise


def _read(answer: Mapping[str, Any], seed: int) -> Trained:
    try:
        trained = ledger.made(Trained, answer)
        check_trained(trained)
        if trained.seed != seed:
            raise ValueError(f"it trained seed {trained.seed} instead of {seed}")
        if len(trained.digits) not in (0, trained.images):
            raise ValueError("it has not one digit per image")
    except ValueError as error:
        raise WorkerError(f"sent an invalid answer: {short_line(error)}") from None
    return trained


@contextlib.contextmanager
def _listed(worker: Worker, live: set[Worker], lock: threading.Lock) -> Iterator[None]:
    with lock:
        live.add(worker)
    try:
        yield
    finally:
        with lock:
            live.discard(worker)
