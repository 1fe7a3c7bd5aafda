"""Blocks and seeds on a Dask cluster: a real scheduler and workers on loopback addresses."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from bench.environments.builds import Built, build
from bench.environments.interpreters import packages_in
from bench.environments.request import parse_request
from bench.measure import machine
from bench.measure.blocks import measure_blocks
from bench.measure.cluster import tasks as on_worker
from bench.measure.cluster.executor import Cluster
from bench.measure.cluster.roster import CORE, MACHINE
from bench.measure.processes import interpreter_of
from bench.measure.seeds import train_seeds
from bench.measure.worker_files import prepare_folder, prepare_training_folder
from bench.measure.workers import BASE, Bench, Limits
from bench.records.blocks import BlockTask
from bench.records.catalogue import WORKLOADS
from bench.records.trainings import SeedTask, Trained
from lenet5.data import Dataset, Subset
from lenet5.errors import InputError
from lenet5.recipes import find_recipe
from tests.environments.wheels import write_wheel
from tests.measure.dask import HOSTS, ON_MACHINE, StartWorker, measuring, scheduler, wait_until
from tests.measure.stub_worker import stub_python

LOOP = "train_step[loop,b128]"
BLACK = Subset(np.zeros((200, 28, 28, 1), np.uint8), np.zeros(200, np.uint8))
RECIPE = find_recipe("fast").with_overrides({"epochs": 1})
SLOW = "TF_STUB_PAUSE=0.1"


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, StartWorker]]:
    with scheduler(tmp_path_factory.mktemp("dask")) as started:
        yield started


@pytest.fixture(scope="module")
def machines(dask: tuple[str, StartWorker]) -> str:
    """Returns the address of a cluster with two workers that measure blocks, as on two hosts."""
    address, start = dask
    for host in HOSTS:
        start(host, *ON_MACHINE, "--no-nanny")
    return address


@pytest.fixture
def own_dask(tmp_path: Path) -> Iterator[tuple[str, StartWorker]]:
    """A scheduler for tests that kill its workers."""
    with scheduler(tmp_path) as started:
        yield started


def built_stub(folder: Path, *settings: str) -> Built:
    request = parse_request(" ".join((f"python:{stub_python(folder)}", *settings)))
    return build(request, folder / "own-cache", say=lambda _: None)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    folder = tmp_path / "prepared"
    folder.mkdir()
    prepare_folder(folder, BLACK)
    limits = Limits(start_seconds=20, prepare_seconds=20, slice_seconds=5)
    return Bench(folder, (), ((), ()), (), pair_seconds=0, limits=limits)


@pytest.fixture
def training(tmp_path: Path) -> Path:
    folder = tmp_path / "training"
    folder.mkdir()
    prepare_training_folder(folder, Dataset("mnist", BLACK, BLACK, BLACK))
    return folder


def blocks(count: int) -> list[BlockTask]:
    specs = {0: [WORKLOADS[LOOP]]}
    return [BlockTask(specs, {0: number}, turn=number) for number in range(count)]


def test_a_block_on_the_cluster_has_the_same_record_as_here(
    machines: str, bench: Bench, tmp_path: Path
) -> None:
    sides = {BASE: built_stub(tmp_path), 0: built_stub(tmp_path, "TF_STUB_RATIO=1.5")}
    here = measure_blocks(blocks(2), bench, {p: interpreter_of(b) for p, b in sides.items()})
    with Cluster(machines) as cluster:
        assert cluster.machine_for(MACHINE) == machine.describe()
        there = [*cluster.measure_blocks(blocks(2), bench, sides)]
    expected = [(m.block.number, m.block.first, m.block.samples, m.said, m.steps) for m in here]
    found = [(m.block.number, m.block.first, m.block.samples, m.said, m.steps) for m in there]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_a_block_of_a_killed_worker_runs_elsewhere_and_counts_once(
    own_dask: tuple[str, StartWorker], bench: Bench, tmp_path: Path
) -> None:
    """No measuring process survives the killed worker."""
    address, start = own_dask
    workers = [start(host, *ON_MACHINE, "--no-nanny") for host in HOSTS]
    sides = {BASE: built_stub(tmp_path, SLOW), 0: built_stub(tmp_path, SLOW)}
    killed: list[psutil.Process] = []
    orphans: list[psutil.Process] = []

    def kill() -> None:
        wait_until(lambda: any(len(measuring(worker)) == 2 for worker in workers))
        (victim,) = (worker for worker in workers if measuring(worker))
        orphans.extend(measuring(victim))
        victim.send_signal(signal.SIGKILL)
        killed.append(victim)

    with Cluster(address) as cluster:
        cluster.machine_for(MACHINE)
        killer = threading.Thread(target=kill)
        killer.start()
        found = [*cluster.measure_blocks(blocks(2), bench, sides)]
        killer.join()
    assert [measured.block.number for measured in sorted(found, key=_number)] == [0, 1]
    assert all(measured.block.samples and not measured.block.failures for measured in found)
    assert (len(killed), len(orphans)) == (1, 2)
    wait_until(lambda: not any(map(_lives, orphans)), seconds=5)


def test_a_restarted_worker_takes_over_the_lost_task(
    own_dask: tuple[str, StartWorker], bench: Bench, tmp_path: Path
) -> None:
    """The only worker is killed; its nanny starts another, at another address."""
    address, start = own_dask
    nanny = start(HOSTS[0], *ON_MACHINE)
    sides = {BASE: built_stub(tmp_path, SLOW), 0: built_stub(tmp_path, SLOW)}

    def kill() -> None:
        wait_until(lambda: len(measuring(nanny)) == 2)
        psutil.Process(measuring(nanny)[0].ppid()).send_signal(signal.SIGKILL)

    with Cluster(address) as cluster:
        cluster.machine_for(MACHINE)
        killer = threading.Thread(target=kill)
        killer.start()
        (measured,) = cluster.measure_blocks(blocks(1), bench, sides)
        killer.join()
    assert measured.block.samples


def _lives(process: psutil.Process) -> bool:
    """Whether a process runs; an ended one may wait for its new parent."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _number(measured: Any) -> int:
    return int(measured.block.number)


