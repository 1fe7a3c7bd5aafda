"""Options of pytest and its plugins that would skip, repeat, spread out or time out verdicts."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

BENDING = {
    "numprocesses": "-n",
    "tx": "--tx",
    "looponfail": "-f",
    "forked": "--forked",
    "reruns": "--reruns",
    "count": "--count",
    "flake_finder_enable": "--flake-finder",
    "timeout": "--timeout",
    "session_timeout": "--session-timeout",
    "benchmark_only": "--benchmark-only",
    "setupplan": "--setup-plan",  # also sets the next one
    "setuponly": "--setup-only",
}
SPREADING = ("numprocesses", "tx", "looponfail", "forked")
SKIPPING = ("benchmark_only", "setupplan", "setuponly")


def refuse_bending(config: pytest.Config, names: Iterable[str]) -> None:
    """Rejects the named options of `BENDING` if they are set.

    Raises:
        pytest.UsageError: Names the option.
    """
    given = {name: getattr(config.option, name, None) for name in names}
    if "timeout" in given and not given["timeout"]:
        given["timeout"] = _ini(config, "timeout") or os.environ.get("PYTEST_TIMEOUT")
    if getattr(config.option, "dist", "no") != "no":
        given["numprocesses"] = True
    for name, value in given.items():
        if value:
            told = "would skip, repeat, spread out or time out verdicts: remove it"
            raise pytest.UsageError(f"{BENDING[name]} {told}")


def _ini(config: pytest.Config, name: str) -> object:
    try:
        return config.getini(name)
    except (KeyError, ValueError):
        return None
