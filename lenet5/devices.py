"""The device that TensorFlow computes on: the CPU, or one NVIDIA GPU and no other."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenet5.errors import InputError

NO_DRIVER = "this machine has no NVIDIA driver"
"""Reason of a missing GPU."""
_GPU = re.compile(r"gpu(?::(\d{1,3}))?", re.ASCII)
_HIDDEN = ("", "-1")  # CUDA ignores the rest of its list from here on
_DRIVER = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")  # the last one: WSL
_NODES = re.compile(r"\{\{.*?\}\}|\[Op:.*")  # TensorFlow's names of its graph
_ROUNDED_OFF = 2.0**-12  # 1 + this is exact in float32; TF32 keeps 10 bits and rounds it to 1


@dataclass(frozen=True)
class Device:
    """A device for one process.

    Attributes:
        name: `cpu`, or `gpu:N`; N counts the GPUs that the user shows, from 0.
        cuda_visible_devices: value of `CUDA_VISIBLE_DEVICES` that shows this device alone.
    """

    name: str = "cpu"
    cuda_visible_devices: str = "-1"

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.name != "cpu"

    @property
    def variables(self) -> dict[str, str]:
        """Variables of a process that computes on this device alone."""
        shown = {"CUDA_VISIBLE_DEVICES": self.cuda_visible_devices}
        # CUDA's own order is by speed; nvidia-smi and NVML count by bus.
        return {**shown, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if self.is_gpu else shown


CPU = Device()


def read_device(text: str, environment: Mapping[str, str] | os._Environ[str]) -> Device:
    """Returns the device of an option's value.

    Args:
        text: `cpu`, `gpu` (the first visible one) or `gpu:N`.
        environment: variables of the process; `CUDA_VISIBLE_DEVICES` limits the GPUs, which count
            in its order, or without it as `nvidia-smi` lists them.

    Raises:
        InputError: the value is none of these, or the variable hides the GPU.
    """
    if text == "cpu":
        return CPU
    if not (found := _GPU.fullmatch(text)):
        raise InputError(f"--device is {text!r}, expected cpu, gpu or gpu:N")
    number = int(found[1] or 0)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return Device(f"gpu:{number}", str(number))
    shown = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry in _HIDDEN:
            break
        shown.append(entry)
    if number >= len(shown):
        count = f"{len(shown)} GPU{'' if len(shown) == 1 else 's'}"
        raise InputError(f"--device {text}: CUDA_VISIBLE_DEVICES={visible!r} shows {count}")
    return Device(f"gpu:{number}", shown[number])


def restrict_to(device: Device) -> None:
    """Lets a TensorFlow that has not started see one device; a GPU's memory grows as needed.

    Without memory growth, the first process takes nearly all of a GPU's memory.

    Raises:
        InputError: TensorFlow sees no such GPU; the message says why.
        RuntimeError: TensorFlow has started with other devices.
    """
    import tensorflow as tf

    if not device.is_gpu:
        tf.config.set_visible_devices([], "GPU")
        return
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        raise InputError(f"--device {device.name}: {_why_no_gpu(tf.test.is_built_with_cuda())}")
    tf.config.set_visible_devices(gpus[:1], "GPU")
    tf.config.experimental.set_memory_growth(gpus[0], True)


def check_in_force(device: Device) -> None:
    """Computes a convolution; nothing else shows that cuDNN works, and where TensorFlow computes.

    Raises:
        InputError: the convolution fails on the GPU, or runs on the CPU.
    """
    if not device.is_gpu:
        return
    try:
        place = str(_convolved(1.0).device)
    except Exception as error:  # a missing or too old library raises any of TensorFlow's errors
        told = _NODES.sub("", str(error)).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"--device {device.name}: TensorFlow cannot compute on the GPU: {told[0].strip()}"
        ) from error
    if "GPU" not in place:
        raise InputError(f"--device {device.name}: TensorFlow computes on {place or 'no device'}")


def wait_for(device: Device) -> None:
    """Waits until a device has finished; a GPU still computes when its calls have returned."""
    if device.is_gpu:
        import tensorflow as tf

        tf.test.experimental.sync_devices()


def describe_device(device: Device) -> dict[str, Any]:
    """Returns the device of a started TensorFlow, as JSON values.

    Returns:
        `device`: the name. For a GPU also `gpu` (its model), `compute_capability`, `cuda` and
        `cudnn` (the versions that TensorFlow was built with), `tf32` (whether products are rounded
        to TF32, as measured) and `deterministic_ops`.
    """
    if not device.is_gpu:
        return {"device": device.name}
    import tensorflow as tf

    (gpu,) = tf.config.get_visible_devices("GPU")
    details = tf.config.experimental.get_device_details(gpu)
    build = tf.sysconfig.get_build_info()
    capability = details.get("compute_capability")
    return {
        "device": device.name,
        "gpu": str(details.get("device_name", "unknown GPU")),
        "compute_capability": ".".join(map(str, capability)) if capability else None,
        "cuda": build.get("cuda_version"),
        "cudnn": build.get("cudnn_version"),
        "tf32": tf32_is_in_force(),
        "deterministic_ops": ops_are_deterministic(),
    }


def allow_tf32(*, allowed: bool) -> None:
    """Sets whether products of float32 may be rounded to TF32, which is TensorFlow's default."""
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(allowed)


def tf32_is_in_force() -> bool:
    """Computes products that TF32 rounds; returns whether the device rounded any.

    TensorFlow's own flag cannot tell: `NVIDIA_TF32_OVERRIDE=0`, GPUs before Ampere, and all CPUs
    ignore it. TF32 rounds a factor to 10 bits; here that changes results by 2.4e-4, while float32
    gives them to 1e-7.
    """
    import tensorflow as tf

    value = 1.0 + _ROUNDED_OFF
    matrix = tf.fill([256, 256], value)
    products = tf.linalg.matmul(matrix, tf.eye(256))
    return any(
        float(tf.reduce_max(tf.abs(found - value))) > _ROUNDED_OFF / 8
        for found in (products, _convolved(value))
    )


def ops_are_deterministic() -> bool:
    """Returns whether TensorFlow is to compute the same bits in every run.

    TensorFlow has no public question for it. In this mode, random numbers without a seed are an
    error.
    """
    import tensorflow as tf

    try:
        tf.random.Generator.from_non_deterministic_state()
    except RuntimeError:
        return True
    return False


def _convolved(value: float) -> Any:
    """Returns images of one value after a convolution that keeps it: float32 (64, 24, 24, 16)."""
    import tensorflow as tf

    kernel = tf.reshape(tf.one_hot(12, 25), [5, 5, 1, 1]) * tf.ones([1, 1, 8, 16]) / 8
    return tf.nn.conv2d(tf.fill([64, 28, 28, 8], value), kernel, 1, "VALID")


def _why_no_gpu(is_built_with_cuda: bool) -> str:
    if not is_built_with_cuda:
        return "this TensorFlow is built for CPUs only: pip install 'tensorflow[and-cuda]'"
    if not any(Path(path).exists() for path in _DRIVER):
        return NO_DRIVER
    return (
        "TensorFlow finds no GPU, although there is an NVIDIA driver: no such GPU, or CUDA's "
        "libraries are missing (pip install 'tensorflow[and-cuda]'; TF_CPP_MIN_LOG_LEVEL=0 shows "
        "which)"
    )