def seeds(count: int, place: int = 0) -> list[SeedTask]:
    return [SeedTask(place, seed, RECIPE, "graph") for seed in range(count)]


def test_seeds_on_the_cluster_equal_those_trained_here(
    machines: str, training: Path, tmp_path: Path
) -> None:
    sides = {0: built_stub(tmp_path), 1: built_stub(tmp_path, "TF_STUB_LOSS=9")}
    tasks = [*seeds(3), *seeds(3, place=1)]
    here = {place: interpreter_of(built) for place, built in sides.items()}
    expected = [*train_seeds(tasks, here, training, processes=2)]
    with Cluster(machines) as cluster:
        cluster.machine_for(CORE)
        found = [*cluster.train_seeds(tasks, sides, training)]
    timeless = [
        [str(replace(record, seconds=0.0)) for record in each] for each in (found, expected)
    ]
    assert sorted(timeless[0]) == sorted(timeless[1])


def test_after_a_crash_a_place_gets_no_further_seeds(
    machines: str, training: Path, tmp_path: Path
) -> None:
    sides = {0: built_stub(tmp_path), 1: built_stub(tmp_path, "TF_STUB_FAULT=train_-_crash")}
    with Cluster(machines) as cluster:
        cluster.machine_for(CORE)
        found = [*cluster.train_seeds([*seeds(6, place=1), *seeds(6)], sides, training)]
    crashed = [record for record in found if record.task.place == 1]
    assert all(record.trained.crashed for record in crashed)
    assert len(found) - len(crashed) == 6
    assert 1 <= len(crashed) <= 2


