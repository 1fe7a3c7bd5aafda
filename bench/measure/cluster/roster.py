"""Workers of a Dask cluster: their properties, and which of them may run a task."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bench.measure import machine
from lenet5.devices import CPU, read_device
from lenet5.errors import InputError
from lenet5.printable import short_line

MACHINE, CORE = "machine", "core"


@dataclass(frozen=True)
class Facts:
    """Properties of a worker.

    Attributes:
        threads: number of tasks that it runs at once.
        resources: resources that it announces, such as `machine`.
        machine: result of `bench.measure.machine.describe`.
        problem: why it lacks the asked-for device; empty if it has it.
    """

    threads: int
    resources: Mapping[str, float]
    machine: Mapping[str, Any]
    problem: str = ""


class Roster:
    """The workers of a cluster; all that are chosen have one class of machines."""

    def __init__(self, client: Any, name: str, wait_seconds: float, device: str = CPU.name) -> None:
        """Asks no worker yet.

        Args:
            client: a `distributed.Client`.
            name: name of the cluster, for messages.
            wait_seconds: longest wait for a worker that may run a task.
            device: device of the tasks, which each worker reads in its own environment.
        """
        self._device = device
        self._client = client
        self._name = name
        self._wait_seconds = wait_seconds
        self._known: dict[str, Facts] = {}
        self._machine: Mapping[str, Any] | None = None

    def choose(self, resource: str, wanted: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Chooses the class of machines, and returns it: `wanted`, or that of most workers.

        Raises:
            InputError: as `wait_for`.
        """
        self._machine = wanted
        workers, _ = self.wait_for(resource)
        classes = [json.dumps(facts.machine, sort_keys=True) for facts in workers.values()]
        chosen: dict[str, Any] = json.loads(max(sorted(set(classes)), key=classes.count))
        self._machine = chosen
        return chosen

    def wait_for(self, resource: str) -> tuple[dict[str, Facts], dict[str, int]]:
        """Waits for workers that may run a task; returns `suitable` ones.

        Raises:
            InputError: there is none, a worker is not fit for use, no worker has the device, or the
                connection is lost.
        """
        deadline = time.monotonic() + self._wait_seconds
        while True:
            try:
                self._look()
                found, needs = suitable(self._known, resource, self._machine)
            except (OSError, asyncio.TimeoutError) as error:
                raise InputError(f"{self._name}: is lost: {short_line(error)}") from None
            except InputError as error:
                raise InputError(f"{self._name}: {error}") from None
            if found:
                return found, needs
            if time.monotonic() > deadline:
                waited = f"no worker within {self._wait_seconds:g} s"
                raise InputError(f"{self._name}: {waited}: {missing(self._known, resource)}")
            time.sleep(min(self._wait_seconds, 0.2))

    def _look(self) -> None:
        """Asks new workers for their properties, and forgets those that have ended."""
        addresses = self._client.nthreads()
        new = [address for address in addresses if address not in self._known]
        ask = _facts, self._device
        told = self._client.run(*ask, workers=new, on_error="return") if new else {}
        for address, facts in told.items():
            if not isinstance(facts, Facts | OSError):  # an OSError: the worker has ended meanwhile
                hint = "it must run in a checkout of this version"
                raise InputError(f"worker {address}: {short_line(facts)}: {hint}")
        known = {**self._known, **{a: f for a, f in told.items() if isinstance(f, Facts)}}
        self._known = {address: known[address] for address in addresses if address in known}


def _facts(device: str, dask_worker: Any) -> Facts:
    """Returns the properties of this worker, which `distributed.Client.run` gives."""
    state = dask_worker.state
    has = state.nthreads, dict(state.total_resources)
    try:
        return Facts(*has, machine.describe(read_device(device, os.environ)))
    except InputError as error:  # another worker may have the device
        return Facts(*has, {}, str(error))


def suitable(
    there: Mapping[str, Facts], resource: str, wanted: Mapping[str, Any] | None
) -> tuple[dict[str, Facts], dict[str, int]]:
    """Returns the workers that may run a task, and the resources that the task needs.

    Resources belong to a worker's process, not to its host. A block needs a whole host, so a worker
    with `machine=1` must have one thread, and be the only one of its host.

    Args:
        there: properties of all workers by address.
        resource: `machine` for a block. `core` for a seed, if any worker announces it; otherwise a
            seed needs a thread only.
        wanted: class of machines; None: any.

    Raises:
        InputError: a worker with `machine=1` has more threads, or shares its host with another;
            none has the device; or one would train several seeds at a time on a GPU unasked.
    """
    lacking = {address: facts.problem for address, facts in there.items() if facts.problem}
    if lacking and len(lacking) == len(there):
        address, problem = min(lacking.items())
        raise InputError(f"worker {address}: {problem}")
    there = {address: facts for address, facts in there.items() if address not in lacking}
    found = {address: facts for address, facts in there.items() if facts.resources.get(resource)}
    needs = {resource: 1} if found or resource == MACHINE else {}
    found = found if needs else dict(there)
    if resource == MACHINE:
        hosts = [urlsplit(address).hostname for address in found]
        for address, facts in found.items():
            if facts.threads != 1:
                told = f"has machine=1 and {facts.threads} threads: start it with --nthreads 1"
                raise InputError(f"worker {address} {told}")
            if hosts.count(urlsplit(address).hostname) > 1:
                told = "is not the only one with machine=1 on its host: start one"
                raise InputError(f"worker {address} {told}")
    elif not needs:
        for address, facts in found.items():
            if "gpu" in facts.machine and facts.threads != 1:
                told = f"would train {facts.threads} seeds at a time on its GPU"
                raise InputError(f"worker {address} {told}: start it with --nthreads 1")
    return {a: facts for a, facts in found.items() if wanted in (None, facts.machine)}, needs


def missing(there: Mapping[str, Facts], resource: str) -> str:
    """Returns which workers are missing, for a message."""
    if not there:
        return "the scheduler has none"
    announced = sum(bool(facts.resources.get(resource)) for facts in there.values())
    if resource == MACHINE and not announced:
        how = "start one with --nthreads 1 --resources machine=1"
        return f"none of {len(there)} has machine=1: {how}"
    return f"none of {announced or len(there)} is on a machine like that of the earlier records"
