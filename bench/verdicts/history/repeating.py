"""Requests that repeat a measured environment as closely as a line of words can."""

from __future__ import annotations

import re
import shlex

from bench.environments.labels import KERAS, is_tensorflow
from bench.environments.request import quoted
from bench.records.sides import Side

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def repeating_request(side: Side) -> str:
    """Returns a side's request with the versions that its lock had then.

    Requested packages, TensorFlow, Keras and NumPy are pinned. An existing Python and wheels stay
    as they are: only their owner knows what they hold today.
    """
    try:
        words = shlex.split(side.request)
    except ValueError:  # a ledger of others may hold any text
        return side.request
    if not words or any(word == "." or word.startswith("python:") for word in words):
        return side.request
    packages = {name: version for name, version in side.packages.items() if " " not in version}
    told: set[str] = set()
    shown = []
    for word in words:
        found = _NAME.match(word.removeprefix("without:").removeprefix("override:"))
        name = re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""
        is_plain = not word.endswith(".whl") and not re.match(
            r"(override|without):|\w+=(?!=)", word
        )
        told.add(name)
        shown.append(f"{name}=={packages[name]}" if is_plain and name in packages else word)
    shown += [f"{name}=={packages[name]}" for name in packages if _decides(name) - told]
    return " ".join(map(quoted, shown))


def _decides(name: str) -> set[str]:
    """Returns a name that is pinned even if nobody asked for it, or nothing."""
    is_keras = any(kind.fullmatch(name) for kind in KERAS.values())
    return {name} if is_tensorflow(name) or is_keras or name == "numpy" else set()
