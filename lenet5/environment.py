"""Description of this process's environment: versions, processor, device, git commit."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lenet5 import __version__, control_groups
from lenet5.devices import CPU, Device, describe_device
from lenet5.distributions import tensorflow_package


def describe_environment(threads: int, keras_version: str, device: Device = CPU) -> dict[str, Any]:
    """Returns versions, processor, device and git commit: the content of `environment.json`.

    Versions come from the imported modules: distributions have many names (`tf-nightly`,
    `keras-nightly`, a vendor's), and other versions than their modules.

    Args:
        threads: TensorFlow's number of threads.
        keras_version: version of the Keras behind `tf.keras`.
        device: device that TensorFlow was started for.

    Returns:
        JSON values; `tensorflow` is None if it is not imported.
    """
    return {
        "tensorflow": getattr(sys.modules.get("tensorflow"), "__version__", None),
        "tensorflow_package": tensorflow_package(),
        "keras": keras_version,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "lenet5": __version__,
        "operating_system": platform.platform(),
        "cpu": cpu_model(),
        "usable_cores": usable_cores(),
        "threads": threads,
        **describe_device(device),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "git_commit": git_commit(),
    }


def device_text(environment: Mapping[str, Any]) -> str:
    """Returns the device in words: `CPU only`, or `GPU NVIDIA H200 (gpu:0), TF32 on`.

    Args:
        environment: entries of `devices.describe_device`, among any others; without `device`, as in
            files of earlier versions, it is the CPU; without `gpu`, only the name is known.
    """
    name = environment.get("device", CPU.name)
    if name == CPU.name:
        return "CPU only"
    if "gpu" not in environment:
        return f"GPU ({name})"
    return f"GPU {environment['gpu']} ({name}), TF32 {on_or_off(environment.get('tf32'))}"


def on_or_off(value: object) -> str:
    """Returns a setting in words."""
    return "on" if value else "off"


def git_commit() -> str | None:
    """Returns the commit of this project's checkout; `+changes` marks changed tracked files.

    The checkout contains the package or, for an installed package, is the current folder.
    """
    for folder in (Path(__file__).parent.parent, Path.cwd()):
        if (folder / "pyproject.toml").is_file() and (folder / "lenet5").is_dir():
            told = (_git(folder, "rev-parse", "--show-toplevel", "HEAD") or "").splitlines()
            # The repository must not be one around the project.
            if len(told) == 2 and Path(told[0]).resolve() == folder.resolve():
                changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
                return told[1] + ("+changes" if changes else "")
    return None


def _git(folder: Path, *arguments: str) -> str | None:
    # GIT_DIR and its like name another repository, for example in a hook.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith("GIT_CONFIG")
    }
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def cpu_model() -> str:
    """Returns the processor's name from the operating system."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def usable_cores(root: Path = control_groups.ROOT) -> int:
    """Returns the cores of this process: of its affinity, within a container's CPU quota.

    Args:
        root: parent folder of `proc` and `sys`.
    """
    if hasattr(os, "sched_getaffinity"):  # missing on macOS and Windows
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = control_groups.quota_cores(root)
    return cores if quota is None else max(min(cores, int(quota)), 1)
