"""A GPU as NVIDIA's management library (NVML) knows it: its properties, and what slows it.

NVML is asked from outside of the measured processes: nothing here starts CUDA or takes memory of
the GPU. What a GPU or its driver does not report is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import psutil

from bench.records.blocks import GpuWitness
from lenet5.devices import NO_DRIVER, Device
from lenet5.errors import InputError
from lenet5.printable import short_line

# Reasons for lower clocks, by the ends of their names in `pynvml`. The others slow nothing that is
# measured (an idle GPU) or are the user's choice (application clocks, which `describe` reports).
_REASONS = {
    "SwPowerCap": "SW power cap",
    "SwThermalSlowdown": "SW thermal slowdown",
    "HwThermalSlowdown": "HW thermal slowdown",
    "HwPowerBrakeSlowdown": "HW power brake",
}
_GENERAL = "HwSlowdown"  # beside one of HwThermalSlowdown and HwPowerBrakeSlowdown, or alone
_LIMITS = {"power": "NVML_PERF_POLICY_POWER", "temperature": "NVML_PERF_POLICY_THERMAL"}
_CLOCKS = {"graphics": "NVML_CLOCK_GRAPHICS", "memory": "NVML_CLOCK_MEM"}
_STATES = {0: "off", 1: "on"}  # NVML_FEATURE_*, NVML_DEVICE_MIG_*
# A GPU that lacks a property, a driver that lacks its function, a user who may not ask.
_SILENT = ("NVMLError_NotSupported", "NVMLError_FunctionNotFound", "NVMLError_NoPermission")


class _Gpu(NamedTuple):
    """Handles of a GPU: of the whole one, and of the used part of it.

    Attributes:
        whole: clocks, power, temperature and modes belong to it.
        part: an instance under MIG; otherwise the whole GPU.
    """

    whole: Any
    part: Any


def describe(device: Device) -> dict[str, Any]:
    """Returns the properties that comparable results share: no serial number, no UUID, no load.

    Returns:
        `model`, `memory_gib`, `driver`, `driver_cuda` (the newest CUDA version that it supports),
        `compute_capability`, `power_limit_w`, `max_graphics_mhz`, `max_memory_mhz`,
        `application_graphics_mhz` and `application_memory_mhz` (where they are not the default),
        `mig` and `ecc` (`on` or `off`); without what NVML does not report.

    Raises:
        InputError: `nvidia-ml-py` is missing, there is no such GPU, or the driver does not answer.
    """
    nvml = _library()
    try:
        with _started(nvml):
            gpu = _find(nvml, device)
            found = {
                "model": _told(nvml, "nvmlDeviceGetName", gpu.part),
                "memory_gib": _memory_gib(nvml, gpu.part),
                "driver": _told(nvml, "nvmlSystemGetDriverVersion"),
                "driver_cuda": _driver_cuda(nvml),
                "compute_capability": _capability(nvml, gpu.whole),
                "power_limit_w": _power_limit_w(nvml, gpu.whole),
                **_clocks(nvml, gpu.whole),
                "mig": _state(nvml, "nvmlDeviceGetMigMode", gpu.whole),
                "ecc": _state(nvml, "nvmlDeviceGetEccMode", gpu.whole),
            }
    except nvml.NVMLError as error:
        told = f"NVIDIA's driver gives no answer: {short_line(error)}"
        if isinstance(error, nvml.NVMLError_LibraryNotFound):  # it comes with the driver
            told = NO_DRIVER
        raise InputError(f"--device {device.name}: {told}") from None
    return {name: _text(value) for name, value in found.items() if value is not None}


def witness(device: Device) -> GpuWitness | None:
    """Returns what slows a GPU; None if the driver does not answer, which ends no measurement.

    Raises:
        InputError: `nvidia-ml-py` is missing.
    """
    nvml = _library()
    try:
        with _started(nvml):
            gpu = _find(nvml, device)
            return GpuWitness(
                reasons=_reasons(nvml, gpu.whole),
                limited=_limited(nvml, gpu.whole),
                temperature_c=_told(
                    *(nvml, "nvmlDeviceGetTemperature", gpu.whole, nvml.NVML_TEMPERATURE_GPU)
                ),
                sm_mhz=_told(nvml, "nvmlDeviceGetClockInfo", gpu.whole, nvml.NVML_CLOCK_SM),
                foreign=_foreign(nvml, gpu.part),
            )
    except (nvml.NVMLError, InputError):
        return None


def _library() -> Any:
    try:
        import pynvml
    except ImportError:
        told = "pip install -e '.[gpu]'"
        raise InputError(f"--device gpu needs nvidia-ml-py: {told}") from None
    return pynvml


@contextlib.contextmanager
def _started(nvml: Any) -> Iterator[None]:
    """Holds NVML open; it counts its users, so that contexts may overlap."""
    nvml.nvmlInit()
    try:
        yield
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _find(nvml: Any, device: Device) -> _Gpu:
    """Returns the GPU that CUDA shows for `device.cuda_visible_devices`.

    This is an index in the order of bus addresses, or a UUID of a GPU or a MIG instance, which may
    be abbreviated (CUDA C++ Programming Guide, "CUDA Environment Variables").

    Raises:
        InputError: there is none, it is not unique, or it does not say which MIG instance.
    """
    wanted = device.cuda_visible_devices
    wholes = _by_bus(nvml)
    if wanted.isdecimal():
        found = [_Gpu(whole, whole) for whole in wholes[int(wanted) :][:1]]
    else:
        named = [
            *((_uuid(nvml, whole), _Gpu(whole, whole)) for whole in wholes),
            *(pair for whole in wholes for pair in _named_parts(nvml, whole)),
        ]
        same = [gpu for name, gpu in named if name == wanted]
        found = same[:1] or [gpu for name, gpu in named if name.startswith(wanted)]
    if len(found) != 1:
        what = f"{wanted} names {len(found) or 'none'} of the driver's {len(wholes)} GPUs"
        raise InputError(f"--device {device.name}: {what}: see nvidia-smi -L")
    (gpu,) = found
    if gpu.part is not gpu.whole or _state(nvml, "nvmlDeviceGetMigMode", gpu.whole) != "on":
        return gpu
    parts = _parts(nvml, gpu.whole)
    if len(parts) != 1:
        what = f"MIG is on, and {wanted} has {len(parts)} instances"
        told = "name one in CUDA_VISIBLE_DEVICES (nvidia-smi -L)"
        raise InputError(f"--device {device.name}: {what}: {told}")
    return _Gpu(gpu.whole, parts[0])


def _by_bus(nvml: Any) -> list[Any]:
    """Returns all GPUs in CUDA's order `PCI_BUS_ID`."""
    handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]

    def address(handle: Any) -> tuple[int, int, int]:
        pci = nvml.nvmlDeviceGetPciInfo(handle)
        return pci.domain, pci.bus, pci.device

    return sorted(handles, key=address)


