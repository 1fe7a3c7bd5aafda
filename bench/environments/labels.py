"""Short names of environments for tables: TensorFlow's version, and the differences.

A process in the environment reports the versions of its imported modules. Without such a report,
the lock is the source. It lists distributions, and TensorFlow and Keras have many names
(`tf-nightly-cpu`, `keras-nightly`, a vendor's `intel-tensorflow`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from packaging.version import Version

# A vendor's prefix and build suffixes are optional; `tensorflow-datasets` does not match.
TENSORFLOW_BUILD = (
    r"(tensorflow|tf-nightly)"
    r"(-(aarch64|avx512|aws|cpu|directml|enhanced|gpu|intel|macos|rocm|tpu))*"
)
_TENSORFLOW = re.compile(rf"([a-z0-9]+-)?{TENSORFLOW_BUILD}")
KERAS = {
    "keras": re.compile(r"(keras|keras-nightly)"),
    "tf_keras": re.compile(r"(tf-keras|tf-keras-nightly)"),
}
_DATED = re.compile(r"\.dev(\d{4})(\d{2})(\d{2})\d*(\+.*)?$")
_CUDA = re.compile(r"nvidia-cuda-runtime(-cu\d+)?")  # one of what `tensorflow[and-cuda]` adds
_FOR_CPUS = re.compile(r"(^|-)(cpu|intel|macos|aarch64)(-|$)")


@dataclass(frozen=True)
class Modules:
    """Versions of TensorFlow and Keras after `import tensorflow` in an environment.

    Attributes:
        tensorflow: version; empty if unknown.
        keras: version of the Keras behind `tf.keras`; empty if unknown.
        keras_package: `keras`, or `tf_keras`.
        built: date of a nightly TensorFlow, ISO 8601; empty for others, or if unknown.
    """

    tensorflow: str
    keras: str
    keras_package: str
    built: str = ""


def modules_of(
    lock: Sequence[str], settings: Mapping[str, str], versions: Mapping[str, Any]
) -> Modules:
    """Returns an environment's modules, from the report of a process or else from the lock.

    Args:
        lock: lock of `bench.environments.builds.Built`.
        settings: settings of the environment.
        versions: `tensorflow`, `keras` and `keras_package`, reported by a process; empty without a
            process. `tensorflow_built` is the date of a nightly wheel.

    Returns:
        Versions in the form of PEP 440: `2.22.0rc0`, where TensorFlow reports `2.22.0-rc0`.
    """
    packages = packages_of(lock)
    tensorflow, keras = (str(versions.get(name) or "") for name in ("tensorflow", "keras"))
    package = str(versions.get("keras_package") or "keras")
    package = package if package in KERAS else "keras"
    if not keras:
        is_legacy = settings.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true")
        if is_legacy and _distribution(packages, KERAS["tf_keras"]):
            package = "tf_keras"
        keras = _locked(packages, KERAS[package])
    tensorflow = _canonical(tensorflow or _locked(packages, _TENSORFLOW))
    built = str(date_in_version(tensorflow) or versions.get("tensorflow_built") or "")
    return Modules(tensorflow, _canonical(keras), package, built)


def labels(
    locks: Sequence[tuple[str, ...]],
    settings: Sequence[Mapping[str, str]],
    python_versions: Sequence[str] = (),
    versions: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Returns short names for tables: TensorFlow's version, and differences at equal versions.

    If Keras differs as well as TensorFlow, the labels of the baseline and of such candidates name
    Keras too. Before 2.16, TensorFlow's version implies Keras's, and the label omits Keras.

    Args:
        locks: locks of the baseline and then of the candidates; empty for a failed build.
        settings: settings of the same sides.
        python_versions: Python versions of the same sides, if they may differ.
        versions: versions of the same sides, as in `modules_of`.

    Returns:
        One unique name per side; `again` marks a repeated environment.
    """
    packages = [packages_of(lock) for lock in locks]
    told = versions or [{}] * len(locks)
    modules = [modules_of(*side) for side in zip(locks, settings, told, strict=True)]
    pythons = python_versions or [""] * len(locks)
    sides = list(zip(packages, modules, settings, pythons, strict=True))
    unknown = ["unknown TensorFlow" if held else "not built" for held in packages]
    names = [_dated(of) or other for of, other in zip(modules, unknown, strict=True)]
    names = _told_apart(names, [_facets(*side) for side in sides], _with_keras(modules))
    everything = [{name: f"+ {name} {held[name]}" for name in held} for held in packages]
    unique: list[str] = []
    for place, name in enumerate(_told_apart(names, everything, most=2)):
        first = sides.index(sides[place])
        label = name if first == place else f"{unique[first]} again"
        number = 1 + sum(other.startswith(label) for other in unique)
        unique.append(f"{label} ({number})" if label in unique else label)
    return unique


def date_in_version(version: str) -> date | None:
    """Returns the date in a version such as `2.23.0.dev20261026`; None without a valid one."""
    if found := _DATED.search(version):
        with contextlib.suppress(ValueError):
            return date(*map(int, found.groups()[:3]))
    return None


def is_tensorflow(name: str) -> bool:
    """Returns whether a distribution's name, in its canonical form, is one of TensorFlow's."""
    return bool(_TENSORFLOW.fullmatch(name))


