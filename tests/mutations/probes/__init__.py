"""Small things done with Keras that show whether it is broken as a breakage's name says.

Each probe goes the way of a user, by public names, and gives False with a Keras that is not broken.
"""

from __future__ import annotations

from tests.mutations.probes import fitting, layers, objectives, optimisers
from tests.mutations.probes.probe import Probe

PROBES: dict[str, Probe] = {
    **optimisers.PROBES,
    **layers.PROBES,
    **objectives.PROBES,
    **fitting.PROBES,
}
