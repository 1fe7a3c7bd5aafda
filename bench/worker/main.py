"""One side of a comparison: a process that runs slices on command, in the environment measured.

It needs NumPy, TensorFlow and the files beside it, and speaks JSON lines over a socket that it was
given, so that stray prints do no harm. Every answer carries the CPU that the process used since
its last one, while it should have been idle. It ends when the socket closes or its parent dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import platform
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
_PR_SET_PDEATHSIG = 1
_STATUS = Path("/proc/self/status")


class NotMeasured(Exception):  # noqa: N818 - a finding about the system, no bug
    """This system does not tell what was asked for."""


def main(descriptor: int, parent: int) -> None:
    """Answers commands until the socket closes.

    Args:
        descriptor: of the socket.
        parent: process that this one must not outlive.
    """
    _die_with(parent)
    channel = socket.socket(fileno=descriptor)
    side = Side(Path(__file__).parents[2])
    with channel, channel.makefile("r", encoding="utf-8") as lines:
        cpu_at_answer = time.process_time()
        for line in lines:
            idle_cpu_seconds = time.process_time() - cpu_at_answer
            answer = _answer(side, json.loads(line))
            answer["idle_cpu_seconds"] = idle_cpu_seconds
            channel.sendall(json.dumps(answer).encode() + b"\n")
            cpu_at_answer = time.process_time()


class Side:
    """What a worker holds between commands: the images, and the workloads that were prepared."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workloads: dict[str, Any] = {}

    def start(self, cores: list[int], threads: int) -> Answer:
        """Pins the process, imports TensorFlow, and tells what it runs with."""
        self.move(cores)
        policy = _schedule_apart(pinned=len(cores) == 1)
        from lenet5 import runtime

        runtime.start_tensorflow(threads)
        from bench.worker import workloads  # noqa: F401 - so that `first_step` does not import it

        return {"versions": {**_versions(), "scheduling": policy}}

    def move(self, cores: list[int]) -> Answer:
        """Runs every thread of this process on these cores from now on."""
        if cores and hasattr(os, "sched_setaffinity"):
            for thread in _threads():
                os.sched_setaffinity(thread, cores)
        return {}

    def first_step(self) -> Answer:
        """Seconds to build, trace and do one step; must come before anything else is built."""
        from bench.worker import workloads

        subset = self._images(128)
        gc.collect()  # or Python's next one falls into it or not, as many objects as there are
        start = time.perf_counter()
        loss = workloads.loop(subset, 128).run(1)
        return {"value": time.perf_counter() - start, "loss": loss}

    def prepare(self, workload: str, builder: str, arguments: Mapping[str, Any]) -> Answer:
        """Builds a workload and gives its check figures."""
        from bench.worker import workloads

        count = 9_600 if builder == "original_fit" else None
        made = getattr(workloads, builder)(self._images(count), **arguments)
        self._workloads[workload] = made
        return {"check": made.check()}

    def slice(self, workload: str, steps: int) -> Answer:
        """Wall and CPU seconds of some steps, their start and end, and the loss reached."""
        run: Callable[[int], float] = self._workloads[workload].run
        cpu_start = time.process_time()
        start = time.perf_counter()  # the parent reads the same clock
        loss = run(steps)
        end = time.perf_counter()
        cpu_seconds = time.process_time() - cpu_start
        moments = {"start": start, "end": end}
        return {"value": end - start, "cpu_seconds": cpu_seconds, "loss": loss, **moments}

    def memory(self) -> Answer:
        """Most memory in MiB that the process ever held, after a fixed course of work."""
        from bench.worker import workloads

        subset = self._images(9_600)
        gc.collect()  # what importing left behind; else it may lie there until after the peak
        workloads.loop(subset, 128).run(75)
        workloads.fit(subset, 128).run(75)
        loss = workloads.predict(subset, 512).run(18)
        return {"value": _peak_mib(), "loss": loss}

    def train(self, recipe: Mapping[str, Any], seed: int, engine: str) -> Answer:
        """Trains a recipe from a seed with an engine, and answers the test images."""
        from bench.worker.training import train_seed

        return train_seed(self._folder, recipe, seed, engine)

    def numerics(self) -> Answer:
        """What TensorFlow computes, to be held against NumPy."""
        from bench.worker.numerics import compute

        return {"quantities": compute(self._folder)}

    def growth(self, calls: int) -> Answer:
        """MiB that the process grows by per call of `fit` and `evaluate`, and its threads.

        Raises:
            NotMeasured: the system tells only the most memory that a process ever held.
        """
        if not _STATUS.exists():
            raise NotMeasured("needs Linux's /proc")
        from bench.worker import workloads

        model, images, labels = workloads.compiled_with_batch(self._images(32))
        held = []
        for _ in range(2 * calls):
            model.fit(images, labels, epochs=1, verbose=0)
            model.evaluate(images, labels, verbose=0)
            held.append(_status_kib("VmRSS") / 1024)
        # The first half fills caches and pools.
        return {"value": (held[-1] - held[calls - 1]) / calls, "threads": _status_kib("Threads")}

    def _images(self, count: int | None) -> Any:
        import numpy as np

        from lenet5.data import Subset

        images, labels = (
            np.load(self._folder / f"{part}.npy", mmap_mode="r")[:count]
            for part in ("images", "labels")
        )
        return Subset(images, labels)


def _answer(side: Side, command: dict[str, Any]) -> Answer:
    try:
        answer: Answer = getattr(side, command.pop("do"))(**command)
    except NotMeasured as error:
        return {"error": f"not measured: {error}"}
    except Exception as error:  # whatever an environment raises is a finding, told to the parent
        told = [line for line in str(error).splitlines() if line.strip()]
        return {"error": f"{type(error).__name__}: {told[0] if told else ''}".rstrip(": ")}
    return answer


def _versions() -> dict[str, Any]:
    import numpy as np
    import tensorflow as tf

    from lenet5 import runtime

    try:
        from tensorflow.python.util import _pywrap_util_port as port

        onednn = bool(port.IsMklEnabled())
    except (ImportError, AttributeError):  # no public name for it
        onednn = None
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "tensorflow_git": tf.version.GIT_VERSION,
        "build": {key: str(value) for key, value in sorted(tf.sysconfig.get_build_info().items())},
        "keras": runtime.keras_version(),
        "keras_package": tf.keras.Model.__module__.split(".")[0],
        "numpy": np.__version__,
        "onednn": onednn,
        "threads": runtime.threads_in_use(),
    }


def _schedule_apart(*, pinned: bool) -> str:
    """Takes the measuring core for this process alone, where that is allowed.

    Threads of `fit` that hand work to each other on one core otherwise wait for the scheduler:
    with Linux 6.18, 300 steps took 2.6 s whatever they computed, and 1.6 s so.
    """
    if pinned and hasattr(os, "sched_setscheduler"):  # macOS names policies, but cannot set them
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
            return "round robin"
    return "default"


def _die_with(parent: int) -> None:
    """Asks Linux to kill this process with its parent; elsewhere the closed socket ends it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)


def _threads() -> list[int]:
    """Threads of this process; 0, which is the calling one, where the system does not tell them."""
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return [0]


def _peak_mib() -> float:
    """Most memory that this process ever held."""
    if _STATUS.exists():
        return _status_kib("VmHWM") / 1024
    # On Linux this would also be of the parent, as whose copy the process began.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, others KiB


def _status_kib(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"{_STATUS} has no {name}")
