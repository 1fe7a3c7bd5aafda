"""Worker without TensorFlow, with simulated times and faults.

`stub_python` writes an interpreter that runs this module instead of `bench.worker.main`. Settings
control the simulation:

TF_STUB_RATIO  factor on the default times and memory; default: 1
TF_STUB_FAULT  `<command> <workload or -> <fault>`; faults: crash, hang, raise, rubbish, nan, half,
               busy (uses 0.2 s of CPU and reports its wall time), late (busy, and another 0.1 s
               of CPU before the answer), slow (computes without end), stop (stops itself), kill,
               exit, memory, cpus (refuses a GPU), silent (computes on the CPU in place of a
               GPU), and the answers of `RUBBISH`;
               `_-_` replaces ` - `, since requirement strings have no spaces
TF_STUB_PAUSE  seconds before each answer; default: 0
TF_STUB_EPOCHS number of epochs of the trainings with the fault; default: all trainings
TF_STUB_MIB    memory in MiB; default: 300
TF_STUB_LOSS   errors of its trainings above the default 150 of 10,000 images; default: 0
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import socket
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

SECONDS_PER_STEP = 0.01
LOSSES = [2.3 - 0.01 * step for step in range(20)]
FOR_CPUS = (
    "--device gpu:0: this TensorFlow is built for CPUs only: pip install 'tensorflow[and-cuda]'"
)
GPU = {
    "device": "gpu:0",
    "gpu": "Stand-in",
    "compute_capability": "9.0",
    "cuda": "12.5",
    "cudnn": "9",
    "tf32": True,
    "deterministic_ops": False,
}
"""Versions reported by a worker that is started on a GPU."""
RUBBISH: dict[str, bytes] = {
    "rubbish": b"rubbish\n",
    "list": b"[1, 2]\n",
    "number": b"7\n",
    "null": b"null\n",
    "fewer": b"{}\n",
    "text": b'{"value": "soon"}\n',
    "negative": b'{"value": -1.0, "start": 0, "end": 1, "cpu_seconds": 0, "loss": 0, '
    b'"idle_cpu_seconds": 0, "check": ["x"]}\n',
    "endless": b'{"value": 1e400, "start": 0, "end": 1, "cpu_seconds": 0, "loss": 0, '
    b'"idle_cpu_seconds": 0, "check": 7}\n',
    "binary": bytes(range(128, 256)) + b"\n",
    "error": b'{"error": ["no", "text"]}\n',
}
"""Answers that no command expects."""


def stub_python(folder: Path) -> Path:
    """Writes a Python interpreter with this worker and an importable `tensorflow`."""
    path = folder / "stub-python"
    packages = folder / "packages"
    (packages / "tensorflow").mkdir(parents=True, exist_ok=True)
    (packages / "tensorflow" / "__init__.py").write_text("class keras:\n    layers = None\n")
    metadata = packages / "tensorflow-9.9.0.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorflow\nVersion: 9.9.0\n")
    path.write_text(
        textwrap.dedent(
            f"""\
            #!/bin/sh
            case "$3" in
              *bench.worker*) exec "{sys.executable}" -I -S "{__file__}" "$5" ;;
              *) export PYTHONPATH="{packages}"; exec "{sys.executable}" -S "$2" "$3" ;;
            esac
            """
        )
    )
    path.chmod(0o755)
    return path


def main() -> None:
    """Answers commands as `bench.worker.main` does."""
    order = os.environ.get("TF_STUB_FAULT", "").replace("_-_", " - ").split()
    command_with_fault, workload, what = [*order, *3 * [""]][:3]
    ratio = float(os.environ.get("TF_STUB_RATIO", "1"))
    only = os.environ.get("TF_STUB_EPOCHS", "")
    pause = float(os.environ.get("TF_STUB_PAUSE", "0"))
    print("a stray print", flush=True)
    channel = socket.socket(fileno=int(sys.argv[1]))
    with channel.makefile("r") as lines:
        for line in lines:
            command = json.loads(line)
            fault = ""
            epochs = str(command.get("recipe", {}).get("epochs"))
            meant = workload in ("-", command.get("workload")) and only in ("", epochs)
            if command["do"] == command_with_fault and meant:
                fault = what
            time.sleep(pause)
            if fault == "flood":
                while True:
                    channel.sendall(b"x" * 2**20)
            if fault == "part":
                channel.sendall(b'{"value": 0.0')
                signal.pause()
            answer = _answer(command, ratio, fault)
            channel.sendall(RUBBISH.get(fault) or json.dumps(answer).encode() + b"\n")


def _answer(command: dict[str, Any], ratio: float, fault: str) -> dict[str, Any]:
    if fault == "crash":
        print("Fatal: the sky has fallen", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "hang":
        signal.pause()
    if fault == "slow":
        _burn(3600)
    if fault in ("stop", "kill"):
        os.kill(os.getpid(), signal.SIGSTOP if fault == "stop" else signal.SIGKILL)
    if fault == "exit":
        print("out of ideas", file=sys.stderr, flush=True)
        sys.exit(3)
    if fault == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))
        try:
            bytearray(2**30)
        except MemoryError as error:
            return {"error": f"{type(error).__name__}", "idle_cpu_seconds": 0.0}
    if fault in ("raise", "cpus"):
        told = "ValueError: no such op" if fault == "raise" else f"InputError: {FOR_CPUS}"
        return {"error": told, "idle_cpu_seconds": 0.0}
    value = ratio * SECONDS_PER_STEP * command.get("steps", 1)
    mebibytes = float(os.environ.get("TF_STUB_MIB", "300"))
    value = ratio * mebibytes if "memory" in command["do"] else value
    start, end, cpu_seconds = 0.0, value, value  # in the past: contains no pause
    if fault in ("busy", "late"):
        start = time.perf_counter()
        cpu_seconds = _burn(0.2)
        end = time.perf_counter()
        value = end - start
    if fault == "late":
        _burn(0.1)
    losses = [math.nan if fault == "nan" else loss for loss in LOSSES]
    scheduling = "default" if command.get("threads") == 1 else "of many threads"
    versions: dict[str, Any] = {"tensorflow": "9.9.0", "scheduling": scheduling}
    if command.get("device") == "gpu" and fault != "silent":
        versions |= {**GPU, "shown": os.environ["CUDA_VISIBLE_DEVICES"]}
    answers: dict[str, dict[str, Any]] = {
        "start": {"versions": versions},
        "prepare": {"check": losses[::2] if fault == "half" else losses},
        "growth": {"value": 0.0, "threads": 12},
    }
    if command["do"] == "train":
        wrong = 150 + command["seed"] * 7 % 11 + round(float(os.environ.get("TF_STUB_LOSS", "0")))
        answers["train"] = {"seed": command["seed"], "images": 10_000, "wrong": wrong}
    timed = {"value": value, "start": start, "end": end, "cpu_seconds": cpu_seconds, "loss": 0.5}
    return {**answers.get(command["do"], timed), "idle_cpu_seconds": 0.0}


def _burn(seconds: float) -> float:
    start = time.process_time()
    while (used := time.process_time() - start) < seconds:
        pass
    return used


if __name__ == "__main__":
    main()
