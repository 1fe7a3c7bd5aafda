"""Catalogue of breakages of Keras and TensorFlow.

Each breakage patches imported modules in a separate child process; installed files stay unchanged.
This package does not import TensorFlow before a breakage is installed.
"""

from __future__ import annotations

from bench.mutations.framework import (
    callbacks,
    fitting,
    layers,
    objectives,
    optimisers,
    saving,
)
from bench.mutations.framework.breakage import Breakage

BREAKAGES: tuple[Breakage, ...] = (
    *optimisers.BREAKAGES,
    *layers.BREAKAGES,
    *objectives.BREAKAGES,
    *fitting.BREAKAGES,
    *callbacks.BREAKAGES,
    *saving.BREAKAGES,
)


def find_breakage(name: str) -> Breakage:
    """Returns the breakage with that name.

    Raises:
        KeyError: No breakage has that name.
    """
    return {breakage.name: breakage for breakage in BREAKAGES}[name]
