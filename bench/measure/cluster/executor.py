"""Executor on a Dask cluster, with the interface of `measure_blocks` and `train_seeds`.

A block needs a worker with one thread and the resource `machine=1`, alone on its host. A seed needs
a thread, or `core=1` if workers announce it. `bench.measure.cluster.tasks` has the tasks.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import uuid
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.environments.builds import Built
from bench.environments.commands import EnvironmentProblem
from bench.measure.blocks import MeasuredBlock
from bench.measure.cluster import tasks as on_worker
from bench.measure.cluster.roster import CORE, MACHINE, Roster
from bench.measure.seeds import TrainedSeed
from bench.measure.workers import Bench
from bench.records.blocks import BlockTask
from bench.records.trainings import SeedTask
from lenet5.devices import CPU
from lenet5.errors import InputError
from lenet5.printable import short_line

WAIT_SECONDS = 60.0  # for the scheduler, and for a worker that may run a task
_LOOK_SECONDS = 1.0


class Cluster:
    """Connection to a Dask scheduler; all records come from one class of machines."""

    def __init__(
        self, address: str, wait_seconds: float = WAIT_SECONDS, *, device: str = CPU.name
    ) -> None:
        """Connects to a scheduler, such as `tcp://node1:8786`; InputError if none answers."""
        try:
            import distributed
        except ImportError:
            raise InputError("--cluster needs distributed: pip install '.[cluster]'") from None
        self._dask: Any = distributed  # it has no types
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # our errors say it
        self._name, self._wait = f"--cluster {address}", wait_seconds
        self._session, self._sent, self._number = uuid.uuid4().hex, dict[str, Any](), 0
        try:
            self._client = self._dask.Client(address, timeout=wait_seconds)
        except (OSError, ValueError) as error:
            told = f"no scheduler answers within {wait_seconds:g} s: {short_line(error)}"
            raise InputError(f"{self._name}: {told}") from None
        self._device = device
        self._roster = Roster(self._client, self._name, wait_seconds, device)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def machine_for(self, resource: str, wanted: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class of machines of all records: `wanted`, or that of most workers."""
        return self._roster.choose(resource, wanted)

    def machines(self) -> int:
        """Returns the number of machines that can measure a block each."""
        return len(self._roster.wait_for(MACHINE)[0])

    def measure_blocks(
        self, tasks: Sequence[BlockTask], bench: Bench, sides: Mapping[int, Built]
    ) -> Generator[MeasuredBlock, None, None]:
        """Measures blocks, each on a whole machine; InputError if no worker can."""
        common = bench, *self._send(sides, bench.folder), on_worker.BUSY_SECONDS, self._device
        yield from self._run(on_worker.measure_block, [*tasks], common, MACHINE)

    def train_seeds(
        self, tasks: Sequence[SeedTask], sides: Mapping[int, Built], folder: Path, **_: object
    ) -> Generator[TrainedSeed, None, None]:
        """Trains seeds, each on a core; after a failure a place gets no further tasks."""
        left = [*tasks]
        common = *self._send(sides, folder), self._device
        for record in self._run(on_worker.train_seed, left, common, CORE):
            if record.trained.crashed:
                left[:] = [task for task in left if task.place != record.task.place]
            yield record

    def _run(
        self, work: Callable[..., Any], left: list[Any], common: Iterable[Any], resource: str
    ) -> Generator[Any, None, None]:
        """Yields the records of every task once; the caller may remove tasks from `left`."""
        futures: dict[Any, Any] = {}
        used: set[str] = set()
        try:
            while left:
                workers, needs = self._roster.wait_for(resource)
                if not used & workers.keys():  # at first, or all of them are lost
                    self._client.cancel([*futures])
                    used, where = {*workers}, {"workers": [*workers], "resources": needs}
                    futures = {self._submit(work, task, *common, **where): task for task in left}
                for future in self._finished(futures):
                    with contextlib.suppress(self._dask.TimeoutError):  # lost: it runs again
                        records, task = self._records(future), futures.pop(future)
                        if task in left:
                            left.remove(task)
                            yield from records
        finally:
            self._client.cancel([*futures])

    def _submit(self, work: Callable[..., Any], *arguments: Any, **where: Any) -> Any:
        self._number += 1
        key = f"{work.__name__}-{self._session}-{self._number}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a large archive is sent once
            return self._client.submit(work, *arguments, key=key, pure=False, **where)

    def _send(self, sides: Mapping[int, Built], folder: Path) -> tuple[Any, ...]:
        """Sends folder and wheels, as tasks: Dask repeats them if their worker is lost."""
        ordered = {place: on_worker.order_of(built) for place, built in sides.items()}
        wheels = {sha: path for _, own in ordered.values() for sha, path in own.items()}
        archive = on_worker.packed(folder)
        name = hashlib.sha256(archive).hexdigest()
        for sha in {*wheels, name} - self._sent.keys():
            content = archive if sha == name else wheels[sha].read_bytes()
            self._sent[sha] = self._submit(bytes, content)
        orders = {place: order for place, (order, _) in ordered.items()}
        return orders, {sha: self._sent[sha] for sha in wheels}, self._sent[name]

    def _finished(self, futures: Iterable[Any]) -> Iterable[Any]:
        wait, first = self._dask.wait, "FIRST_COMPLETED"
        try:
            return list(wait([*futures], timeout=_LOOK_SECONDS, return_when=first).done)
        except self._dask.TimeoutError:
            return []
        except self._dask.CancelledError:
            raise InputError(f"{self._name}: the scheduler has lost the tasks") from None

    def _records(self, future: Any) -> list[Any]:
        error = future.exception(timeout=self._wait)
        if isinstance(error, InputError | EnvironmentProblem | self._dask.scheduler.KilledWorker):
            raise InputError(f"{self._name}: {short_line(error)}")
        return list(future.result(timeout=self._wait))


def connected(
    address: str | None, device: str = CPU.name
) -> contextlib.AbstractContextManager[Cluster | None]:
    """Returns a connection to a cluster for a device; without an address, the context is None."""
    return contextlib.nullcontext() if address is None else Cluster(address, device=device)