def _parts(nvml: Any, whole: Any) -> list[Any]:
    """Returns the MIG instances of a GPU."""
    count = _told(nvml, "nvmlDeviceGetMaxMigDeviceCount", whole) or 0
    found = []
    for number in range(count):
        with contextlib.suppress(nvml.NVMLError):  # there may be fewer
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, number))
    return found


def _named_parts(nvml: Any, whole: Any) -> Iterator[tuple[str, _Gpu]]:
    """Yields the MIG instances of a GPU by both of their names: before driver 470, and since."""
    for part in _parts(nvml, whole):
        places = [
            _told(nvml, question, part)
            for question in ("nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId")
        ]
        names = {_uuid(nvml, part), "/".join(map(str, (f"MIG-{_uuid(nvml, whole)}", *places)))}
        for name in names:
            yield name, _Gpu(whole, part)


def _uuid(nvml: Any, handle: Any) -> str:
    return str(_text(nvml.nvmlDeviceGetUUID(handle)))


def _told(nvml: Any, question: str, *arguments: Any) -> Any:
    """Returns NVML's answer; None if the GPU, the driver or the package does not know it."""
    silent = tuple(getattr(nvml, name) for name in _SILENT)
    ask = getattr(nvml, question, None)
    if ask is None:
        return None
    try:
        return ask(*arguments)
    except silent:
        return None


