"""Chart of images per second."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from bench.report import charts
from bench.report.throughput import Throughput

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Okabe & Ito (2008), distinguishable with any colour vision; grey for names without these words.
COLOURS = {"loop": "#0072B2", "fit": "#E69F00", "original": "#009E73", "predict": "#CC79A7"}
OTHER_COLOUR = "#999999"


def throughput_figure(rows: Sequence[Throughput]) -> Figure:
    """Draws bars of the median images per second, with a line from slowest to fastest round.

    Training and prediction have separate panels, since prediction is many times faster.

    Args:
        rows: Measured throughput, not empty; bars are in this order from the top.
    """
    predictions = [row for row in rows if "predict" in row.name]
    panels = [
        ("Training", [row for row in rows if "predict" not in row.name]),
        ("Prediction", predictions),
    ]
    panels = [(title, panel) for title, panel in panels if panel]
    heights = [len(panel) for _, panel in panels]
    figure = charts.new_figure(0.2 + 0.36 * sum(heights) + 0.7 * len(panels))  # 0.7: title and axis
    grid = figure.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (title, panel) in zip(grid[:, 0], panels, strict=True):
        _draw_bars(axes, panel)
        axes.set_title(title, loc="left", fontsize=11)
    grid[-1, 0].set_xlabel("images per second")
    return figure


def _draw_bars(axes: Axes, rows: Sequence[Throughput]) -> None:
    for position, row in enumerate(rows):
        rates = row.images_per_second
        middle, low, high = median(rates), min(rates), max(rates)
        axes.barh(position, middle, height=0.68, color=_colour(row.name))
        axes.plot([low, high], [position, position], color="black", linewidth=1.5, marker="|")
        axes.annotate(
            f"{middle:,.0f}", (high, position), (6, 0), textcoords="offset points", va="center"
        )
    fastest = max(max(row.images_per_second) for row in rows)
    axes.set_xlim(0, 1.1 * fastest)  # space for the number next to the longest bar
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # bars equally thick in all panels, the first at the top
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _colour(name: str) -> str:
    return next((colour for word, colour in COLOURS.items() if word in name), OTHER_COLOUR)
