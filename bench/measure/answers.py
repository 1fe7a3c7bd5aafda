"""The form of each answer of a worker; a worker's text is untrusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.records import ledger
from bench.records.numerics import GRADIENTS
from lenet5.documents import is_deeper

_LEAST, _MOST = 1e-12, 1e12  # seconds and MiB that a record may hold
_DEEPEST = 20


_Fact = bool | str | int | float | None


@dataclass(frozen=True)
class _Started:
    versions: Mapping[str, _Fact | Mapping[str, _Fact]]


@dataclass(frozen=True)
class _Prepared:
    check: tuple[float, ...]


@dataclass(frozen=True)
class _Timed:
    value: float
    loss: float
    idle_cpu_seconds: float


@dataclass(frozen=True)
class _Slice:
    value: float
    cpu_seconds: float
    loss: float
    start: float
    end: float
    idle_cpu_seconds: float


@dataclass(frozen=True)
class _Growth:
    value: float
    threads: int


@dataclass(frozen=True)
class _Quantities:
    """Missing or short lists are wrong results, which the verdict names."""

    bits: str
    gradients: tuple[tuple[float, ...], ...]
    logits: tuple[float, ...] = ()
    loss: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.gradients) != len(GRADIENTS):
            raise ValueError(f"{len(self.gradients)} gradients")


@dataclass(frozen=True)
class _Computed:
    """Only a worker on a GPU reports its mode."""

    quantities: _Quantities
    tf32: bool | None = None
    deterministic_ops: bool | None = None


@dataclass(frozen=True)
class _Any:
    idle_cpu_seconds: float = field(default=0.0)


_FORMS: Mapping[str, type[Any]] = {
    "start": _Started,
    "prepare": _Prepared,
    "first_step": _Timed,
    "slice": _Slice,
    "memory": _Timed,
    "device_memory": _Timed,
    "first_fit": _Timed,
    "growth": _Growth,
    "numerics": _Computed,
}


def checked(do: str, answer: object) -> dict[str, Any]:
    """Returns a worker's answer, with every field that its command needs.

    Args:
        do: name of the command; `train` has a form of its own, `bench.records.trainings.Trained`.
        answer: parsed JSON.

    Raises:
        ValueError: a field is missing, has another type, or is beyond what a record may hold.
    """
    if not isinstance(answer, dict):
        raise ValueError(f"a JSON object is expected, not {type(answer).__name__}")
    if is_deeper(answer, _DEEPEST):
        raise ValueError("it is nested too deeply")
    form = ledger.made(_FORMS.get(do, _Any), answer)
    value = getattr(form, "value", 1.0)
    least = -_MOST if do == "growth" else _LEAST
    if not least <= value <= _MOST:  # NaN too
        raise ValueError(f"a measurement of {value:g}")
    if isinstance(form, _Slice) and not 0 <= form.end - form.start <= _MOST:
        raise ValueError(f"a slice from {form.start:g} to {form.end:g} s")
    return answer
