"""A GPU's properties and witnesses, asked from a stand-in for NVIDIA's library."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from bench.measure import gpus
from lenet5.devices import Device
from lenet5.errors import InputError
from tests.measure.fake_nvml import (
    DESCRIBED,
    GIB,
    H200,
    FunctionNotFoundError,
    Gpu,
    LibraryNotFoundError,
    NoPermissionError,
    NVMLError,
    install,
    running,
)

GPU = Device("gpu:0", "0")
HIDDEN = 2**22 + 7  # above Linux's largest process ID


def named(uuid: str, model: str = "NVIDIA L4", **answers: Any) -> Gpu:
    return H200.but(UUID=uuid, Name=model, **answers)


def test_a_gpu_is_described_without_what_identifies_or_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml = install(monkeypatch)
    assert gpus.describe(GPU) == DESCRIBED
    assert nvml.users == 0  # NVML was shut down


def test_what_a_gpu_does_not_report_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GeForce has no application clocks and no ECC; an old driver lacks a function."""
    answers = {"UUID": "GPU-1", "Name": "NVIDIA GeForce RTX 4090", "MemoryInfo": None}
    silent = Gpu({**answers, "EccMode": NoPermissionError(), "MigMode": FunctionNotFoundError()})
    install(monkeypatch, silent)
    assert gpus.describe(GPU) == {
        "model": "NVIDIA GeForce RTX 4090",
        "driver": "550.90.07",
        "driver_cuda": "12.4",
    }


def test_texts_of_older_packages_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, named("GPU-1").but(Name=b"Tesla T4", UUID=b"GPU-1"), driver=b"470.1")
    found = gpus.describe(Device("gpu:0", "GPU-1"))
    assert (found["model"], found["driver"]) == ("Tesla T4", "470.1")


def test_application_clocks_that_somebody_set_are_described(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, H200.but(**{"ApplicationsClock 0": 1200}))
    assert gpus.describe(GPU) == {**DESCRIBED, "application_graphics_mhz": 1200}


def test_indices_follow_the_bus_as_cuda_does(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Gpu(H200.answers, bus=9), Gpu(named("GPU-2").answers, bus=3)
    install(monkeypatch, first, second)
    models = [gpus.describe(Device(f"gpu:{n}", str(n)))["model"] for n in (0, 1)]
    assert models == ["NVIDIA L4", "NVIDIA H200"]


@pytest.mark.parametrize("uuid", ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-89"])
def test_a_gpu_is_found_by_its_uuid_which_may_be_abbreviated(
    monkeypatch: pytest.MonkeyPatch, uuid: str
) -> None:
    install(monkeypatch, named("GPU-1234"), H200)
    assert gpus.describe(Device("gpu:0", uuid))["model"] == "NVIDIA H200"


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        ("2", "2 names none of the driver's 2 GPUs"),
        ("GPU-5", "GPU-5 names none of the driver's 2 GPUs"),
        ("GPU-1", "GPU-1 names 2 of the driver's 2 GPUs"),
        ("nonsense", "nonsense names none of the driver's 2 GPUs"),
    ],
)
def test_a_gpu_that_is_not_there_or_not_unique_is_refused(
    monkeypatch: pytest.MonkeyPatch, shown: str, told: str
) -> None:
    nvml = install(monkeypatch, named("GPU-12"), named("GPU-13"))
    with pytest.raises(InputError, match=f"^--device gpu:0: {told}: see nvidia-smi -L$"):
        gpus.describe(Device("gpu:0", shown))
    assert nvml.users == 0


def mig(*numbers: int) -> Gpu:
    """Returns a GPU with MIG instances of 18 GiB."""
    parts = tuple(
        Gpu(
            {
                "UUID": f"MIG-{number}a",
                "Name": f"NVIDIA H200 MIG {number}g.18gb",
                "MemoryInfo": SimpleNamespace(total=18 * GIB),
                "GpuInstanceId": number,
                "ComputeInstanceId": 0,
                "ComputeRunningProcesses": running(HIDDEN) if number == 2 else [],
            }
        )
        for number in numbers
    )
    return Gpu({**H200.answers, "MigMode": [1, 1]}, parts=parts)


@pytest.mark.parametrize(
    "shown", ["MIG-2a", "MIG-2", "MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/2/0"]
)
def test_a_mig_instance_is_found_by_both_of_its_names(
    monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    """Clocks, power and modes are those of the whole GPU."""
    install(monkeypatch, mig(1, 2, 3))
    assert gpus.describe(Device("gpu:0", shown)) == {
        **DESCRIBED,
        "model": "NVIDIA H200 MIG 2g.18gb",
        "memory_gib": 18,
        "mig": "on",
    }


def test_an_index_names_a_mig_instance_only_if_it_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, mig(3))
    assert gpus.describe(GPU)["model"] == "NVIDIA H200 MIG 3g.18gb"
    install(monkeypatch, mig(1, 3))
    told = "MIG is on, and 0 has 2 instances: name one in CUDA_VISIBLE_DEVICES"
    with pytest.raises(InputError, match=f"^--device gpu:0: {told}"):
        gpus.describe(GPU)


