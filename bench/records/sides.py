"""Environments as records hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.environments.builds import Built, EnvironmentProblem
from bench.environments.labels import Modules, is_for_cpus_only, labels, modules_of, packages_of
from bench.environments.request import Request
from lenet5.errors import InputError

# What of a worker's words changes times, beside lock and settings.
_FACTS = {"python": "Python", "scheduling": "scheduling", "onednn": "oneDNN"}
_STATES = {"True": "on", "False": "off"}
_UNKNOWN = (None, "")


@dataclass(frozen=True)
class Side:
    """An environment as it was built.

    Attributes:
        request: what was asked for: requirements and settings, separated by spaces.
        label: short name for tables: `2.21.0`, or with Keras where that differs too.
        versions: `python`, `tensorflow`, `keras` and `keras_package` of the modules that were
            imported there; once a worker has run `numpy` and what else it says of itself: git
            version, build information, oneDNN, scheduling.
        lock: the full resolved list, `name==version` each, sorted.
        settings: variables that were set.
        problem: why it could not be built or started, also in several lines; empty where it was.
        unwanted: workloads that others were measured on and this one was not to be.
    """

    request: str
    label: str
    versions: Mapping[str, Any] = field(default_factory=dict)
    lock: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    unwanted: tuple[str, ...] = ()

    @property
    def modules(self) -> Modules:
        """Versions of TensorFlow and Keras as `bench.environments.labels.modules_of` has them."""
        return modules_of(self.lock, self.settings, self.versions)

    @property
    def packages(self) -> dict[str, str]:
        """Versions by distribution."""
        return packages_of(self.lock)

    @property
    def is_for_cpus_only(self) -> bool:
        """Whether TensorFlow was built without support for GPUs."""
        return is_for_cpus_only(self.lock, self.versions)


def in_one_line(problem: str) -> str:
    """A problem for a sentence, a cell or a list: what it says, without its line breaks."""
    return " ".join(problem.split())


def labelled(sides: Sequence[Side]) -> list[Side]:
    """The sides with labels that tell them apart; those that were not built keep theirs.

    All keep theirs where TensorFlow's version is not known of one that was built.
    """
    built = [side for side in sides if side.lock]
    if not all(side.modules.tensorflow for side in built):
        return list(sides)
    names = iter(
        labels(
            [side.lock for side in built],
            [side.settings for side in built],
            [str(side.versions.get("python", "")) for side in built],
            [side.versions for side in built],
        )
    )
    return [replace(side, label=next(names)) if side.lock else side for side in sides]


def difference(one: Side, other: Side) -> str:
    """What makes two sides different environments, in words; empty if they are the same one.

    Lock and settings always count; the lock names the hashes of local wheels. Python's version,
    scheduling and oneDNN's state count where both sides tell them. Stored results may lack some,
    and a side tells the latter two only once a worker has run: what one side does not tell makes
    no two sides unlike.
    """
    if one.lock != other.lock:
        return "other packages"
    if dict(one.settings) != dict(other.settings):
        return "other settings"
    for name, shown in _FACTS.items():
        told, now = (side.versions.get(name) for side in (one, other))
        if told not in _UNKNOWN and now not in _UNKNOWN and told != now:
            return f"{shown} {_shown(told)} and {_shown(now)}"
    return ""


def with_told(side: Side, said: Mapping[str, Any]) -> Side:
    """The side with what a worker says of it.

    Raises:
        InputError: the worker says otherwise than one before it.
    """
    told = replace(side, versions={**side.versions, **said})
    if unlike := difference(side, told):
        raise InputError(f"{side.label} is not what was measured before: {unlike}")
    return told


def _shown(fact: object) -> str:
    return _STATES.get(str(fact), str(fact))


def named_sides(
    requests: Sequence[Request], built: Sequence[Built | EnvironmentProblem]
) -> list[Side]:
    """Environments as results hold them, with labels that tell them apart."""
    both = list(zip(requests, built, strict=True))
    there = [side for _, side in both if isinstance(side, Built)]
    names = iter(
        labels(
            [side.lock for side in there],
            [side.request.settings for side in there],
            [side.python_version for side in there],
            [side.versions for side in there],
        )
    )
    return [_side(side, request, names) for request, side in both]


def _side(built: Built | EnvironmentProblem, request: Request, names: Iterator[str]) -> Side:
    if isinstance(built, Built):
        versions = {"python": built.python_version, **built.versions}
        return Side(request.text, next(names), versions, built.lock, dict(request.settings))
    return Side(request.text, request.text, settings=dict(request.settings), problem=str(built))
