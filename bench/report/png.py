"""Figures as PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable

import matplotlib.style
from matplotlib.figure import Figure

DPI = 100
WIDTH_INCHES = 10.5


def png_of(draw: Callable[[], Figure]) -> bytes:
    """A figure as a PNG file; it is drawn here, so that no style but ours is seen."""
    file = io.BytesIO()
    # A user's matplotlibrc must not change what a report looks like; a label may hold dollars.
    with matplotlib.style.context(["default", {"text.parse_math": False}]):
        draw().savefig(file, format="png", dpi=DPI)
    return file.getvalue()
