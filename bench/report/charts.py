"""Parts of charts: PNG files, the axis of ratios or differences, margin, intervals."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.records.blocks import WorkloadTerms
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import Decision
from lenet5.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 100
WIDTH_INCHES = 10.5
LONGEST_NAME = 34
BEHIND_TEXT = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.8}

# Blue and vermilion (darkened to a contrast of 4.5 to white) of Okabe & Ito (2008), and grey. The
# marker carries the same information without colour.
COLOURS = {Verdict.PASS: "#0072B2", Verdict.FAIL: "#BF5300", Verdict.INCONCLUSIVE: "#707070"}
MARKERS = {Verdict.PASS: "o", Verdict.FAIL: "X", Verdict.INCONCLUSIVE: "D"}
FAINT = "#707070"
WORSE = "#FBEEE4"  # background of the region beyond the margin

# A minority of ratios further from 1 than this many margins is drawn at the edge.
_REACH = 6.0


_Arguments = ParamSpec("_Arguments")


def png_of(
    draw: Callable[_Arguments, Figure], *arguments: _Arguments.args, **options: _Arguments.kwargs
) -> bytes:
    """Returns a drawn figure as a PNG file, 1050 pixels wide."""
    file = io.BytesIO()
    # A user's matplotlibrc must not change the report; labels may contain dollar signs.
    with matplotlib.style.context(["default", {"text.parse_math": False}]):
        draw(*arguments, **options).savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def new_figure(height_inches: float) -> Figure:
    """Returns an empty figure of the report's width."""
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")


def message_figure(message: str) -> Figure:
    """Returns a figure with a single line of text."""
    figure = new_figure(0.8)
    figure.text(0.5, 0.5, message, ha="center", va="center", fontsize=12, color=FAINT)
    return figure


def short(text: str) -> str:
    """Returns a label or name in one printable line, truncated to the length allowed in charts."""
    words = printable(" ".join(text.split()))
    return words if len(words) <= LONGEST_NAME else f"{words[: LONGEST_NAME - 1]}…"


def equal(terms: WorkloadTerms) -> float:
    """Returns the value for equal sides: 0 for a difference, 1 for a ratio."""
    return 0.0 if terms.is_difference else 1.0


def quantity(terms: WorkloadTerms) -> str:
    """Returns the label of an axis, with the unit."""
    if terms.is_difference:
        return f"candidate - baseline ({terms.unit} a call)"
    return f"{'time' if terms.unit == 's' else 'memory'}, candidate / baseline"


def scale(*, is_difference: bool) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Returns the transform of values to axis positions and its inverse: log for ratios only."""
    return (float, float) if is_difference else (math.log, math.exp)


def limits(rows: Sequence[Decision], *, is_difference: bool) -> tuple[float, float]:
    """Returns the ends of an axis with all values within a multiple of the largest margin."""
    forward, back = scale(is_difference=is_difference)
    marks = [0.0, *(forward(d.terms.margin) for d in rows)]
    reach = _REACH * max(abs(mark) for mark in marks)
    middles = [forward(d.ratio) for d in rows if math.isfinite(d.ratio)]
    if 2 * sum(abs(middle) <= reach for middle in middles) <= len(middles):
        reach = max((abs(middle) for middle in middles), default=0.0)
    ends = [forward(x) for d in rows for x in (d.low, d.high) if math.isfinite(x)]
    near = [*marks, *(x for x in (*middles, *ends) if abs(x) <= reach)]
    low, high = min(near), max(near)
    room = 0.08 * ((high - low) or 1)
    return back(low - room), back(high + room)


def set_value_axis(
    axes: Axes,
    name: Literal["x", "y"],
    low: float,
    high: float,
    *,
    is_difference: bool,
    ticks: int = 8,
) -> None:
    """Sets limits and round ticks of the axis `x` or `y`; log scale for ratios."""
    if not is_difference:
        axes.set(**{f"{name}scale": "log"})
    axes.set(**{f"{name}lim": (low, high)})
    if is_difference or high / low < 4:
        places = MaxNLocator(ticks, steps=[1, 2, 5, 10]).tick_values(low, high)
    else:
        places = LogLocator(subs=(1, 2, 5)).tick_values(low, high)
    axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(FixedLocator([x for x in places if low <= x <= high]))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_locator(NullLocator())
    clear(axes, name)


def clear(axes: Axes, grid: Literal["x", "y"]) -> None:
    """Hides the top and right spines and draws a faint grid across one axis."""
    axes.grid(axis=grid, color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_margin(axes: Axes, terms: WorkloadTerms, high: float) -> None:
    """Draws horizontal lines at the margin and at equality; shades the region beyond the margin."""
    axes.axhspan(terms.margin, high, color=WORSE, linewidth=0, zorder=0)
    axes.axhline(terms.margin, color=COLOURS[Verdict.FAIL], linewidth=1.2, linestyle="--")
    axes.axhline(equal(terms), color="black", linewidth=0.8)
    # The margin is above: the two labels extend in opposite directions, even for close lines.
    names = ((terms.margin, f"margin {terms.margin:g}", "bottom"), (equal(terms), "equal", "top"))
    for height, text, side in names:
        axes.annotate(
            text,
            (1, height),
            (6, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            va=side,
            fontsize=9,
        )


def draw_interval(
    axes: Axes, place: float, d: Decision, span: tuple[float, float], *, horizontal: bool = False
) -> None:
    """Draws a marker and a line, clipped at the axis's ends, with arrows for values beyond.

    The marker is hollow without an interval.
    """
    if math.isnan(d.ratio):
        return
    low, high = span
    colour = COLOURS[d.verdict]

    def plot(values: Sequence[float], **style: Any) -> None:
        places = [place] * len(values)
        points = (values, places) if horizontal else (places, values)
        axes.plot(*points, color=colour, zorder=3, clip_on=False, **style)

    below, above = "<>" if horizontal else "v^"
    if not math.isnan(d.low):
        plot([min(max(end, low), high) for end in (d.low, d.high)], linewidth=2)
        if d.low < low:
            plot([low], marker=below, markersize=6)
        if d.high > high:
            plot([high], marker=above, markersize=6)
    if not low <= d.ratio <= high:
        beyond = (low, below) if d.ratio < low else (high, above)
        plot([beyond[0]], marker=beyond[1], markersize=10)
    elif math.isnan(d.low):
        plot([d.ratio], marker=MARKERS[d.verdict], markersize=8, fillstyle="none")
    else:
        plot([d.ratio], marker=MARKERS[d.verdict], markersize=10, markeredgecolor="white")


def draw_legend(axes: Axes, verdicts: Iterable[Verdict]) -> None:
    """Draws the markers of the occurring verdicts, in one line above the axes."""
    handles = [
        Line2D([], [], color=COLOURS[verdict], marker=MARKERS[verdict], label=verdict.value)
        for verdict in Verdict
        if verdict in verdicts
    ]
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1, 1.03),
        ncols=len(handles) or 1,
        frameon=False,
        borderaxespad=0,
        fontsize=9,
    )


def draw_note(axes: Axes, place: float, text: str) -> None:
    """Draws a short text at the top of the axes."""
    where = axes.get_xaxis_transform()
    style: dict[str, Any] = {"fontsize": 9, "color": FAINT, "bbox": BEHIND_TEXT}
    axes.text(place, 0.97, text, transform=where, ha="center", va="top", **style)