def test_a_missing_library_or_driver_is_an_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, init=LibraryNotFoundError("NVML Shared Library Not Found"))
    with pytest.raises(InputError, match=r"^--device gpu:0: this machine has no NVIDIA driver$"):
        gpus.describe(GPU)
    install(monkeypatch, init=NVMLError("Driver/library version mismatch"))
    told = "NVIDIA's driver gives no answer: Driver/library version mismatch"
    with pytest.raises(InputError, match=f"^--device gpu:0: {told}$"):
        gpus.describe(GPU)
    monkeypatch.setitem(sys.modules, "pynvml", None)  # its import fails
    how = re.escape("--device gpu needs nvidia-ml-py: pip install -e '.[gpu]'")
    for ask in (gpus.describe, gpus.witness):
        with pytest.raises(InputError, match=f"^{how}$"):
            ask(GPU)


def test_a_witness_has_clock_temperature_and_no_reason_on_a_quiet_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An idle GPU and its owner's application clocks slow nothing."""
    nvml = install(monkeypatch, H200.but(CurrentClocksEventReasons=0x1 | 0x2))
    seen = gpus.witness(GPU)
    assert seen is not None
    assert (seen.reasons, seen.temperature_c, seen.sm_mhz, seen.foreign) == ((), 41, 1980, 0)
    assert nvml.users == 0


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0x4, ("SW power cap",)),
        (0x20, ("SW thermal slowdown",)),
        (0x8 | 0x40, ("HW thermal slowdown",)),
        (0x8 | 0x80 | 0x4, ("SW power cap", "HW power brake")),
        (0x8 | 0x4, ("SW power cap", "HW slowdown")),  # its cause is not told
        (0x10 | 0x100, ()),
    ],
)
@pytest.mark.parametrize("name", ["CurrentClocksEventReasons", "CurrentClocksThrottleReasons"])
def test_reasons_for_slower_clocks_are_told_in_words(
    monkeypatch: pytest.MonkeyPatch, bits: int, words: tuple[str, ...], name: str
) -> None:
    """Packages before version 12 have the older name only."""
    newer = "CurrentClocksEventReasons"
    gpu = H200.but(**{newer: NVMLError("not this one"), name: bits})
    install(monkeypatch, gpu, lacks=() if name == newer else [f"nvmlDeviceGet{newer}"])
    seen = gpus.witness(GPU)
    assert seen is not None
    assert seen.reasons == words


def test_times_at_a_limit_are_counted_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that the GPU does not count is left out."""
    status = SimpleNamespace(referenceTime=5_000_000, violationTime=2_000_000_000)
    install(monkeypatch, H200.but(**{"ViolationStatus 0": status}))
    seen = gpus.witness(GPU)
    assert seen is not None
    assert seen.limited == {"power": (5.0, 2.0)}


def test_a_witness_counts_other_processes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process and those below it are ours."""
    wait = "input()"
    with subprocess.Popen([sys.executable, "-c", wait], stdin=subprocess.PIPE) as child:
        pids = (os.getpid(), child.pid, psutil.Process().ppid())
        install(monkeypatch, H200.but(ComputeRunningProcesses=running(*pids)))
        seen = gpus.witness(GPU)
        child.communicate(b"\n")
    assert seen is not None
    assert seen.foreign == 1


def test_process_ids_of_another_namespace_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, H200.but(ComputeRunningProcesses=running(HIDDEN)))
    seen = gpus.witness(GPU)
    assert seen is not None
    assert seen.foreign is None


def test_processes_of_another_mig_instance_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, mig(1, 2))
    seen = gpus.witness(Device("gpu:0", "MIG-1a"))
    assert seen is not None
    assert seen.foreign == 0


@pytest.mark.parametrize("where", ["init", "answer", "gone"])
def test_an_error_of_the_driver_ends_no_measurement(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """There is no witness then; NVML is shut down all the same."""
    lost = NVMLError("GPU is lost")
    if where == "init":
        nvml = install(monkeypatch, init=lost)
    else:
        nvml = install(monkeypatch, H200.but(**{"Temperature 0": lost}))
    device = Device("gpu:3", "3") if where == "gone" else GPU
    assert gpus.witness(device) is None
    assert nvml.users == 0


def test_the_real_library_has_every_name_in_use() -> None:
    """The stand-in has the real names and values; no call is made."""
    import pynvml

    from tests.measure.fake_nvml import FakeNvml

    source = Path(gpus.__file__).read_text(encoding="utf-8")
    names = set(re.findall(r"nvml(?:Init|Shutdown|(?:Device|System)Get\w+)", source))
    assert len(names) > 20
    constants = [n for n in vars(FakeNvml) if n.startswith(("NVML_", "nvmlClocks", "NVMLError"))]
    missing = [name for name in {*names, *constants} if not hasattr(pynvml, name)]
    assert missing == []
    for name in constants:
        if isinstance(value := getattr(FakeNvml, name), int):
            assert getattr(pynvml, name) == value
