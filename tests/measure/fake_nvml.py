"""A stand-in for `pynvml`: GPUs that exist as answers only."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

GIB = 2**30


class NVMLError(Exception):
    """The base class of all of NVML's errors."""


class NotSupportedError(NVMLError):
    """A GPU lacks a property."""


class FunctionNotFoundError(NVMLError):
    """The driver is older than the function."""


class LibraryNotFoundError(NVMLError):
    """The driver is not installed."""


class NoPermissionError(NVMLError):
    """Only an administrator may ask."""


@dataclass(frozen=True)
class Gpu:
    """A GPU or a MIG instance.

    Attributes:
        answers: answers by the end of the question, after `nvmlDeviceGet`; an exception is raised.
        bus: bus number of its address.
        parts: its MIG instances.
    """

    answers: Mapping[str, Any] = field(default_factory=dict)
    bus: int = 0
    parts: tuple[Gpu, ...] = ()

    def but(self, **answers: Any) -> Gpu:
        """Returns it with other answers."""
        return Gpu({**self.answers, **answers}, self.bus, self.parts)


H200 = Gpu(
    {
        "UUID": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
        "Name": "NVIDIA H200",
        "MemoryInfo": SimpleNamespace(total=143771 * 2**20),
        "CudaComputeCapability": (9, 0),
        "PowerManagementLimit": 700_000,
        "MaxClockInfo 0": 1980,
        "MaxClockInfo 2": 3201,
        "DefaultApplicationsClock 0": 1980,
        "DefaultApplicationsClock 2": 3201,
        "ApplicationsClock 0": 1980,
        "ApplicationsClock 2": 3201,
        "MigMode": [0, 0],
        "EccMode": [1, 1],
        "CurrentClocksEventReasons": 1,
        "Temperature 0": 41,
        "ClockInfo 1": 1980,
        "ComputeRunningProcesses": [],
    }
)
DESCRIBED = {
    "model": "NVIDIA H200",
    "memory_gib": 140,
    "driver": "550.90.07",
    "driver_cuda": "12.4",
    "compute_capability": "9.0",
    "power_limit_w": 700,
    "max_graphics_mhz": 1980,
    "max_memory_mhz": 3201,
    "mig": "off",
    "ecc": "on",
}
"""The description of `H200`."""


class FakeNvml:
    """The module's functions and constants that are used, with their real values.

    Attributes:
        users: number of `nvmlInit` without `nvmlShutdown`.
    """

    NVMLError = NVMLError
    NVMLError_NotSupported = NotSupportedError
    NVMLError_FunctionNotFound = FunctionNotFoundError
    NVMLError_LibraryNotFound = LibraryNotFoundError
    NVMLError_NoPermission = NoPermissionError
    NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2
    NVML_TEMPERATURE_GPU = 0
    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1
    nvmlClocksEventReasonSwPowerCap = 0x4  # noqa: N815
    nvmlClocksEventReasonHwSlowdown = 0x8  # noqa: N815
    nvmlClocksEventReasonSwThermalSlowdown = 0x20  # noqa: N815
    nvmlClocksEventReasonHwThermalSlowdown = 0x40  # noqa: N815
    nvmlClocksEventReasonHwPowerBrakeSlowdown = 0x80  # noqa: N815

    def __init__(
        self,
        *gpus: Gpu,
        driver: str | bytes = "550.90.07",
        init: Exception | None = None,
        lacks: Collection[str] = (),
    ) -> None:
        """Prepares answers.

        Args:
            gpus: all GPUs, in the order of their indices.
            driver: version of the driver.
            init: error of `nvmlInit`.
            lacks: functions that this version of the package lacks.
        """
        self._gpus, self._driver, self._init, self._lacks = gpus, driver, init, lacks
        self.users = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self._init is not None:
            raise self._init
        self.users += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.users -= 1

    def nvmlSystemGetDriverVersion(self) -> str | bytes:  # noqa: N802
        return self._driver

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return 12040

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:  # noqa: N802
        return self._gpus[index]

    def nvmlDeviceGetPciInfo(self, gpu: Gpu) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(domain=0, bus=gpu.bus, device=0)

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: Gpu) -> int:  # noqa: N802
        return 7 if gpu.parts else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: Gpu, index: int) -> Gpu:  # noqa: N802
        if index >= len(gpu.parts):
            raise NVMLError("Not Found")
        return gpu.parts[index]

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvmlDeviceGet") or name in self._lacks:
            raise AttributeError(name)

        def ask(gpu: Gpu, *kind: int) -> Any:
            key = " ".join([name.removeprefix("nvmlDeviceGet"), *map(str, kind)])
            answer = gpu.answers.get(key, NotSupportedError("Not Supported"))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask


def install(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu, **more: Any) -> FakeNvml:
    """Installs a stand-in as the module `pynvml` of this process, and returns it."""
    nvml = FakeNvml(*(gpus or (H200,)), **more)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def running(*pids: int) -> Sequence[SimpleNamespace]:
    """Returns an answer to `ComputeRunningProcesses`."""
    return [SimpleNamespace(pid=pid) for pid in pids]