def _text(value: Any) -> Any:
    """Returns a text of `pynvml`, which has bytes in older versions; other values unchanged."""
    return value.decode() if isinstance(value, bytes) else value


def _memory_gib(nvml: Any, part: Any) -> int | None:
    memory = _told(nvml, "nvmlDeviceGetMemoryInfo", part)
    return None if memory is None else round(memory.total / 2**30)


def _driver_cuda(nvml: Any) -> str | None:
    number = _told(nvml, "nvmlSystemGetCudaDriverVersion")  # 12040 for 12.4
    return None if number is None else f"{number // 1000}.{number % 1000 // 10}"


def _capability(nvml: Any, whole: Any) -> str | None:
    numbers = _told(nvml, "nvmlDeviceGetCudaComputeCapability", whole)
    return None if numbers is None else ".".join(map(str, numbers))


def _power_limit_w(nvml: Any, whole: Any) -> int | None:
    milliwatts = _told(nvml, "nvmlDeviceGetPowerManagementLimit", whole)
    return None if milliwatts is None else round(milliwatts / 1000)


def _clocks(nvml: Any, whole: Any) -> dict[str, int | None]:
    """Returns the maximum clocks, and application clocks that somebody has set, in MHz."""
    found: dict[str, int | None] = {}
    for name, constant in _CLOCKS.items():
        kind = getattr(nvml, constant)
        found[f"max_{name}_mhz"] = _told(nvml, "nvmlDeviceGetMaxClockInfo", whole, kind)
        usual = _told(nvml, "nvmlDeviceGetDefaultApplicationsClock", whole, kind)
        now = _told(nvml, "nvmlDeviceGetApplicationsClock", whole, kind)
        found[f"application_{name}_mhz"] = None if now == usual else now
    return found


def _state(nvml: Any, question: str, whole: Any) -> str | None:
    """Returns a mode in force, `on` or `off`; another may be pending until a restart."""
    modes = _told(nvml, question, whole)
    return None if modes is None else _STATES.get(modes[0])


def _reasons(nvml: Any, whole: Any) -> tuple[str, ...] | None:
    """Returns in words why the clocks are lower at this moment; None if NVML does not tell."""
    for question in (
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",  # its name until driver 535
    ):
        if (bits := _told(nvml, question, whole)) is not None:
            break
    else:
        return None
    found = tuple(words for end, words in _REASONS.items() if bits & _bit(nvml, end))
    is_named = any(words.startswith("HW") for words in found)
    return found if is_named or not bits & _bit(nvml, _GENERAL) else (*found, "HW slowdown")


def _bit(nvml: Any, end: str) -> int:
    names = (f"nvmlClocksEventReason{end}", f"nvmlClocksThrottleReason{end}")
    return next((int(getattr(nvml, name)) for name in names if hasattr(nvml, name)), 0)


def _limited(nvml: Any, whole: Any) -> Mapping[str, tuple[float, float]]:
    """Returns for each limit a moment, and the seconds until then that it has slowed the GPU.

    NVML counts both since the driver's start, so that two witnesses give the share between them.
    A momentary reason is gone as soon as the GPU is idle.
    """
    found = {}
    for name, constant in _LIMITS.items():
        status = _told(nvml, "nvmlDeviceGetViolationStatus", whole, getattr(nvml, constant))
        if status is not None:  # referenceTime is in microseconds, violationTime in nanoseconds
            found[name] = (status.referenceTime / 1e6, status.violationTime / 1e9)
    return found


def _foreign(nvml: Any, part: Any) -> int | None:
    """Returns the number of computing processes that are not ours; None if NVML does not tell.

    In a container, many drivers list the process IDs of the host, which say nothing there.
    """
    listed = _told(nvml, "nvmlDeviceGetComputeRunningProcesses", part)
    if listed is None:
        return None
    this = psutil.Process()
    ours = {this.pid, *(child.pid for child in this.children(recursive=True))}
    others = {process.pid for process in listed} - ours
    return len(others) if all(map(psutil.pid_exists, others)) else None
