"""Tasks of a cluster's worker: it unpacks the files, builds the environments, and measures.

The functions run in a Dask worker, in a checkout of this project. Nothing of the worker's own
variables reaches a measured process (`bench.environments.variables`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout
from packaging.utils import parse_wheel_filename

from bench.environments.builds import Built, build, default_cache
from bench.environments.request import Request
from bench.environments.scratch import make_private
from bench.measure.blocks import MeasuredBlock, measure_blocks
from bench.measure.processes import Interpreter, interpreter_of, private_folder
from bench.measure.seeds import TrainedSeed, train_seeds
from bench.measure.workers import Bench, bench_here
from bench.records.blocks import BlockTask
from bench.records.trainings import SeedTask
from lenet5.devices import CPU, Device, read_device
from lenet5.errors import InputError
from lenet5.locks import locked
from lenet5.run_directory import writing, written_whole

_HASH = " @ sha256:"
_OWN = "."  # the interpreter of the process
BUSY_SECONDS = 3600.0
"""Longest wait for another measurement on a machine."""


@dataclass(frozen=True)
class Order:
    """An environment to build on a worker, exactly as on the client.

    Attributes:
        text: request, as given.
        interpreter: existing interpreter, or `.` for the worker's own; empty for packages.
        settings: variables of the request, sorted.
        lock: `name==version` of every distribution, with the SHA-256 of local wheels.
        wheels: SHA-256 and file name of each local wheel, sorted.
        left_out: overrides of the request that leave out packages.
        python_version: such as `3.11.7`.
    """

    text: str
    interpreter: str
    settings: tuple[tuple[str, str], ...]
    lock: tuple[str, ...]
    wheels: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]
    python_version: str


def order_of(built: Built) -> tuple[Order, dict[str, Path]]:
    """Returns an environment as an order, and its local wheels by their SHA-256."""
    request = built.request
    hashes = dict(entry.split(_HASH) for entry in built.lock if _HASH in entry)
    wheels: dict[str, Path] = {}
    words = (*request.requirements, *request.overrides)
    for path in (Path(word) for word in words if word.endswith(".whl")):
        name, version, *_ = parse_wheel_filename(path.name)
        wheels[hashes[f"{name}=={version}"]] = path
    own = request.interpreter == Path(sys.executable)
    order = Order(
        text=request.text,
        interpreter=_OWN if own else str(request.interpreter or ""),
        settings=tuple(sorted(request.settings.items())),
        lock=built.lock,
        wheels=tuple(sorted((sha, path.name) for sha, path in wheels.items())),
        left_out=tuple(word for word in request.overrides if word.endswith("== 'never'")),
        python_version=built.python_version,
    )
    return order, wheels


def packed(folder: Path) -> bytes:
    """Returns a folder as an archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for path in sorted(folder.rglob("*")):
            writer.write(path, path.relative_to(folder))
    return archive.getvalue()


def measure_block(
    task: BlockTask,
    bench: Bench,
    orders: Mapping[int, Order],
    wheels: Mapping[str, bytes],
    archive: bytes,
    wait_seconds: float,
    device: str = CPU.name,
) -> list[MeasuredBlock]:
    """Measures a block on this machine, alone among this user's workers.

    Args:
        task: task of `measure_blocks`.
        bench: settings of the client; folder and cores are this machine's own.
        orders: environments by place.
        wheels: local wheels by their SHA-256.
        archive: prepared folder, `packed`.
        wait_seconds: longest wait for another measurement on this machine.
        device: device of the workers, read in this machine's environment.

    Raises:
        InputError: the machine stays busy or lacks the device, an environment differs, or the disk
            is full.
        EnvironmentProblem: an environment cannot be built here.
    """
    chosen = read_device(device, os.environ)
    sides = _interpreters(orders, wheels, chosen)
    with only_measurer(wait_seconds), _unpacked(archive) as folder:
        here = bench_here(
            folder,
            threads=bench.threads,
            pair_seconds=bench.pair_seconds,
            limits=bench.limits,
            call_steps=bench.call_steps,
            device=chosen,
        )
        # The worker's other threads avoid the core shared by both sides.
        with every_thread_on(here.start_cores[1]):
            return [*measure_blocks([task], here, sides)]


