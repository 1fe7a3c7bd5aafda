"""Catalogues of all workloads by name, one for CPUs and one for GPUs; no import of TensorFlow.

A workload's version changes with its timed code: results of different versions are never merged.
The code is in `bench.worker.workloads` and `bench.worker.main`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lenet5.errors import InputError

MEBIBYTES = "MiB"
SLICE, FIRST_STEP, IMPORT, MEMORY, GROWTH = "slice", "first_step", "import", "memory", "growth"
DEVICE_MEMORY, FIRST_FIT = "device_memory", "first_fit"


@dataclass(frozen=True)
class Spec:
    """Properties of a workload on a kind of device, known before it runs.

    Attributes:
        name: name in `-k` and in tables.
        version: version of the timed code.
        gated: whether its verdict counts for the exit code.
        margin: largest acceptable ratio of candidate to baseline; `None`: `--margin`. For
            `memory_growth`, the largest acceptable difference in MiB per call.
        kind: method of measurement. A `slice` runs in pairs within the block's two workers. Other
            kinds give one sample per side and block: `first_step` in the same workers, the rest in
            separate processes.
        unit: unit of a sample.
        builder: function in `bench.worker.workloads`, for slices.
        arguments: arguments of the builder, or of the worker's command `first_fit`.
        slice_seconds: approximate duration of a slice; its steps are fixed once per comparison.
        least_steps: minimum number of steps of a slice, for any duration.
        step_multiple: divisor of the number of steps of a slice.
        threads: number of TensorFlow threads; `None`: `--threads`.
        logical_cpus: number of logical CPU devices; more than one need workers of their own.
        in_turns: whether both sides take turns within a slice because it is long; each is stopped
            while the other runs. Never on a GPU: a stopped process leaves its kernels running.
        own_budget_seconds: the workload's own measuring time per candidate, in processes of its own
            at the end of a block; 0: a part of `--budget`. It is for work of unknown duration, such
            as XLA's compilation: it takes no time from other workloads, and at its end this
            workload alone is INCONCLUSIVE.
    """

    name: str
    version: int
    gated: bool = False
    margin: float | None = None
    kind: str = SLICE
    unit: str = "s"
    builder: str = ""
    arguments: Mapping[str, Any] | None = None
    slice_seconds: float = 0.03
    least_steps: int = 1
    step_multiple: int = 1
    threads: int | None = None
    logical_cpus: int = 1
    in_turns: bool = False
    own_budget_seconds: float = 0.0

    @property
    def is_difference(self) -> bool:
        """Whether sides are compared by difference, not by ratio."""
        return self.kind == GROWTH


def _loop(batch: int, **more: Any) -> Spec:
    return _batched(f"train_step[loop,b{batch}]", "loop", batch, **more)


def _fit(batch: int, options: str = "", **more: Any) -> Spec:
    return _batched(f"fit[b{batch}{options}]", "fit", batch, least_steps=150, in_turns=True, **more)


def _batched(
    name: str, builder: str, batch: int, options: Mapping[str, Any] | None = None, **more: Any
) -> Spec:
    arguments = {"batch_size": batch, **(options or {})}
    return Spec(name, 1, builder=builder, arguments=arguments, **more)


def _by_name(*specs: Spec) -> Mapping[str, Spec]:
    return {spec.name: spec for spec in specs}


WORKLOADS: Mapping[str, Spec] = _by_name(
    _loop(32, gated=True),
    _loop(128, gated=True),
    # Standard deviation of a block's value: at most 5.0, 1.5 and 1.9 % for the next three
    # workloads, at most 0.9 and 0.7 % for the loops (by machine: bench/RESULTS.md).
    _fit(32, gated=True, margin=1.05),
    Spec("fit_call", 1, gated=True, margin=1.05, builder="fit_call"),
    _batched("predict[b512]", "predict", 512, gated=True, margin=1.05),
    Spec("import", 1, gated=True, margin=1.25, kind=IMPORT),
    Spec("first_step", 2, gated=True, margin=1.25, kind=FIRST_STEP),
    Spec("peak_memory", 2, gated=True, margin=1.1, kind=MEMORY, unit=MEBIBYTES),
    _loop(512),
    _loop(2048),
    _batched("train_step[xla,b128]", "xla", 128),
    _batched("train_step[raw,b128]", "raw", 128),
    _fit(128),
    _fit(128, ",t2", threads=2),
    Spec(
        "fit[b128,mirrored2]",
        1,
        builder="fit_mirrored",
        arguments={"batch_size": 128, "replicas": 2},
        least_steps=150,
        threads=2,
        logical_cpus=2,
        in_turns=True,
    ),
    Spec(
        "original_fit[b32]",
        1,
        builder="original_fit",
        least_steps=300,
        step_multiple=300,
        in_turns=True,
    ),
    Spec("predict[b1]", 1, builder="predict_one", slice_seconds=0.3, in_turns=True),
    Spec("memory_growth", 1, margin=0.05, kind=GROWTH, unit=MEBIBYTES),
)
"""The workloads on CPUs."""

_OWN_BUDGET_SECONDS = 600.0  # of a workload that may compile with XLA, per candidate
_NO_XLA: Mapping[str, Any] = {"jit_compile": False}


def _first_fit(option: str, *, jit_compile: bool, gated: bool) -> Spec:
    return Spec(
        *(f"first_fit[{option}]", 1, gated, 1.25, FIRST_FIT),
        arguments={"jit_compile": jit_compile},
        own_budget_seconds=_OWN_BUDGET_SECONDS,
    )


# No scatter of blocks was measured on a GPU. The margins are wide and not calibrated: 1.1 for work
# that depends on the host, where no process is pinned; the default of 1.05 for steps. On a GPU,
# Keras compiles `fit` and `predict` with XLA unless told otherwise; a first `fit` of 100 steps took
# 6.2 s without XLA and more than 40 s with it (H200, TensorFlow 2.21.0, Keras 3.15.1). Gated
# workloads turn XLA off, so that they measure steps and not a compiler.
GPU_WORKLOADS: Mapping[str, Spec] = _by_name(
    _loop(32, gated=True),
    _loop(512, gated=True),
    _loop(2048, gated=True),
    _batched(*("fit[b512,nojit]", "fit", 512, _NO_XLA), gated=True, margin=1.1, least_steps=100),
    Spec("fit_call", 1, gated=True, margin=1.1, builder="fit_call", arguments=_NO_XLA),
    _batched(*("predict[b512]", "predict", 512, _NO_XLA), gated=True, margin=1.1, least_steps=36),
    Spec("import", 1, gated=True, margin=1.25, kind=IMPORT),
    Spec("first_step", 2, gated=True, margin=1.25, kind=FIRST_STEP),
    _first_fit("nojit", jit_compile=False, gated=True),
    Spec("peak_memory", 2, gated=True, margin=1.1, kind=MEMORY, unit=MEBIBYTES),
    Spec("device_memory", 1, gated=True, margin=1.1, kind=DEVICE_MEMORY, unit=MEBIBYTES),
    _loop(128),
    _batched(
        *("fit[b512,auto]", "fit", 512),
        margin=1.1,
        least_steps=100,
        own_budget_seconds=_OWN_BUDGET_SECONDS,
    ),
    _first_fit("xla", jit_compile=True, gated=False),
)
"""The workloads on a GPU."""


def workloads_on(device: str) -> Mapping[str, Spec]:
    """Returns the workloads of a device by name; `cpu`, or `gpu:N`."""
    return WORKLOADS if device == "cpu" else GPU_WORKLOADS


def select(
    names: str, options: Mapping[str, Mapping[str, Any]], device: str = "cpu"
) -> dict[str, Spec]:
    """Selects workloads of a device, with the project's own margins.

    Args:
        names: `gated`, `all`, or names separated by spaces.
        options: workload -> `{"margin": 1.05, "gated": true}`, from `pyproject.toml`.
        device: `cpu`, or `gpu:N`.

    Returns:
        At least one workload, by name, in the order of the catalogue.

    Raises:
        InputError: a workload or option is unknown, a margin is out of range, or no workload is
            left.
    """
    catalogue = workloads_on(device)
    specs = dict(catalogue)
    for name, changes in options.items():
        spec = specs[_known(name, catalogue, device)]
        specs[name] = replace(spec, **_checked(spec, changes))
    if names == "all":
        return specs
    if names == "gated":
        gated = {name: spec for name, spec in specs.items() if spec.gated}
        if not gated:
            raise InputError("no workload is gated: name workloads")
        return gated
    wanted = {_known(name, catalogue, device) for name in names.split()}
    if not wanted:
        raise InputError("--workloads is empty: give gated, all, or names separated by spaces")
    return {name: spec for name, spec in specs.items() if name in wanted}


def check_margin(margin: float, name: str = "--margin") -> None:
    """Rejects a margin outside its range.

    Raises:
        InputError: the margin is not a ratio from 1.001 to 10.
    """
    if not 1.001 <= margin <= 10:
        raise InputError(f"{name} is {margin}, expected a ratio from 1.001 to 10, such as 1.03")


def _known(name: str, catalogue: Mapping[str, Spec], device: str) -> str:
    if name not in catalogue:
        where = "" if device == "cpu" else " on a GPU"
        raise InputError(f"unknown workload {name}{where}, choose from {' '.join(catalogue)}")
    return name


def _checked(spec: Spec, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    name = spec.name
    if not isinstance(changes, Mapping):
        raise InputError(f"{name} = {changes!r}: a table of margin and gated is expected")
    for option, value in changes.items():
        if option == "margin" and isinstance(value, float | int) and not isinstance(value, bool):
            if not spec.is_difference:
                check_margin(value, f"margin of {name}")
            elif not 0 < value < math.inf:
                raise InputError(f"margin of {name} is {value}, expected MiB per call above 0")
        elif not (option == "gated" and isinstance(value, bool)):
            raise InputError(f"option {option} = {value!r} of {name}: margin or gated is expected")
    return changes


PAIR_SECONDS = 6.0