def tensorflow_version(lock: Sequence[str]) -> str:
    """Returns TensorFlow's version in a lock, for any name of its distribution."""
    return _locked(packages_of(lock), _TENSORFLOW) or "unknown TensorFlow"


def is_for_cpus_only(lock: Sequence[str], versions: Mapping[str, Any]) -> bool:
    """Returns whether TensorFlow lacks GPU support, by its build information or else its name."""
    build = versions.get("build")
    if isinstance(build, Mapping) and "is_cuda_build" in build:
        return all(build.get(f"is_{kind}_build") in (None, "False") for kind in ("cuda", "rocm"))
    return bool(_FOR_CPUS.search(_distribution(packages_of(lock), _TENSORFLOW)))


def packages_of(lock: Sequence[str]) -> dict[str, str]:
    """Returns a lock's versions by name; for a local wheel with the start of its SHA-256."""
    entries = (re.split(r"==| @ sha256:", entry) for entry in lock)
    return {
        name: f"{version} (wheel {digest[0][:7]})" if digest else version
        for name, version, *digest in entries
    }


def _dated(modules: Modules) -> str:
    """Returns TensorFlow's version, with the date of a nightly build unless it has it."""
    if not modules.built or date_in_version(modules.tensorflow):
        return modules.tensorflow
    return f"{modules.tensorflow} (built {modules.built})"


def _with_keras(modules: Sequence[Modules]) -> list[bool]:
    """Returns which labels name Keras: it differs, and TensorFlow's version does not imply it."""
    known = [each if each.keras else None for each in modules]
    first = known[0] if known else None
    others = [each for each in known if first and each and _keras_name(each) != _keras_name(first)]
    told = [first, *others] if others else []
    return [each in told and each is not None and not _is_own_keras(each) for each in known]


def _is_own_keras(modules: Modules) -> bool:
    """Returns whether TensorFlow's version implies Keras's: 2.15 requires Keras 2.15."""
    one, other = (text.split(".")[:2] for text in (modules.tensorflow, modules.keras))
    return modules.keras_package == "keras" and one == other


def _keras_name(modules: Modules) -> str:
    return f"{'tf-keras' if modules.keras_package == 'tf_keras' else 'Keras'} {modules.keras}"


def _told_apart(
    names: Sequence[str],
    facets: Sequence[Mapping[str, str]],
    with_keras: Sequence[bool] = (),
    most: int = 99,
) -> list[str]:
    """Adds to each name the differing facets of the sides with this name."""
    longer = []
    for place, (name, own) in enumerate(zip(names, facets, strict=True)):
        group = [other for same, other in zip(names, facets, strict=True) if same == name]
        differing = [key for key in own if len({other.get(key) for other in group}) > 1]
        forced = ["keras"] if with_keras and with_keras[place] else []
        texts = [own[key] for key in own if key in (*differing, *forced)]
        more = [f"and {len(texts) - most} more"] if len(texts) > most else []
        longer.append(" ".join([name, *texts[:most], *more]))
    return longer


def _facets(
    packages: Mapping[str, str], modules: Modules, settings: Mapping[str, str], python: str
) -> dict[str, str]:
    """Returns possible differences between sides with one TensorFlow, by kind, in label order."""
    facets = {}
    if name := _distribution(packages, _TENSORFLOW, modules.tensorflow):
        facets = {"name": f"({name})", "wheel": packages[name].partition(" ")[2]}
    if name := _distribution(packages, _CUDA):
        facets["cuda"] = f"+ CUDA {packages[name]}"
    shown = dict(settings)
    if modules.keras:
        name = _distribution(packages, KERAS[modules.keras_package], modules.keras)
        wheel = packages[name].partition(" ")[2] if name else ""
        facets["keras"] = f"+ {_keras_name(modules)} {wheel}".rstrip()
        if modules.keras_package == "tf_keras":
            shown.pop("TF_USE_LEGACY_KERAS", None)
    facets["python"] = f"+ Python {python}" if python else ""
    facets.update({name: f"{name}={shown[name]}" for name in sorted(shown)})
    return {kind: text for kind, text in facets.items() if text}


def _distribution(packages: Mapping[str, str], kind: re.Pattern[str], version: str = "") -> str:
    """Returns a distribution of this kind, preferably of this version; empty without one."""
    found = sorted((name for name in packages if kind.fullmatch(name)), key=_plainest)
    same = [name for name in found if _canonical(_first(packages[name])) == version]
    return (same or found or [""])[0]


def _plainest(name: str) -> tuple[bool, str]:
    """Sort key for names: TensorFlow's own first, since a vendor's prefix may mark an add-on."""
    return not name.startswith(("tensorflow", "tf-")), name


def _locked(packages: Mapping[str, str], kind: re.Pattern[str]) -> str:
    name = _distribution(packages, kind)
    return _first(packages[name]) if name else ""


def _first(version: str) -> str:
    """Returns a version without the hash of its wheel; a lock of others may lack the version."""
    return (version.split() or [""])[0]


def _canonical(version: str) -> str:
    try:
        return str(Version(version))
    except ValueError:  # no version, or one with thousands of digits
        return version
