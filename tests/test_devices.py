"""TensorFlow computes on the requested device, or the reason is told in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lenet5 import devices, runtime
from lenet5.devices import CPU, Device, read_device
from lenet5.errors import InputError
from tests import stand_in_gpu
from tests.commands import of_checkout
from tests.test_runtime import start_broken

GPU = Device("gpu:0", "0")
UUID = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
NO_DRIVER = "this machine has no NVIDIA driver"
NOT_FOUND = (
    "TensorFlow finds no GPU, although there is an NVIDIA driver: no such GPU, or CUDA's libraries "
    "are missing (pip install 'tensorflow[and-cuda]'; TF_CPP_MIN_LOG_LEVEL=0 shows which)"
)


@pytest.mark.parametrize(
    ("text", "visible", "device"),
    [
        ("cpu", None, CPU),
        ("cpu", "2,3", CPU),
        ("gpu", None, Device("gpu:0", "0")),
        ("gpu:0", None, Device("gpu:0", "0")),
        ("gpu:12", None, Device("gpu:12", "12")),
        ("gpu", "2,3", Device("gpu:0", "2")),
        ("gpu:1", "2,3", Device("gpu:1", "3")),
        ("gpu:1", " 2 , 3 ", Device("gpu:1", "3")),
        ("gpu", "0,-1,1", Device("gpu:0", "0")),
        ("gpu:1", f"0,{UUID}", Device("gpu:1", UUID)),
        ("gpu", "GPU-8932f937", Device("gpu:0", "GPU-8932f937")),
    ],
)
def test_a_device_is_counted_among_the_visible_gpus(
    text: str, visible: str | None, device: Device
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert read_device(text, environment) == device


@pytest.mark.parametrize(
    "text",
    ["tpu", "gpu:x", "gpu:-1", "gpu:", "GPU", "gpu:0x1", "gpu:1000", "gpu 1", "gpu:\u0661", ""],
)
def test_another_word_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_device(text, {})
    assert str(caught.value) == f"--device is {text!r}, expected cpu, gpu or gpu:N"


@pytest.mark.parametrize(
    ("text", "visible", "count"),
    [
        ("gpu", "", "0 GPUs"),
        ("gpu", "-1", "0 GPUs"),
        ("gpu:1", "5", "1 GPU"),
        ("gpu:2", "2,3", "2 GPUs"),
        ("gpu:1", "0,-1,1", "1 GPU"),
    ],
)
def test_a_gpu_that_the_variable_hides_is_refused(text: str, visible: str, count: str) -> None:
    """CUDA ignores the rest of its list after -1."""
    with pytest.raises(InputError) as caught:
        read_device(text, {"CUDA_VISIBLE_DEVICES": visible})
    expected = f"--device {text}: CUDA_VISIBLE_DEVICES={visible!r} shows {count}"
    assert str(caught.value) == expected


def test_a_process_sees_its_device_alone() -> None:
    """GPUs are counted as nvidia-smi counts them."""
    assert CPU.variables == {"CUDA_VISIBLE_DEVICES": "-1"}
    assert Device("gpu:1", "3").variables == {
        "CUDA_VISIBLE_DEVICES": "3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_the_variables_are_set_before_tensorflow_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in Device("gpu:1", "3").variables:
        monkeypatch.setenv(name, "of the user")
    with pytest.raises(InputError):
        start_broken(monkeypatch, ImportError("no"), Device("gpu:1", "3"))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_gpus_memory_grows_and_other_gpus_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in_gpu.install(monkeypatch, count=3)
    runtime.start_tensorflow(runtime.threads_in_use(), GPU)
    first = tf.config.list_physical_devices("GPU")[0]
    assert asked.visible == [([first], "GPU")]
    assert asked.growing == [first]


def test_on_the_cpu_nothing_is_computed_and_no_memory_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = stand_in_gpu.install(monkeypatch)
    monkeypatch.setattr(devices, "_convolved", _raise(AssertionError()))
    runtime.start_tensorflow(runtime.threads_in_use(), CPU)
    assert asked.visible == [([], "GPU")]
    assert asked.growing == []


@pytest.mark.parametrize(
    ("is_built_with_cuda", "driver", "reason"),
    [
        (
            *(False, True),
            "this TensorFlow is built for CPUs only: pip install 'tensorflow[and-cuda]'",
        ),
        (True, False, NO_DRIVER),
        (True, True, NOT_FOUND),
    ],
    ids=["build for CPUs", "no driver", "no libraries"],
)
def test_without_a_gpu_the_reason_is_told_without_log_lines(
    is_built_with_cuda: bool,
    driver: bool,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    stand_in_gpu.install(monkeypatch)
    monkeypatch.setattr(tf.config, "list_physical_devices", _log_and(lambda *_: []))
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: is_built_with_cuda)
    paths = [str(tmp_path / "missing"), *([str(tmp_path)] if driver else [])]
    monkeypatch.setattr(devices, "_DRIVER", paths)
    with pytest.raises(InputError) as caught:
        runtime.start_tensorflow(runtime.threads_in_use(), GPU)
    assert str(caught.value) == f"--device gpu:0: {reason}"
    assert capfd.readouterr().err == ""


NODES = "{{function_node __wrapped__Conv2D_device_/job:localhost/device:GPU:0}} "
BROKEN = "--device gpu:0: TensorFlow cannot compute on the GPU: "


@pytest.mark.parametrize(
    ("convolve", "said"),
    [
        pytest.param(
            lambda: tf.errors.UnimplementedError(
                None, None, f"{NODES}DNN library is not found.\n\t [[{{{{node x}}}}]] [Op:Conv2D]"
            ),
            f"{BROKEN}DNN library is not found.",
            id="cuDNN fails",
        ),
        pytest.param(
            lambda: tf.errors.InternalError(None, None, f"{NODES}no kernel image [Op:Conv2D]"),
            f"{BROKEN}no kernel image",
            id="GPU too new",
        ),
        pytest.param(lambda: OSError("\nlibcudnn.so\n"), f"{BROKEN}libcudnn.so", id="loader"),
        pytest.param(RuntimeError, f"{BROKEN}RuntimeError", id="no reason"),
        pytest.param(
            lambda: SimpleNamespace(device="/job:localhost/replica:0/task:0/device:CPU:0"),
            "--device gpu:0: TensorFlow computes on /job:localhost/replica:0/task:0/device:CPU:0",
            id="on the CPU",
        ),
        pytest.param(
            lambda: SimpleNamespace(device=""),
            "--device gpu:0: TensorFlow computes on no device",
            id="nowhere",
        ),
    ],
)
def test_a_gpu_that_does_not_compute_is_told_without_log_lines(
    convolve: Callable[[], Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A silent run on the CPU is impossible."""
    stand_in_gpu.install(monkeypatch)
    found = convolve()
    answer = _raise(found) if isinstance(found, Exception) else lambda _: found
    monkeypatch.setattr(devices, "_convolved", _log_and(answer))
    with pytest.raises(InputError) as caught:
        runtime.start_tensorflow(runtime.threads_in_use(), GPU)
    assert str(caught.value) == said
    assert capfd.readouterr().err == ""


