"""Charts of a bisection: the profile of all levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from bench.report import charts

_MISSING = "not measured"


@dataclass(frozen=True)
class Bar:
    """A level in the chart.

    Attributes:
        name: short name.
        mean: ratio to good, or difference; NaN without measurements.
        low: lower end of the interval.
        high: upper end of the interval.
        note: reason for a missing measurement; empty otherwise.
        is_step: whether a found step lies between this level and the one before.
    """

    name: str
    mean: float
    low: float
    high: float
    note: str = ""
    is_step: bool = False


def profile_figure(
    bars: Sequence[Bar], label: str, *, is_difference: bool, is_ordered: bool
) -> Figure:
    """Draws every level with its interval; steps are marked, levels without values are named."""
    figure = charts.new_figure(1.3 + 0.32 * len(bars))
    axes = figure.add_subplot()
    shown = [bar for bar in bars if math.isfinite(bar.mean)]
    ends = [x for bar in shown for x in (bar.low, bar.mean, bar.high) if math.isfinite(x)]
    low, high = min(ends, default=0.9), max(ends, default=1.1)
    room = 0.06 * ((high - low) or 0.02)
    charts.set_value_axis(axes, "x", low - room, high + 3 * room, is_difference=is_difference)
    for row, bar in enumerate(bars):
        colour = "#0072B2"
        if not math.isfinite(bar.mean):
            axes.text(
                0.01,
                row,
                charts.short(bar.note) or _MISSING,
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=9,
                color=charts.FAINT,
                style="italic",
            )
            continue
        if all(map(math.isfinite, (bar.low, bar.high))):
            axes.plot([bar.low, bar.high], [row, row], color=colour, linewidth=2)
        axes.plot(
            [bar.mean], [row], marker="o", color=colour, markeredgecolor="white", markersize=8
        )
        shown_value = f"{bar.mean:+.2f}" if is_difference else f"{bar.mean:.3f}"
        axes.annotate(
            shown_value,
            (1, row),
            (4, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    for row, bar in enumerate(bars):
        if not bar.is_step:
            continue
        top = row - 0.5 if is_ordered else row - 0.45
        if is_ordered:
            axes.axhline(top, color="#BF5300", linewidth=1.4, linestyle="--")
        else:
            axes.axhspan(top, row + 0.45, color=charts.WORSE, zorder=0)
        axes.annotate(
            "step",
            (1, top if is_ordered else row),
            (-4, 1 if is_ordered else -3),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9,
            color="#BF5300",
        )
    axes.axvline(0 if is_difference else 1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(bars)), [charts.short(bar.name) for bar in bars], fontsize=9)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlabel(label, fontsize=10)
    return figure
