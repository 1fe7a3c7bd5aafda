"""The catalogue of breakages of Keras and TensorFlow themselves.

Each patches what is imported, in a child process of its own, and leaves what is installed alone.
Nothing here imports TensorFlow before a breakage is installed.
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
    """The breakage of that name.

    Raises:
        KeyError: there is none.
    """
    return {breakage.name: breakage for breakage in BREAKAGES}[name]