def test_log_lines_are_shown_on_request(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """They name the missing library."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    stand_in_gpu.install(monkeypatch)
    monkeypatch.setattr(tf.config, "list_physical_devices", _log_and(lambda *_: []))
    with pytest.raises(InputError):
        runtime.start_tensorflow(runtime.threads_in_use(), GPU)
    assert capfd.readouterr().err == "log line\n"


def test_on_the_cpu_the_convolution_keeps_its_images() -> None:
    images = devices._convolved(1.5)
    assert images.shape == (64, 24, 24, 16)
    assert images.dtype == tf.float32
    np.testing.assert_allclose(images, 1.5, rtol=1e-6)
    with pytest.raises(InputError, match=r"TensorFlow computes on /job.*CPU:0"):
        devices.check_in_force(GPU)


@pytest.mark.parametrize(("device", "waits"), [(CPU, 0), (GPU, 1)])
def test_only_a_gpu_is_waited_for(
    device: Device, waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function exists in every TensorFlow, and returns on the CPU."""
    sync = tf.test.experimental.sync_devices
    calls: list[None] = []

    def counted() -> None:
        calls.append(None)
        sync()

    monkeypatch.setattr(tf.test.experimental, "sync_devices", counted)
    devices.wait_for(device)
    assert len(calls) == waits


def test_the_device_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.describe_device(CPU) == {"device": "cpu"}
    stand_in_gpu.install(monkeypatch)
    assert devices.describe_device(GPU) == stand_in_gpu.ENTRIES


def test_what_tensorflow_does_not_know_of_a_gpu_is_not_invented(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in_gpu.install(monkeypatch)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: {})
    monkeypatch.setattr(tf.sysconfig, "get_build_info", dict)
    described = devices.describe_device(GPU)
    unknown = {"gpu": "unknown GPU", "compute_capability": None, "cuda": None, "cudnn": None}
    assert described == {**stand_in_gpu.ENTRIES, **unknown}


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_can_be_switched(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_gpu.install(monkeypatch)
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        devices.allow_tf32(allowed=allowed)
        assert devices.describe_device(GPU)["tf32"] is allowed
    finally:
        devices.allow_tf32(allowed=before)


def test_the_cpu_does_not_round_to_tf32() -> None:
    """TensorFlow's flag is on by default nevertheless."""
    assert not devices.tf32_is_in_force()


@pytest.mark.parametrize("where", ["matrix product", "convolution"])
def test_rounding_to_tf32_is_noticed(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 keeps 10 bits of a factor's 23."""
    if where == "matrix product":
        product = tf.linalg.matmul
        rounded = lambda one, two: product(_tf32(one), _tf32(two))  # noqa: E731 - a stand-in
        monkeypatch.setattr(tf.linalg, "matmul", rounded)
    else:
        convolve = tf.nn.conv2d
        rounded = lambda one, two, *more: convolve(_tf32(one), _tf32(two), *more)  # noqa: E731
        monkeypatch.setattr(tf.nn, "conv2d", rounded)
    assert devices.tf32_is_in_force()


@pytest.mark.parametrize(
    ("variable", "deterministic"), [(None, False), ("0", False), ("1", True)], ids=str
)
def test_the_deterministic_mode_is_noticed(variable: str | None, deterministic: bool) -> None:
    """In a fresh process, since the mode cannot be left."""
    environment = {**of_checkout(), "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment.pop("TF_DETERMINISTIC_OPS", None)
    if variable is not None:
        environment["TF_DETERMINISTIC_OPS"] = variable
    code = (
        "from lenet5 import devices, runtime; runtime.start_tensorflow(1); "
        "print(devices.ops_are_deterministic())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"{deterministic}\n", "")


def _tf32(tensor: Any) -> Any:
    """Returns a float32 tensor with 10 of its 23 bits, rounded to the nearest, ties to even."""
    bits = np.asarray(tensor, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    return tf.constant((rounded & np.uint32(0xFFFFE000)).view(np.float32))


def _raise(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


def _log_and(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that logs to descriptor 2, like TensorFlow's C++, before it answers."""

    def log(*what: object) -> Any:
        os.write(2, b"log line\n")
        return answer(*what)

    return log
