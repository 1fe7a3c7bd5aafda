"""Environments as text: their order, their differences, and tables of their versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from packaging.version import Version

from bench.records.blocks import Results
from bench.records.sides import Side
from bench.report.tables import Table
from lenet5.devices import CPU
from lenet5.environment import device_text, on_or_off

SAME_KERAS = "the baseline's Keras"
OTHER_KERAS = "other versions of Keras"
CPUS_ONLY = ("Devices", "CPUs only: GPUs are hidden from TensorFlow")
DEVICE_FACTS = (
    *("device", "gpu", "compute_capability", "cuda", "cudnn", "tf32", "deterministic_ops"),
)
"""Entries of `devices.describe_device` that `device_row` shows."""
_LABELS = {
    "tensorflow": "TensorFlow",
    "tensorflow_package": "TensorFlow's package",
    "tensorflow_built": "TensorFlow's build date",
    "tensorflow_git": "TensorFlow's git version",
    "build": "Build information",
    "keras": "Keras",
    "lenet5": "lenet5",
    "keras_package": "Keras's package",
    "numpy": "NumPy",
    "python": "Python",
    "onednn": "oneDNN",
    "cpu": "CPU",
    "flags": "CPU flags",
    "memory_gib": "Memory (GiB)",
    "gpu": "GPU",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "tf32": "TF32",
}


def version_order(results: Results) -> list[int]:
    """Returns candidates by version of TensorFlow, Keras, NumPy, Python; ties in given order."""
    places = range(len(results.candidates))
    return sorted(places, key=lambda place: version_key(results.candidates[place]))


def version_key(side: Side) -> list[Version]:
    """Returns the sort key of `version_order`."""
    modules = side.modules
    others = (str(side.versions.get(name, "")) for name in ("numpy", "python"))
    texts = (modules.tensorflow or side.label, modules.keras, *others)  # label: if not built
    return [_version(text) for text in texts]


def differs_in(side: Side, baseline: Side) -> str:
    """Returns the axis of a candidate: settings, another Keras, or neither."""
    settings = [f"{name}={value}" for name, value in sorted(side.settings.items())]
    if dict(side.settings) != dict(baseline.settings):
        return f"with {' '.join(settings) or 'no settings'}"
    known = side.modules.keras, baseline.modules.keras
    return SAME_KERAS if "" in known or known[0] == known[1] else OTHER_KERAS


def environment_table(baseline: Side, candidate: Side) -> Table:
    """Returns request and versions of both sides, and differing packages of a built candidate."""
    rows: list[tuple[str, ...]] = [*version_rows(baseline, candidate)]
    if candidate.lock:
        packages = lock_differences(baseline, candidate)
        rows += [(f"Packages that differ:{'' if packages else ' none'}",), *packages]
    return Table(("", baseline.label, candidate.label), rows, left=None)


def age_note(side: Side, measured: str) -> str:
    """Returns a sentence on date and age of a nightly TensorFlow; empty for others.

    Args:
        side: the environment.
        measured: start of the measurement, ISO 8601.
    """
    built = side.modules.built
    try:
        days = (date.fromisoformat(measured[:10]) - date.fromisoformat(built)).days
    except ValueError:  # not nightly, or of unknown date
        return ""
    return (
        f"{side.label}: the nightly build of {built} was {days:,} day{'' if days == 1 else 's'} "
        "old when it was measured."
    )


def version_rows(baseline: Side, candidate: Side) -> list[tuple[str, str, str]]:
    """Returns request, settings and versions of both sides, each with a heading."""
    held = {**baseline.versions, **candidate.versions}
    keys = [key for key in _LABELS if key in held] + [key for key in held if key not in _LABELS]
    return [
        ("Request", baseline.request, candidate.request),
        ("Settings", text_of(baseline.settings), text_of(candidate.settings)),
        *(
            (label(key), text_of(baseline.versions.get(key)), text_of(candidate.versions.get(key)))
            for key in keys
        ),
    ]


def lock_differences(baseline: Side, candidate: Side) -> list[tuple[str, str, str]]:
    """Returns packages with different versions in two locks: name, there, here; '' if absent."""
    there, here = baseline.packages, candidate.packages
    names = sorted(set(there) | set(here))
    rows = [(name, there.get(name, ""), here.get(name, "")) for name in names]
    return [row for row in rows if row[1] != row[2]]


def facts(values: Mapping[str, object]) -> list[tuple[str, str]]:
    """Returns machine, options or versions as rows of label and text."""
    return [(label(key), text_of(value)) for key, value in values.items()]


def device_row(environment: Mapping[str, object]) -> tuple[str, str]:
    """Returns the row "Devices" of an environment; without the entry `device` it is the CPU.

    A GPU is shown with its mode, its compute capability, and the CUDA of TensorFlow's build.
    """
    if environment.get("device", CPU.name) == CPU.name:
        return CPUS_ONLY
    names = {"compute_capability": "compute capability", "cuda": "CUDA", "cudnn": "cuDNN"}
    known = [name for name in names if environment.get(name) is not None]
    more = [f"{names[name]} {text_of(environment[name])}" for name in known]
    return CPUS_ONLY[0], "; ".join([device_words(environment), *more])


def device_words(environment: Mapping[str, object]) -> str:
    """Returns the device of an environment: `CPU only`, or a GPU with both of its modes."""
    text = device_text(environment)
    if "deterministic_ops" not in environment:  # the CPU, or a GPU that was not started
        return text
    return f"{text}, deterministic operations {on_or_off(environment['deterministic_ops'])}"


def label(key: str) -> str:
    """Returns the displayed form of a key of machine, options or versions."""
    words = key.replace("_", " ")
    return _LABELS.get(key, f"{words[:1].upper()}{words[1:]}")


def text_of(value: object) -> str:
    """Returns a value as text; a missing one is "not known"."""
    if value is None:
        return "not known"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def moment(text: str) -> str:
    """Formats an ISO 8601 time in UTC to the minute; returns any other text unchanged."""
    return f"{text[:10]} {text[11:16]} UTC" if text.endswith(("+00:00", "Z")) else text


def _version(text: str) -> Version:
    """The first version in a text; 0 without one."""
    found = re.search(r"\d+(\.\w+)+(\+\w[\w.]*)?", text)
    try:
        return Version(found[0] if found else "0")
    except ValueError:  # no version, or one with thousands of digits
        return Version("0")