def test_a_training_on_the_cluster_has_the_same_bits_as_here(
    machines: str, digits: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    prepare_training_folder(folder, digits)
    request = parse_request(".")
    version, lock = packages_in(Path(sys.executable), request.settings, tmp_path)
    this = Built(request, Path(sys.executable), lock, version)
    (here,) = train_seeds(seeds(1), {0: interpreter_of(this)}, folder, processes=1)
    with Cluster(machines) as cluster:
        cluster.machine_for(CORE)
        (there,) = cluster.train_seeds(seeds(1), {0: this}, folder)
    assert here.trained.wrong is not None
    assert _bits(there.trained) == _bits(here.trained)


def _bits(trained: Trained) -> Mapping[str, Any]:
    return asdict(replace(trained, train_seconds=0.0))


def test_a_resource_that_no_worker_has_is_an_error_after_the_stated_wait(
    own_dask: tuple[str, StartWorker],
) -> None:
    address, start = own_dask
    none = r"no worker within 0\.3 s: the scheduler has none"
    with Cluster(address, wait_seconds=0.3) as cluster, pytest.raises(InputError, match=none):
        cluster.machine_for(MACHINE)
    start(HOSTS[0], "--nthreads", "2", "--no-nanny")
    with Cluster(address) as cluster:
        cluster.machine_for(CORE)  # waits for the worker
    with Cluster(address, wait_seconds=0.3) as cluster:
        with pytest.raises(InputError, match=r"no worker within 0\.3 s: none of 1 has machine=1"):
            cluster.machine_for(MACHINE)
        with pytest.raises(InputError, match=r"none of 1 is on a machine like"):
            cluster.machine_for(CORE, {"cpu": "another"})


def test_a_scheduler_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^--cluster 127\.0\.0\.1:1: no scheduler answers"):
        Cluster("127.0.0.1:1", wait_seconds=0.3)


def test_a_lost_scheduler_is_an_error(
    own_dask: tuple[str, StartWorker], bench: Bench, tmp_path: Path
) -> None:
    address, start = own_dask
    worker = start(HOSTS[0], *ON_MACHINE, "--no-nanny")
    sides = {BASE: built_stub(tmp_path, SLOW), 0: built_stub(tmp_path, SLOW)}
    file = str(tmp_path / "scheduler.json")
    (own,) = (child for child in psutil.Process().children() if file in child.cmdline())

    def kill() -> None:
        wait_until(lambda: len(measuring(worker)) == 2)
        own.send_signal(signal.SIGKILL)

    with Cluster(address, wait_seconds=5) as cluster:
        cluster.machine_for(MACHINE)
        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(InputError, match=r"^--cluster .*(has lost the tasks|is lost)"):
            [*cluster.measure_blocks(blocks(1), bench, sides)]
        killer.join()


def test_a_worker_outside_of_a_checkout_is_an_error(own_dask: tuple[str, StartWorker]) -> None:
    address, start = own_dask
    start(HOSTS[0], *ON_MACHINE, "--no-nanny", PYTHONPATH="")
    with Cluster(address) as cluster, pytest.raises(InputError, match="in a checkout of this"):
        cluster.machine_for(MACHINE)


def test_a_cluster_without_a_gpu_is_an_error_at_once(own_dask: tuple[str, StartWorker]) -> None:
    """The worker's own environment decides, not the client's."""
    address, start = own_dask
    start(HOSTS[0], *ON_MACHINE, "--no-nanny", CUDA_VISIBLE_DEVICES="-1")
    told = (
        r"^--cluster tcp://[0-9.:]+: worker tcp://127\.0\.0\.2:[0-9]+: "
        "--device gpu: CUDA_VISIBLE_DEVICES='-1' shows 0 GPUs$"
    )
    with Cluster(address, device="gpu") as cluster:
        for resource in (MACHINE, CORE):
            with pytest.raises(InputError, match=told):
                cluster.machine_for(resource)


def test_a_worker_trains_and_measures_on_the_device_of_its_own_environment(
    training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tasks run in this process as they run in a worker."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    order, _ = on_worker.order_of(built_stub(tmp_path))
    orders = {BASE: order, 0: order}
    (done,) = on_worker.train_seed(seeds(1)[0], orders, {}, on_worker.packed(training), "gpu")
    assert done.said["device"] == "gpu:0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(InputError, match="CUDA_VISIBLE_DEVICES='-1' shows 0 GPUs"):
        on_worker.train_seed(seeds(1)[0], orders, {}, b"", "gpu")


def test_an_environment_that_differs_on_the_worker_is_an_error(
    machines: str, training: Path, tmp_path: Path
) -> None:
    built = replace(built_stub(tmp_path), lock=("tensorflow==9.9.1",))
    with Cluster(machines) as cluster:
        cluster.machine_for(CORE)
        with pytest.raises(InputError, match="other packages than on the client"):
            [*cluster.train_seeds(seeds(1), {0: built}, training)]


def test_a_local_wheel_travels_along(
    own_dask: tuple[str, StartWorker], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker builds from its own copy; the interpreter of the stub replaces the measurement."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    address, start = own_dask
    wheel = write_wheel(tmp_path / "wheels")
    built = build(parse_request(str(wheel)), tmp_path / "own-cache", say=lambda _: None)
    start(HOSTS[0], *ON_MACHINE, "--no-nanny", UV_OFFLINE="1")
    with Cluster(address) as cluster:
        cluster.machine_for(MACHINE)
        (measured,) = cluster.measure_blocks(blocks(1), bench, {BASE: built, 0: built})
    sha = hashlib.sha256(wheel.read_bytes()).hexdigest()
    copies = [*(tmp_path / "cache").glob(f"lenet5-bench/wheels/{sha}/{wheel.name}")]
    assert [copy.read_bytes() for copy in copies] == [wheel.read_bytes()]
    assert measured.block.failures  # it holds no TensorFlow
    assert [*(tmp_path / "cache").glob("lenet5-bench/environments/*/complete.json")]


def test_a_damaged_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"mine-1-py3-none-any\.whl: arrived with another SHA-256"):
        on_worker._keep_wheel("0" * 64, "mine-1-py3-none-any.whl", b"rubbish")
    assert not [*tmp_path.rglob("*.whl")]


def test_a_second_measurement_on_a_machine_waits_then_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    busy = pytest.raises(InputError, match=r"busy for more than 0\.1 s")
    with on_worker.only_measurer(0), busy, on_worker.only_measurer(0.1):
        pass
    with on_worker.only_measurer(0):
        pass


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pins threads to cores")
def test_every_thread_of_a_worker_leaves_the_measuring_core() -> None:
    """Threads that start meanwhile do too; afterwards all may run anywhere again."""
    usual, first = os.sched_getaffinity(0), min(os.sched_getaffinity(0))
    seen: list[set[int]] = []
    ended, asked = threading.Event(), threading.Event()

    def other() -> None:
        asked.wait(10)
        seen.append(os.sched_getaffinity(0))
        ended.wait(10)
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=other)
    thread.start()
    with on_worker.every_thread_on([first]):
        asked.set()
        wait_until(lambda: len(seen) == 1)
    ended.set()
    thread.join()
    assert seen == [{first}, usual]
    assert os.sched_getaffinity(0) == usual


def test_measured_processes_have_the_same_variables_here_and_under_dask(
    own_dask: tuple[str, StartWorker], bench: Bench, tmp_path: Path
) -> None:
    """Dask's nanny sets variables of its own, which would change what is measured."""
    address, start = own_dask
    nanny = start(HOSTS[0], *ON_MACHINE)
    sides = {BASE: built_stub(tmp_path, SLOW), 0: built_stub(tmp_path, SLOW)}
    seen: list[Mapping[str, Any]] = []

    def are_up(processes: Sequence[psutil.Process]) -> bool:
        """Whether Python has started in both: it ignores SIGPIPE."""
        return len(processes) == 2 and all(_is_ignored(p, signal.SIGPIPE) for p in processes)

    def watch(parent: psutil.Process) -> None:
        wait_until(lambda: are_up(measuring(parent)))
        seen.extend(_inherited(process) for process in measuring(parent))

    for parent in (psutil.Process(), nanny):
        watcher = threading.Thread(target=watch, args=(parent,))
        watcher.start()
        if parent == nanny:
            with Cluster(address) as cluster:
                cluster.machine_for(MACHINE)
                [*cluster.measure_blocks(blocks(1), bench, sides)]
            dask = _variables(measuring_parent(nanny))
            assert dask["MALLOC_TRIM_THRESHOLD_"] == "65536"
            assert dask["OMP_NUM_THREADS"] == "1"
        else:
            interpreters = {place: interpreter_of(built) for place, built in sides.items()}
            [*measure_blocks(blocks(1), bench, interpreters)]
        watcher.join()
    assert len(seen) == 4
    assert seen == [seen[0]] * 4


def measuring_parent(nanny: psutil.Process) -> psutil.Process:
    """Returns the worker's process below its nanny."""
    return next(c for c in nanny.children() if "MALLOC_TRIM_THRESHOLD_" in _variables(c))


def _variables(process: psutil.Process) -> dict[str, str]:
    return dict(process.environ())


def _inherited(process: psutil.Process) -> dict[str, Any]:
    """Returns what a process inherits, with its private folder as `FOLDER`."""
    variables = _variables(process)
    folder = str(Path(variables["HOME"]).parent)
    return {
        "variables": {name: text.replace(folder, "FOLDER") for name, text in variables.items()},
        "nice": process.nice(),
        "limits": [process.rlimit(kind) for kind in _limits()],
        "ignored signals": _status(process.pid, "SigIgn"),
        "blocked signals": _status(process.pid, "SigBlk"),
    }


def _limits() -> Sequence[int]:
    names = ("AS", "DATA", "STACK", "MEMLOCK", "NOFILE", "NPROC", "RTPRIO", "CORE")
    return [getattr(psutil, f"RLIMIT_{name}") for name in names]


def _is_ignored(process: psutil.Process, number: signal.Signals) -> bool:
    return bool(int(_status(process.pid, "SigIgn"), 16) >> (number - 1) & 1)


def _status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


def test_an_order_has_the_lock_in_place_of_what_was_asked_for(tmp_path: Path) -> None:
    """What was asked for may resolve to other packages on another day."""
    tensorflow = write_wheel(tmp_path)
    keras = write_wheel(tmp_path, distribution="keras", version="3.9.0", package="keras")
    text = f"{tensorflow} override:{keras} without:h5py override:numpy<2 TF_X=1"
    shas = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tensorflow, keras)}
    lock = (
        *(f"keras==3.9.0 @ sha256:{shas[keras]}", "numpy==1.26.4"),
        f"tensorflow==2.21.0 @ sha256:{shas[tensorflow]}",
    )
    built = Built(parse_request(text), Path("python"), lock, "3.11.7")
    order, wheels = on_worker.order_of(built)
    assert wheels == {shas[path]: path for path in (tensorflow, keras)}
    assert order.wheels == tuple(sorted((sha, path.name) for path, sha in shas.items()))
    assert (order.lock, order.left_out) == (lock, ("h5py ; sys_platform == 'never'",))
    assert (order.interpreter, order.settings) == ("", (("TF_X", "1"),))
    this = Built(parse_request("."), Path(sys.executable), lock, "3.11.7")
    assert on_worker.order_of(this)[0].interpreter == "."  # the worker's own Python
