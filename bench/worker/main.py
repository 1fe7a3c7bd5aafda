"""A worker for one side: a process that runs slices on command, in the measured environment.

It needs NumPy, TensorFlow and the files next to it. It exchanges JSON lines over an inherited
socket, so stray prints do no harm. Every answer reports the process's CPU seconds since the last
answer, when it should be idle. The worker ends when the socket closes or its parent dies.
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
from functools import partial
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
_PR_SET_PDEATHSIG = 1
_STATUS = Path("/proc/self/status")


class NotMeasured(Exception):  # noqa: N818 - a finding about the system, not a bug
    """The system does not report the requested figure."""


def main(descriptor: int, parent: int) -> None:
    """Answers commands until the socket closes.

    Args:
        descriptor: file descriptor of the socket.
        parent: ID of the parent process; the worker ends with it.
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
    """State of a worker between commands: the images, and the prepared workloads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_gpu = False
        self._wait: Callable[[], None] = lambda: None  # until the device has finished
        self._workloads: dict[str, Any] = {}

    def start(
        self,
        cores: list[int],
        threads: int,
        logical_cpus: int = 1,
        device: str = "cpu",
        tf32: bool = True,
    ) -> Answer:
        """Pins the process, imports TensorFlow for a device, and reports versions.

        Args:
            cores: cores of the process; empty: all.
            threads: number of TensorFlow threads.
            logical_cpus: number of logical devices to split the CPU into.
            device: device of `lenet5.devices.read_device`.
            tf32: whether a GPU may round products of float32 to TF32.
        """
        self.move(cores)
        policy = _schedule_apart(pinned=len(cores) == 1 and device == "cpu")
        from lenet5 import devices, runtime

        if logical_cpus > 1:
            _split_cpu(logical_cpus)
        chosen = devices.read_device(device, os.environ)
        runtime.start_tensorflow(threads, chosen)
        versions = {**_versions(), "scheduling": policy}
        self._is_gpu = chosen.is_gpu
        if chosen.is_gpu:
            devices.allow_tf32(allowed=tf32)
            versions |= devices.describe_device(chosen)
            self._wait = partial(devices.wait_for, chosen)
        from bench.worker import workloads  # noqa: F401 - imported before `first_step`

        return {"versions": versions}

    def move(self, cores: list[int]) -> Answer:
        """Pins every thread of this process to these cores."""
        if cores and hasattr(os, "sched_setaffinity"):
            for thread in _threads():
                os.sched_setaffinity(thread, cores)
        return {}

    def first_step(self) -> Answer:
        """Measures seconds to build, trace and run one step; must precede any other build."""
        from bench.worker import workloads

        subset = self._images(128)
        gc.collect()  # otherwise the timed part may include Python's next garbage collection
        start = time.perf_counter()
        loss = workloads.loop(subset, 128).run(1)
        self._wait()
        return {"value": time.perf_counter() - start, "loss": loss}

    def prepare(self, workload: str, builder: str, arguments: Mapping[str, Any]) -> Answer:
        """Builds a workload and returns its check figures."""
        from bench.worker import workloads

        count = 9_600 if builder == "original_fit" else None
        made = getattr(workloads, builder)(self._images(count), **arguments)
        self._workloads[workload] = made
        return {"check": made.check()}

    def slice(self, workload: str, steps: int) -> Answer:
        """Measures wall and CPU seconds of some steps, with their start, end and final loss."""
        run: Callable[[int], float] = self._workloads[workload].run
        cpu_start = time.process_time()
        start = time.perf_counter()  # the parent reads the same clock
        loss = run(steps)
        self._wait()
        end = time.perf_counter()
        cpu_seconds = time.process_time() - cpu_start
        moments = {"start": start, "end": end}
        return {"value": end - start, "cpu_seconds": cpu_seconds, "loss": loss, **moments}

    def memory(self) -> Answer:
        """Measures the process's peak memory in MiB, after a fixed sequence of work."""
        loss = self._work()
        return {"value": _peak_mib(), "loss": loss}

    def device_memory(self) -> Answer:
        """Measures the peak memory in MiB that TensorFlow used on the GPU in the same sequence.

        TensorFlow counts what it uses since the process's start, with cuDNN's workspaces. What its
        allocator holds in reserve does not count, so memory growth makes no difference.

        Raises:
            NotMeasured: the device is a CPU, for which TensorFlow does not count.
        """
        if not self._is_gpu:
            raise NotMeasured("needs a GPU")
        import tensorflow as tf

        loss = self._work()
        used = tf.config.experimental.get_memory_info("GPU:0")  # the only one that it sees
        return {"value": used["peak"] / 2**20, "loss": loss}

    def first_fit(self, *, jit_compile: bool) -> Answer:
        """Measures seconds to build a model and run the first 100 steps of `fit`, batch 128.

        It must precede any other build. On a GPU it includes the choice of cuDNN's algorithms.

        Args:
            jit_compile: whether XLA compiles the step.
        """
        from bench.worker import workloads

        subset = self._images(12_800)
        gc.collect()  # as in `first_step`
        start = time.perf_counter()
        loss = workloads.fit(subset, 128, jit_compile=jit_compile).run(100)
        self._wait()
        return {"value": time.perf_counter() - start, "loss": loss}

    def train(self, recipe: Mapping[str, Any], seed: int, engine: str) -> Answer:
        """Trains a recipe with a seed and an engine, and predicts the test images."""
        from bench.worker.training import train_seed

        return train_seed(self._folder, recipe, seed, engine)

    def numerics(self) -> Answer:
        """Computes the numerics problem in TensorFlow, for comparison with NumPy."""
        from bench.worker.numerics import compute, mode_in_force

        return {"quantities": compute(self._folder), **mode_in_force()}

    def growth(self, calls: int) -> Answer:
        """Measures growth in MiB per call of `fit` and `evaluate`, and counts threads.

        Raises:
            NotMeasured: the system reports only a process's peak memory.
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

    def _work(self) -> float:
        """Trains and predicts in a fixed sequence; returns a figure of the result.

        On a GPU without XLA, which Keras turns on there by itself: its compilation may take longer
        than all else, and its memory is not that of training.
        """
        from bench.worker import workloads

        without_xla = {"jit_compile": False} if self._is_gpu else {}
        subset = self._images(9_600)
        gc.collect()  # otherwise garbage of the imports may add to the peak
        workloads.loop(subset, 128).run(75)
        workloads.fit(subset, 128, **without_xla).run(75)
        figure: float = workloads.predict(subset, 512, **without_xla).run(18)
        self._wait()
        return figure

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
    except Exception as error:  # any exception in an environment is a finding for the parent
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
    except (ImportError, AttributeError):  # it has no public name
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


def _split_cpu(parts: int) -> None:
    """Configures logical CPU devices, which is not possible once TensorFlow has started."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    configurations = [tf.config.LogicalDeviceConfiguration() for _ in range(parts)]
    tf.config.set_logical_device_configuration(cpu, configurations)


def _schedule_apart(*, pinned: bool) -> str:
    """Reserves the measuring core for this process, if permitted; returns the scheduling policy.

    By default, threads of `fit` that exchange work on one core wait for the scheduler. With Linux
    6.18, 300 steps took 2.6 s by default, independent of their work, and 1.6 s in round robin.
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
        if os.getppid() != parent:  # it died before the call
            os._exit(1)


def _threads() -> list[int]:
    """Returns this process's threads; 0, the calling thread, if the system does not list them."""
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return [0]


def _peak_mib() -> float:
    """Returns the peak memory of this process in MiB."""
    if _STATUS.exists():
        return _status_kib("VmHWM") / 1024
    # On Linux this would include the parent's memory, since the process starts as its copy.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, others KiB


def _status_kib(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"{_STATUS} has no {name}")
