"""Worker that stands in for one on a GPU: no TensorFlow, no GPU, given answers and faults.

`stand_in_python` writes an interpreter that runs this module instead of `bench.worker.main`. The
file `stand-in.json` beside it holds `CONFIG`, changed by a test:

faults     by command, or by command and workload or `jit_compile`: `hang`, `crash`, a text that
           starts with `error: `, or fields that replace those of the answer
deviations relative deviation of the logits and gradients of the numerics problem, by `on`, `off`
           and `deterministic`; of the losses a hundredth; the truth of all is `TRUTH`
speeds     images per second by batch size
wrong      misclassified test images of a training
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "faults": {},
    "deviations": {"on": 9e-4, "off": 2e-7, "deterministic": 2e-7},
    "speeds": {"32": 12_278, "128": 52_738, "512": 200_276, "2048": 739_117},
    "wrong": 126,
}
"""The figures are those of the issue; nothing here has run on a GPU."""
TRUTH = [1.0, 2.0]
MODEL = "stand-in for an NVIDIA H200"
DRIVER = {"model": MODEL, "driver": "550.54.15", "memory_gib": 140, "power_limit_w": 700}
_VERSIONS = {
    "tensorflow": "9.9.0",
    "keras": "9.9.1",
    "python": platform.python_version(),  # as of the environment
    "numpy": "2.4.6",
    "scheduling": "default",
    "device": "gpu:0",
    "gpu": MODEL,
    "compute_capability": "9.0",
    "cuda": "12.5.1",
    "cudnn": "9",
}
_CONFIG_FILE = "stand-in.json"


def stand_in_python(folder: Path, **changes: Any) -> Path:
    """Writes a Python interpreter with this worker; `changes` are those of `CONFIG`."""
    from tests.measure import stub_worker  # pytest's process, not the worker's

    path = stub_worker.stub_python(folder)
    theirs, ours = f'"{stub_worker.__file__}" "$5"', f'"{__file__}" "$5" "{folder}"'
    text = path.read_text()
    assert theirs in text
    path.write_text(text.replace(theirs, ours))
    (folder / _CONFIG_FILE).write_text(json.dumps({**CONFIG, **changes}))
    return path


def main() -> None:
    """Answers commands as `bench.worker.main` does."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    config = json.loads(Path(sys.argv[2], _CONFIG_FILE).read_text())
    mode = {"tf32": True, "deterministic_ops": os.environ.get("TF_DETERMINISTIC_OPS") == "1"}
    with channel.makefile("r") as lines:
        for line in lines:
            command = json.loads(line)
            do = command["do"]
            mode["tf32"] = command.get("tf32", mode["tf32"])
            detail = command.get("workload", command.get("jit_compile"))
            faults = config["faults"]
            fault = faults.get(f"{do} {detail}", faults.get(do, {}))
            if fault == "hang":
                signal.pause()
            if fault == "crash":
                print("Fatal: CUDA_ERROR_ILLEGAL_ADDRESS", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
            answer = {"idle_cpu_seconds": 0.0, **_answer(command, config, mode)}
            if isinstance(fault, str):
                answer = {"error": fault.removeprefix("error: "), "idle_cpu_seconds": 0.0}
            else:
                answer.update(fault)
            channel.sendall(json.dumps(answer).encode() + b"\n")


def _answer(
    command: dict[str, Any], config: dict[str, Any], mode: dict[str, bool]
) -> dict[str, Any]:
    answers: dict[str, Callable[[], dict[str, Any]]] = {
        "start": lambda: {"versions": _VERSIONS},
        "prepare": lambda: {"check": [2.3, 2.2, 2.0]},
        "slice": lambda: _slice(command, config),
        "first_fit": lambda: {"value": 6.2, "loss": 0.5},
        "device_memory": lambda: {"value": 312.5, "loss": 0.5},
        "train": lambda: _trained(command, config),
        "numerics": lambda: _computed(config, mode),
    }
    return answers.get(command["do"], dict)()


def _slice(command: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    batch = command["workload"].rpartition("b")[2].rstrip("]")
    value = command["steps"] * int(batch) / config["speeds"][batch]
    return {"value": value, "cpu_seconds": value, "loss": 0.5, "start": 0.0, "end": value}


def _trained(command: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    told = {"seed": command["seed"], "images": 10_000, "wrong": config["wrong"]}
    return {**told, "epochs": 9, "train_seconds": 9.6}


def _computed(config: dict[str, Any], mode: dict[str, bool]) -> dict[str, Any]:
    is_deterministic = mode["deterministic_ops"]
    name = "on" if mode["tf32"] else "deterministic" if is_deterministic else "off"
    off = config["deviations"][name]
    values, losses = ([value * (1 + by) for value in TRUTH] for by in (off, off / 100))
    bits = "d" * 64 if is_deterministic else f"{os.getpid():064x}"
    quantities = {"logits": values, "loss": losses, "losses": losses, "gradients": [values] * 10}
    return {"quantities": {**quantities, "bits": bits}, **mode}


if __name__ == "__main__":
    main()
