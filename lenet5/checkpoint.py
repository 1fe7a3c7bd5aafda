"""The file from which an interrupted training continues, `checkpoint.npz` in its run directory.

It exists from the start of a training until all results are written, and is complete at any moment.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lenet5.devices import CPU, read_device
from lenet5.environment import on_or_off
from lenet5.errors import InputError
from lenet5.history import Checkpoint
from lenet5.run_directory import (
    CHECKPOINT,
    RECIPE,
    UNFINISHED,
    Run,
    checked_epochs,
    read_content,
    run_content,
    run_of,
    written_whole,
)

_LARGEST_FILE = 100_000_000  # bytes; LeNet-5's state has about 1 MB
# Entries of `environment.json` that can change a training's bits, and their names in messages.
_SAME_BITS = {
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "numpy": "NumPy",
    "lenet5": "lenet5",
    "cpu": "processor",
    "threads": "threads:",
    "onednn": "oneDNN setting",
    "device": "device",
    "gpu": "GPU",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "tf32": "TF32",
    "deterministic_ops": "deterministic operations",
}


@dataclass(frozen=True)
class Interrupted:
    """Content of a checkpoint file.

    Attributes:
        run: run in training.
        environment: content of `environment.json`; before the first epoch only threads and device.
        checkpoint: state after the last finished epoch; None before the first.
    """

    run: Run
    environment: Mapping[str, Any]
    checkpoint: Checkpoint | None = None

    @property
    def threads(self) -> int:
        """TensorFlow's number of threads."""
        return int(self.environment["threads"])

    @property
    def device(self) -> str:
        """Name of the device; runs of earlier versions were trained on the CPU."""
        return str(self.environment.get("device", CPU.name))


def write(path: Path, interrupted: Interrupted) -> None:
    """Writes a checkpoint file atomically.

    Raises:
        InputError: the file could not be written, for example because the disk is full.
    """
    state = interrupted.checkpoint
    content = {
        "run": run_content(interrupted.run),
        "environment": dict(interrupted.environment),
        "epochs": [] if state is None else [asdict(epoch) for epoch in state.epochs],
        "train_seconds": 0.0 if state is None else state.train_seconds,
    }
    arrays = {"content": np.frombuffer(json.dumps(content).encode(), np.uint8)}
    if state is not None:
        arrays |= {f"best_weights_{i}": array for i, array in enumerate(state.best_weights)}
        arrays |= {f"variables_{i}": array for i, array in enumerate(state.variables)}
    with written_whole(path) as partial:
        np.savez(partial, **arrays)  # type: ignore[arg-type]


def read(path: Path) -> Interrupted:
    """Reads a checkpoint file.

    Raises:
        InputError: the file is missing, unreadable or damaged.
    """
    try:
        arrays = _arrays(path)
        content = read_content(bytes(arrays["content"]), path)
        run = run_of(content["run"], path)
        epochs = checked_epochs(content["epochs"])
        environment = {"device": CPU.name, **content["environment"]}
        seconds = float(content["train_seconds"])
        if type(environment["threads"]) is not int:
            raise TypeError("threads are not a number")
        _check_device(environment["device"])
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or 'damaged'}") from None
    except (KeyError, TypeError, ValueError, EOFError, MemoryError, zipfile.BadZipFile):
        raise InputError(f"{path}: damaged, not a checkpoint") from None
    if not epochs:
        return Interrupted(run, environment)
    best_weights, variables = _numbered(arrays, "best_weights"), _numbered(arrays, "variables")
    return Interrupted(run, environment, Checkpoint(epochs, seconds, best_weights, variables))


def _check_device(name: str) -> None:
    try:
        read_device(name, {})
    except InputError as error:
        raise ValueError(str(error)) from None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _LARGEST_FILE:
            raise ValueError("too large")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _numbered(arrays: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, ...]:
    count = sum(key.startswith(f"{name}_") for key in arrays)
    return tuple(arrays[key] for key in (f"{name}_{i}" for i in range(count)) if key in arrays)


def find(directory: Path) -> Path | None:
    """Returns the checkpoint file of a run directory; None if nothing was interrupted.

    The newer run in the subfolder `unfinished` comes first.
    """
    for path in (directory / UNFINISHED / CHECKPOINT, directory / CHECKPOINT):
        if path.is_file():
            return path
    return None


def run_directory_of(path: Path) -> Path:
    """Returns the run directory of a path that may be its subfolder `unfinished`."""
    parent = path.parent
    has_run = (parent / RECIPE).is_file() or (parent / CHECKPOINT).is_file()
    return parent if path.name == UNFINISHED and has_run else path


def check_environment(interrupted: Interrupted, environment: Mapping[str, Any]) -> None:
    """Rejects an environment in which the training would end with other bits.

    Args:
        interrupted: content of the checkpoint file.
        environment: content of `environment.json` for this process, or a part of it.

    Raises:
        InputError: TensorFlow, Keras, NumPy, lenet5, processor, threads, oneDNN, device, CUDA or a
            setting of the GPU differ.
    """
    there = {"device": interrupted.device, **interrupted.environment}
    unlike = [
        f"{label} {_shown(there[name])}, not {_shown(environment[name])}"
        for name, label in _SAME_BITS.items()
        if name in there and name in environment and there[name] != environment[name]
    ]
    if unlike:
        raise InputError(f"the run was begun with {'; '.join(unlike)}: results would differ")


def _shown(value: object) -> object:
    return on_or_off(value) if isinstance(value, bool) else value


def discard(path: Path, *, unless_epochs: bool) -> None:
    """Removes a checkpoint file.

    Args:
        path: checkpoint file.
        unless_epochs: whether a file with finished epochs stays.
    """
    if unless_epochs:
        try:
            if read(path).checkpoint is not None:
                return
        except InputError:
            return
    path.unlink(missing_ok=True)
