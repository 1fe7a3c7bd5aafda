"""A stand-in for one NVIDIA GPU: TensorFlow sees it, and computes on the CPU.

`-p tests.stand_in_gpu` gives it to a pytest in a fresh process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from lenet5 import devices

DETAILS = {"device_name": "Stand-in", "compute_capability": (9, 0)}
BUILD = {"cuda_version": "12.5.1", "cudnn_version": "9"}
ENTRIES = {
    "device": "gpu:0",
    "gpu": "Stand-in",
    "compute_capability": "9.0",
    "cuda": "12.5.1",
    "cudnn": "9",
    "tf32": True,
    "deterministic_ops": False,
}
"""Entries of `environment.json`."""


@dataclass(frozen=True)
class Requests:
    """Requests to TensorFlow for its devices.

    Attributes:
        visible: devices that are to be visible, and their kind, for each request.
        growing: devices whose memory is to grow.
    """

    visible: list[tuple[list[Any], str]] = field(default_factory=list)
    growing: list[Any] = field(default_factory=list)


def install(patch: pytest.MonkeyPatch, count: int = 1) -> Requests:
    """Makes TensorFlow see a number of GPUs, and returns what is requested for them."""
    import tensorflow as tf

    asked = Requests()
    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{n}", "GPU") for n in range(count)]
    physical = tf.config.list_physical_devices

    def list_devices(kind: str | None = None) -> list[Any]:
        return list(gpus) if kind == "GPU" else list(physical(kind))

    patch.setattr(tf.config, "list_physical_devices", list_devices)
    patch.setattr(tf.config, "get_visible_devices", lambda _: gpus[:1])
    patch.setattr(tf.config, "set_visible_devices", lambda *what: asked.visible.append(what))
    experimental = tf.config.experimental
    patch.setattr(experimental, "set_memory_growth", lambda gpu, _: asked.growing.append(gpu))
    patch.setattr(experimental, "get_device_details", lambda _: DETAILS)
    patch.setattr(tf.sysconfig, "get_build_info", lambda: BUILD)
    patch.setattr(devices, "_convolved", lambda _: SimpleNamespace(device="/device:GPU:0"))
    return asked


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart() -> None:
    """Installs the stand-in before the start of TensorFlow, which is to see no real GPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    install(pytest.MonkeyPatch())
