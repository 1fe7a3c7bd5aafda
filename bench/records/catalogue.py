"""Catalogue of all workloads by name; it does not import TensorFlow.

A workload's version changes with its timed code: results of different versions are never merged.
The code is in `bench.worker.workloads` and `bench.worker.main`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lenet5.errors import InputError

MEBIBYTES = "MiB"
SLICE, FIRST_STEP, IMPORT, MEMORY, GROWTH = "slice", "first_step", "import", "memory", "growth"


@dataclass(frozen=True)
class Spec:
    """Properties of a workload, known before it runs.

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
        arguments: arguments of the builder.
        slice_seconds: approximate duration of a slice; its steps are fixed once per comparison.
        least_steps: minimum number of steps of a slice, for any duration.
        step_multiple: divisor of the number of steps of a slice.
        threads: number of TensorFlow threads; `None`: `--threads`.
        logical_cpus: number of logical CPU devices; more than one need workers of their own.
        in_turns: whether both sides take turns within a slice because it is long; each is stopped
            while the other runs.
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

    @property
    def is_difference(self) -> bool:
        """Whether sides are compared by difference, not by ratio."""
        return self.kind == GROWTH


def _loop(batch: int, **more: Any) -> Spec:
    return _batched(f"train_step[loop,b{batch}]", "loop", batch, **more)


def _fit(batch: int, options: str = "", **more: Any) -> Spec:
    return _batched(f"fit[b{batch}{options}]", "fit", batch, least_steps=150, in_turns=True, **more)


def _batched(name: str, builder: str, batch: int, **more: Any) -> Spec:
    return Spec(name, 1, builder=builder, arguments={"batch_size": batch}, **more)


WORKLOADS: Mapping[str, Spec] = {
    spec.name: spec
    for spec in (
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
}


def select(names: str, options: Mapping[str, Mapping[str, Any]]) -> dict[str, Spec]:
    """Selects workloads, with the project's own margins.

    Args:
        names: `gated`, `all`, or names separated by spaces.
        options: workload -> `{"margin": 1.05, "gated": true}`, from `pyproject.toml`.

    Returns:
        At least one workload, by name, in the order of the catalogue.

    Raises:
        InputError: a workload or option is unknown, a margin is out of range, or no workload is
            left.
    """
    specs = dict(WORKLOADS)
    for name, changes in options.items():
        specs[name] = replace(specs[_known(name)], **_checked(name, changes))
    if names == "all":
        return specs
    if names == "gated":
        gated = {name: spec for name, spec in specs.items() if spec.gated}
        if not gated:
            raise InputError("no workload is gated: name workloads")
        return gated
    return {name: specs[name] for name in _in_order(names.split())}


def check_margin(margin: float, name: str = "--margin") -> None:
    """Rejects a margin outside its range.

    Raises:
        InputError: the margin is not a ratio from 1.001 to 10.
    """
    if not 1.001 <= margin <= 10:
        raise InputError(f"{name} is {margin}, expected a ratio from 1.001 to 10, such as 1.03")


def _in_order(names: Iterable[str]) -> list[str]:
    wanted = {_known(name) for name in names}
    if not wanted:
        raise InputError("--workloads is empty: give gated, all, or names separated by spaces")
    return [name for name in WORKLOADS if name in wanted]


def _known(name: str) -> str:
    if name not in WORKLOADS:
        raise InputError(f"unknown workload {name}, choose from {' '.join(WORKLOADS)}")
    return name


def _checked(name: str, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(changes, Mapping):
        raise InputError(f"{name} = {changes!r}: a table of margin and gated is expected")
    for option, value in changes.items():
        if option == "margin" and isinstance(value, float | int) and not isinstance(value, bool):
            if not WORKLOADS[name].is_difference:
                check_margin(value, f"margin of {name}")
            elif not 0 < value < math.inf:
                raise InputError(f"margin of {name} is {value}, expected MiB per call above 0")
        elif not (option == "gated" and isinstance(value, bool)):
            raise InputError(f"option {option} = {value!r} of {name}: margin or gated is expected")
    return changes


PAIR_SECONDS = 6.0
