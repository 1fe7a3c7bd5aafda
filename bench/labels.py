"""Short names of environments for tables: TensorFlow's version, and what differs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu")


def labels(
    locks: Sequence[tuple[str, ...]],
    settings: Sequence[Mapping[str, str]],
    python_versions: Sequence[str] = (),
) -> list[str]:
    """Short names for tables: TensorFlow's version, and what differs where that is the same.

    Args:
        locks: of the baseline, then of the candidates; empty where one could not be built.
        settings: of the same.
        python_versions: of the same, if they may differ.

    Returns:
        As many names, all different; `again` marks an environment that is there already.
    """
    packages = [packages_of(lock) for lock in locks]
    sides = list(zip(packages, settings, python_versions or [""] * len(locks), strict=True))
    names = [_tensorflow(held) for held in packages]
    names = _told_apart(names, [_facets(*side) for side in sides])
    everything = [{name: f"+ {name} {held[name]}" for name in held} for held in packages]
    unique: list[str] = []
    for place, name in enumerate(_told_apart(names, everything, most=2)):
        first = sides.index(sides[place])
        label = name if first == place else f"{unique[first]} again"
        number = 1 + sum(other.startswith(label) for other in unique)
        unique.append(f"{label} ({number})" if label in unique else label)
    return unique


def tensorflow_version(lock: Sequence[str]) -> str:
    """TensorFlow's version in a lock, whatever its distribution is called."""
    return _tensorflow(packages_of(lock))


def _told_apart(
    names: Sequence[str], facets: Sequence[Mapping[str, str]], most: int = 99
) -> list[str]:
    """Adds to each name the facets that differ among the sides of this name."""
    longer = []
    for name, own in zip(names, facets, strict=True):
        group = [other for same, other in zip(names, facets, strict=True) if same == name]
        texts = [own[key] for key in own if len({other.get(key) for other in group}) > 1]
        more = [f"and {len(texts) - most} more"] if len(texts) > most else []
        longer.append(" ".join([name, *texts[:most], *more]))
    return longer


def _facets(
    packages: Mapping[str, str], settings: Mapping[str, str], python: str
) -> dict[str, str]:
    """What sides of one TensorFlow may differ in, by kind, in the order that it is told in."""
    facets = {}
    for name in _TENSORFLOW:
        if name in packages:
            facets = {"name": f"({name})", "wheel": packages[name].partition(" ")[2]}
    shown = dict(settings)
    keras = [f"+ Keras {packages[name]}" for name in ("keras", "keras-nightly") if name in packages]
    if settings.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true") and "tf-keras" in packages:
        keras = [f"+ tf-keras {packages['tf-keras']}"]
        del shown["TF_USE_LEGACY_KERAS"]
    facets["keras"] = " ".join(keras[:1])
    facets["python"] = f"+ Python {python}"
    facets.update({name: f"{name}={shown[name]}" for name in sorted(shown)})
    return {kind: text for kind, text in facets.items() if text}


def packages_of(lock: Sequence[str]) -> dict[str, str]:
    """A lock's versions by name; of a local wheel with the begin of its SHA-256."""
    entries = (re.split(r"==| @ sha256:", entry) for entry in lock)
    return {
        name: f"{version} (wheel {digest[0][:7]})" if digest else version
        for name, version, *digest in entries
    }


def _tensorflow(packages: Mapping[str, str]) -> str:
    found = [packages[name].split()[0] for name in _TENSORFLOW if name in packages]
    return (found or ["unknown TensorFlow" if packages else "not built"])[0]
