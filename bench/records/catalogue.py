"""What can be compared: every workload by name, without importing TensorFlow.

A workload's version changes whenever the code that it times does: results of unlike versions are
not put together. `bench.worker.workloads` and `bench.worker.main` hold the code itself.
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
    """What is known of a workload before it runs.

    Attributes:
        name: as in `-k` and in tables.
        version: of the code that is timed.
        gated: whether its verdict counts for the exit code.
        margin: largest ratio of candidate to baseline that is still acceptable; `None` is
            `--margin`'s. For `memory_growth` the largest difference in MiB a call.
        kind: how it is measured: `slice` in pairs within the block's two workers; the others
            once a side and block, `first_step` in the same workers, the rest in processes of
            their own.
        unit: of a sample.
        builder: name of the function in `bench.worker.workloads`, of slices.
        arguments: that it is called with.
        slice_seconds: what a slice is to last, about; its steps are fixed once per comparison.
        least_steps: of a slice, whatever they last.
        step_multiple: a slice's steps are a multiple of this.
        threads: TensorFlow's; `None` is `--threads`'s.
        in_turns: whether a slice lasts so long that the two sides take turns within it, each
            stopped while the other runs.
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
    in_turns: bool = False

    @property
    def is_difference(self) -> bool:
        """Whether sides are compared by their difference, not by their ratio."""
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
        # A block's value scatters by up to 5.0, 1.5 and 1.9 % in these three, by up to 0.9 and
        # 0.7 % in the loops (standard deviations by machine: bench/RESULTS.md).
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
    """The workloads that are asked for, with the project's own margins.

    Args:
        names: `gated`, `all`, or names separated by spaces.
        options: workload -> `{"margin": 1.05, "gated": true}`, from `pyproject.toml`.

    Returns:
        At least one, by name, in the order of the catalogue.

    Raises:
        InputError: an unknown workload or option, a margin out of range, or none is left.
    """
    specs = dict(WORKLOADS)
    for name, changes in options.items():
        specs[name] = replace(specs[_known(name)], **_checked(name, changes))
    if names == "all":
        return specs
    if names == "gated":
        gated = {name: spec for name, spec in specs.items() if spec.gated}
        if not gated:
            raise InputError("no workload is gated any more: name those that are to be measured")
        return gated
    return {name: specs[name] for name in _in_order(names.split())}


def check_margin(margin: float, name: str = "--margin") -> None:
    """Refuses a margin that is no ratio above 1.

    Raises:
        InputError: it is not within 1.001 to 10.
    """
    if not 1.001 <= margin <= 10:
        raise InputError(f"{name} is {margin}, expected a ratio from 1.001 to 10, such as 1.03")


def _in_order(names: Iterable[str]) -> list[str]:
    wanted = {_known(name) for name in names}
    if not wanted:
        raise InputError("--workloads names none: give gated, all, or names separated by spaces")
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
                raise InputError(f"margin of {name} is {value}, expected MiB a call above 0")
        elif not (option == "gated" and isinstance(value, bool)):
            raise InputError(f"option {option} = {value!r} of {name}: margin or gated is expected")
    return changes


PAIR_SECONDS = 6.0
