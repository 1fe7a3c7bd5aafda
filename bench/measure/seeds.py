"""Many seeds in parallel: a process each, with one thread, as many at a time as there are cores."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.measure.processes import Interpreter, Worker, WorkerError
from bench.records import ledger
from bench.records.trainings import Trained
from lenet5.recipe import Recipe

_START_SECONDS = 300.0
_EPOCH_SECONDS = 60.0  # ten times what an epoch takes on a slow core
_TRIES = 2  # a fault is told from an accident by a fresh process


@dataclass(frozen=True)
class Job:
    """A seed of a recipe to train on a side, and the engine that trains it."""

    side: str
    seed: int
    recipe: Recipe
    engine: str


OnTrained = Callable[[Job, Trained, Mapping[str, Any]], None]


def train_seeds(
    jobs: Sequence[Job],
    sides: Mapping[str, Interpreter],
    folder: Path,
    *,
    processes: int,
    on_trained: OnTrained,
    epoch_seconds: float = _EPOCH_SECONDS,
) -> None:
    """Trains every job; where a process fails twice, its side is left alone with that recipe.

    Args:
        jobs: in the order in which they are begun.
        sides: what each side's processes run with.
        folder: made by `prepare_training_folder`.
        processes: at a time.
        on_trained: is told of every seed, with what the process says of its versions; called
            here, one at a time.
        epoch_seconds: a training counts as hung after so many for each of its epochs.

    Raises:
        KeyboardInterrupt: after every process has ended.
    """
    live: set[Worker] = set()
    lock = threading.Lock()
    stopping = threading.Event()
    failed: set[tuple[str, Recipe]] = set()

    def train(job: Job) -> tuple[Trained, Mapping[str, Any]] | None:
        reason, retried, started = "", "", False
        for _ in range(_TRIES):
            if (job.side, job.recipe) in failed:
                return None
            try:
                with Worker(sides[job.side], folder) as worker, _listed(worker, live, lock):
                    if stopping.is_set():  # looked at once listed: nobody would end it otherwise
                        return None
                    said = worker.ask(_START_SECONDS, "start", cores=[], threads=1)["versions"]
                    started = True
                    limit_seconds = epoch_seconds * (job.recipe.epochs + 1)
                    answer = worker.ask(
                        limit_seconds,
                        "train",
                        recipe=asdict(job.recipe),
                        seed=job.seed,
                        engine=job.engine,
                    )
                    del answer["idle_cpu_seconds"]
                    return replace(_read(answer), retried=retried), said
            except WorkerError as error:
                reason = error.reason
                retried = retried or reason
        failed.add((job.side, job.recipe))
        fault = Trained(
            *(job.seed, None, 10_000),
            problem=reason,
            crashed=True,
            started=started,
            retried=retried,
        )
        return fault, {}

    with ThreadPoolExecutor(processes) as pool:
        try:
            futures = {pool.submit(train, job): job for job in jobs}
            for future in as_completed(futures):
                if (done := future.result()) is not None:
                    on_trained(futures[future], *done)
        except BaseException:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            with lock:
                for worker in live:
                    worker.interrupt()
            raise


def _read(answer: Mapping[str, Any]) -> Trained:
    try:
        return ledger.made(Trained, answer)
    except ValueError as error:
        raise WorkerError(f"answers rubbish: {error}") from None


@contextlib.contextmanager
def _listed(worker: Worker, live: set[Worker], lock: threading.Lock) -> Iterator[None]:
    with lock:
        live.add(worker)
    try:
        yield
    finally:
        with lock:
            live.discard(worker)
