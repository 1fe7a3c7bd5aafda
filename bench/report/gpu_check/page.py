"""The lines of `python -m bench gpu-check`: as text, as JSON and as a page without script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.records import ledger
from bench.records.numerics import QUANTITIES
from bench.report.pages import render
from bench.report.tables import Table

PASS, FAIL, NOT_RUN = "PASS", "FAIL", "NOT RUN"
_FORMAT = 1  # of the JSON file; grows with a change that a reader notices
_FACTS = {
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "numpy": "NumPy",
    "python": "Python",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "gpu": "GPU",
    "compute_capability": "compute capability",
}
# Properties of the GPU that its driver reports (`machine["gpu"]`).
_OF_DRIVER = {
    "model": "model by the driver",
    "memory_gib": "GPU memory (GiB)",
    "driver": "NVIDIA driver",
    "driver_cuda": "newest CUDA of the driver",
    "compute_capability": "capability by the driver",
    "power_limit_w": "power limit (W)",
    "max_graphics_mhz": "highest graphics clock (MHz)",
    "max_memory_mhz": "highest memory clock (MHz)",
    "application_graphics_mhz": "graphics clock set (MHz)",
    "application_memory_mhz": "memory clock set (MHz)",
    "mig": "MIG",
    "ecc": "ECC",
}


@dataclass(frozen=True)
class Line:
    """A line of the check.

    Attributes:
        name: name of the line.
        verdict: `PASS`, `FAIL`, or `NOT RUN`, which counts as a FAIL unless it is informational.
        finding: one sentence.
        figures: measured values by name, as JSON values; units stand in the names.
        seconds: duration of the line, with the processes that it started.
        is_informational: whether the check may pass without this line.
    """

    name: str
    verdict: str
    finding: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    is_informational: bool = False

    def __str__(self) -> str:
        """`PASS     12 s  device: NVIDIA H200, …`."""
        return f"{self.verdict:7} {self.seconds:4.0f} s  {self.name}: {self.finding}"


@dataclass(frozen=True)
class GpuCheck:
    """A check of a GPU: all lines, also those that have not run yet.

    Attributes:
        request: the checked environment.
        device: `gpu:N`.
        started: start in UTC, ISO 8601.
        commit: git commit of this project; None: unknown.
        limit_seconds: time limit of the whole check.
        lines: lines in the order of the check.
        seconds: its duration so far.
        machine: machine with its GPU, from `bench.measure.machine.describe`.
        lock: `name==version` of every distribution in the environment.
        is_complete: whether the check ended without interruption.
    """

    request: str
    device: str
    started: str
    commit: str | None
    limit_seconds: float
    lines: tuple[Line, ...]
    seconds: float = 0.0
    machine: Mapping[str, Any] = field(default_factory=dict)
    lock: tuple[str, ...] = ()
    is_complete: bool = False

    @property
    def verdict(self) -> str:
        """PASS once no line has failed, and all have run but informational ones; otherwise FAIL."""
        gated = [line for line in self.lines if not line.is_informational]
        passed = self.is_complete and gated and all(line.verdict == PASS for line in gated)
        return PASS if passed and all(line.verdict != FAIL for line in self.lines) else FAIL

    @property
    def headline(self) -> str:
        """`FAIL: 14 of 16 lines pass, 1 fails, 1 has not run`."""
        counts = dict.fromkeys((PASS, FAIL, NOT_RUN), 0)
        for line in self.lines:
            counts[line.verdict] += 1
        told = f"{counts[PASS]} of {len(self.lines)} lines pass"
        if counts[FAIL]:
            told += f", {counts[FAIL]} fail{'s' * (counts[FAIL] == 1)}"
        if counts[NOT_RUN]:
            told += f", {counts[NOT_RUN]} {'has' if counts[NOT_RUN] == 1 else 'have'} not run"
        return f"{self.verdict}: {told}"


def check_json(check: GpuCheck) -> str:
    """Returns the check as JSON with sorted keys; infinite and missing numbers are texts."""
    content = {**asdict(check), "format": _FORMAT, "kind": "gpu-check", "verdict": check.verdict}
    return json.dumps(ledger.plain(content), indent=2, sort_keys=True, allow_nan=False) + "\n"


def check_html(check: GpuCheck, json_name: str = "") -> str:
    """Returns the page: one file with its style, which loads nothing.

    Args:
        check: the check.
        json_name: name of the JSON file with all figures; empty: there is none.
    """
    speeds = [
        (line.figures["batch_size"], line.figures["images_per_second"])
        for line in check.lines
        if "images_per_second" in line.figures
    ]
    fastest = max((speed for _, speed in speeds), default=1.0)
    return render(
        "gpu_check.html",
        check=check,
        title=f"GPU check: {gpu_of(check)}",
        passed=sum(line.verdict == PASS for line in check.lines),
        speeds=[
            (f"{batch:,}", f"{speed:,.0f}", f"{100 * speed / fastest:.1f}")
            for batch, speed in speeds
        ],
        numerics=_numerics(check.lines),
        facts=_facts(check),
        json_name=json_name,
    )


def gpu_of(check: GpuCheck) -> str:
    """Returns the model of the GPU as TensorFlow names it, or the driver; else the device."""
    for line in check.lines:
        if "gpu" in line.figures:
            return str(line.figures["gpu"])
    return str(check.machine.get("gpu", {}).get("model", check.device))


def _numerics(lines: Sequence[Line]) -> Table | None:
    """Returns deviations and tolerances, a row per quantity and a column per mode."""
    held = [line.figures for line in lines if "deviations" in line.figures]
    if not held:
        return None
    rows = []
    for quantity in QUANTITIES:
        cells = []
        for figures in held:
            found, most = figures["deviations"][quantity], figures["tolerances"][quantity]
            cells.append(f"{found:.1e} of {most:.0e}{'' if found <= most else ' FAIL'}")
        rows.append((quantity, *cells))
    return Table(("quantity", *(str(figures["mode"]) for figures in held)), rows)


def _facts(check: GpuCheck) -> list[tuple[str, str]]:
    """Returns environment, device and machine, label and text."""
    said: Mapping[str, Any] = next((line.figures for line in check.lines if line.figures), {})
    gpu = check.machine.get("gpu", {})
    facts = {
        "environment": check.request,
        "device": check.device,
        **{label: said.get(name) for name, label in _FACTS.items()},
        **{_OF_DRIVER.get(name, name.replace("_", " ")): value for name, value in gpu.items()},
        "processor": check.machine.get("cpu"),
        "usable cores": check.machine.get("usable_cores"),
        "memory (GiB)": check.machine.get("memory_gib"),
        "system": check.machine.get("system"),
        "started": check.started,
        "duration": f"{check.seconds:.0f} s of at most {check.limit_seconds:.0f} s",
        "commit": check.commit,
        "packages": ", ".join(check.lock),
    }
    return [(label, str(text)) for label, text in facts.items() if text not in (None, "")]
