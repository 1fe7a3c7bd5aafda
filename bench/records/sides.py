"""Environments in records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.environments.builds import Built
from bench.environments.commands import EnvironmentProblem
from bench.environments.labels import Modules, is_for_cpus_only, labels, modules_of, packages_of
from bench.environments.request import Request
from lenet5.errors import InputError

# Facts reported by a worker with an effect on times, in addition to lock and settings.
_FACTS = {"python": "Python", "scheduling": "scheduling", "onednn": "oneDNN"}
_STATES = {"True": "on", "False": "off"}
_UNKNOWN = (None, "")
ON_CPU = "the CPU"


@dataclass(frozen=True)
class Side:
    """A requested environment, built or not.

    Attributes:
        request: requirements and settings, separated by spaces.
        label: short name for tables: `2.21.0`, or with Keras if that differs too.
        versions: `python`, `tensorflow`, `keras` and `keras_package` of the imported modules. A
            worker adds `numpy`, git version, build information, oneDNN and scheduling.
        lock: the full resolved list, `name==version` each, sorted.
        settings: variables of the environment.
        problem: reason for a failed build or start, in one or more lines; empty otherwise.
        unwanted: workloads of other candidates, not requested for this one.
        note: note of the build, for example about an earlier build in its place.
    """

    request: str
    label: str
    versions: Mapping[str, Any] = field(default_factory=dict)
    lock: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    unwanted: tuple[str, ...] = ()
    note: str = ""

    @property
    def modules(self) -> Modules:
        """Versions of TensorFlow and Keras from `bench.environments.labels.modules_of`."""
        return modules_of(self.lock, self.settings, self.versions)

    @property
    def reason(self) -> str:
        """Problem in one line, without the request at its start; empty without a problem."""
        return in_one_line(self.problem).removeprefix(f"{self.request}: ")

    @property
    def packages(self) -> dict[str, str]:
        """Versions by distribution."""
        return packages_of(self.lock)

    @property
    def is_for_cpus_only(self) -> bool:
        """Whether TensorFlow was built without GPU support."""
        return is_for_cpus_only(self.lock, self.versions)


def in_one_line(problem: str) -> str:
    """Returns a problem without line breaks, for a sentence, a cell or a list."""
    return " ".join(problem.split())


def labelled(sides: Sequence[Side]) -> list[Side]:
    """Returns the sides with unique labels; sides without a build keep theirs.

    All sides keep their labels if TensorFlow's version is unknown for a built side.
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
    """Returns the difference between two environments in words; empty if they are the same.

    Lock and settings always count; the lock includes the hashes of local wheels. Python's version,
    scheduling and oneDNN's state count only if both sides report them. Stored results may lack
    them, and the latter two are unknown before a worker has run.
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


def device_of(machine: Mapping[str, Any]) -> str:
    """Returns the device that was measured on a machine: `the CPU`, or the model of a GPU."""
    return ON_CPU if machine.get("gpu") is None else str(_gpu(machine).get("model", "a GPU"))


def unlike_machines(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Returns the difference between two machines in words; empty if they are alike.

    `machines`, `devices: the CPU and NVIDIA H200`, or `GPUs: driver 550.90 and 560.35`.
    """
    if one == other:
        return ""
    if device_of(one) != device_of(other):
        return f"devices: {device_of(one)} and {device_of(other)}"
    ours, theirs = _gpu(one), _gpu(other)
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if not names or {**one, "gpu": None} != {**other, "gpu": None}:
        return "machines"
    told = [
        f"{name.replace('_', ' ')} {ours.get(name, 'unknown')} and {theirs.get(name, 'unknown')}"
        for name in names
    ]
    return f"GPUs: {', '.join(told)}"


def _gpu(machine: Mapping[str, Any]) -> Mapping[str, Any]:
    gpu = machine.get("gpu")
    return gpu if isinstance(gpu, Mapping) else {}  # a ledger of others may hold anything


def with_told(side: Side, said: Mapping[str, Any]) -> Side:
    """Returns the side with the versions reported by a worker.

    Raises:
        InputError: the report contradicts an earlier worker's.
    """
    told = replace(side, versions={**side.versions, **said})
    if unlike := difference(side, told):
        raise InputError(f"{side.label} differs from the measured environment: {unlike}")
    return told


def _shown(fact: object) -> str:
    return _STATES.get(str(fact), str(fact))


def named_sides(
    requests: Sequence[Request], built: Sequence[Built | EnvironmentProblem]
) -> list[Side]:
    """Returns environments as sides with unique labels."""
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
        settings = dict(request.settings)
        return Side(request.text, next(names), versions, built.lock, settings, note=built.note)
    return Side(request.text, request.text, settings=dict(request.settings), problem=str(built))