def train_seed(
    task: SeedTask,
    orders: Mapping[int, Order],
    wheels: Mapping[str, bytes],
    archive: bytes,
    device: str = CPU.name,
) -> list[TrainedSeed]:
    """Trains a seed in a process with one thread; arguments and errors as for `measure_block`."""
    chosen = read_device(device, os.environ)
    sides = _interpreters({task.place: orders[task.place]}, wheels, chosen)
    with _unpacked(archive) as folder:
        return [*train_seeds([task], sides, folder, processes=1)]


def _interpreters(
    orders: Mapping[int, Order], wheels: Mapping[str, bytes], device: Device
) -> dict[int, Interpreter]:
    for order in orders.values():
        for sha, name in order.wheels:
            _keep_wheel(sha, name, wheels[sha])
    return {place: interpreter_of(_built(order), device) for place, order in orders.items()}


def _keep_wheel(sha: str, name: str, content: bytes) -> None:
    """Writes a wheel to the cache, under its SHA-256, unless it is there."""
    path = _place_of(sha, name)
    make_private(default_cache(os.environ).absolute())
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock"), print, f"{name}: another task writes it, waiting"):
        if path.exists():
            return
        if hashlib.sha256(content).hexdigest() != sha:
            raise InputError(f"{name}: arrived with another SHA-256 than {sha}")
        with written_whole(path) as partial:
            partial.write_bytes(content)


def _place_of(sha: str, name: str) -> Path:
    return default_cache(os.environ) / "wheels" / sha / name


@cache  # otherwise each task would import TensorFlow once more
def _built(order: Order) -> Built:
    """Builds an environment from the client's lock.

    Raises:
        InputError: the result differs from the client's environment.
        EnvironmentProblem: it cannot be built.
    """
    pins = [entry for entry in order.lock if _HASH not in entry]
    wheels = [str(_place_of(*wheel)) for wheel in order.wheels]
    interpreter = Path(sys.executable if order.interpreter == _OWN else order.interpreter)
    request = Request(
        order.text,
        () if order.interpreter else (*pins, *wheels),
        interpreter if order.interpreter else None,
        dict(order.settings),
        () if order.interpreter else (*pins, *wheels, *order.left_out),  # they hold in any case
    )
    built = build(request, default_cache(os.environ), say=print)
    for what, ours, theirs in (
        ("Python", built.python_version, order.python_version),
        ("packages", built.lock, order.lock),
    ):
        if ours != theirs:
            raise InputError(f"{order.text}: other {what} than on the client")
    return built


@contextlib.contextmanager
def _unpacked(archive: bytes) -> Iterator[Path]:
    with private_folder() as folder:
        with writing(folder), zipfile.ZipFile(io.BytesIO(archive)) as files:
            files.extractall(folder)
        yield folder


@contextlib.contextmanager
def only_measurer(wait_seconds: float) -> Iterator[None]:
    """Holds this machine's lock; it ends with the process.

    Raises:
        InputError: another measurement holds it for longer than `wait_seconds`.
    """
    path = Path(tempfile.gettempdir()) / f"lenet5-bench-machine-{os.getuid()}.lock"
    lock = FileLock(path)
    with writing(path):
        try:
            lock.acquire(timeout=wait_seconds)
        except Timeout:
            told = f"another measurement keeps this machine busy for more than {wait_seconds:g} s"
            raise InputError(f"{path}: {told}") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def every_thread_on(cores: Sequence[int]) -> Iterator[None]:
    """Pins all threads of this process to these cores; without cores, none."""
    if not cores:
        yield
        return
    usual = os.sched_getaffinity(0)
    before = {thread: os.sched_getaffinity(thread) for thread in _threads()}
    _pin({thread: {*cores} for thread in before})
    try:
        yield
    finally:
        _pin({thread: before.get(thread, usual) for thread in _threads()})


def _threads() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/task")]


def _pin(places: Mapping[int, set[int]]) -> None:
    for thread, cores in places.items():
        with contextlib.suppress(ProcessLookupError):  # the thread has ended
            os.sched_setaffinity(thread, cores)
