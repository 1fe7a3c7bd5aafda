"""A probe of whether Keras is broken, and the comparison that each makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Probe = Callable[[], bool]  # whether Keras is broken as a breakage's name says


def agree(actual: Any, expected: Any, tolerance: float = 1e-5) -> bool:
    """Whether both are as good as equal, and of the same shape."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    return actual.shape == expected.shape and bool(
        np.allclose(actual, expected, rtol=tolerance, atol=tolerance)
    )
