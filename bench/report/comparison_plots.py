"""Charts of a comparison: intervals by workload, and samples over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from bench.records.blocks import Block, Results, Samples, WorkloadTerms
from bench.records.catalogue import SLICE, WORKLOADS
from bench.report import charts
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import Decision, interval, value

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST_BLOCKS_NAMED = 16
DISTURBED = "#EEEEEE"
_COLUMNS = (8, 106, 236)  # offsets of verdict, ratio and margin from the axes, in points


def forest_figure(decisions: Sequence[Decision], results: Results, candidate: int) -> Figure:
    """Draws a candidate's ratios and intervals, one workload per row, gated ones first.

    Slices and whole processes have separate panels, since their margins differ much.
    Differences are omitted. Values far outside are arrows at the edge; figures are at the right.
    """
    rows = [d for d in decisions if d.candidate == candidate and not d.terms.is_difference]
    rows.sort(key=lambda d: not d.terms.gated)
    panels = [
        ("Slices: many pairs a block", [d for d in rows if _has_slices(d)]),
        ("Whole processes: one pair a block", [d for d in rows if not _has_slices(d)]),
    ]
    panels = [(title, panel) for title, panel in panels if panel]
    if not panels:
        return charts.message_figure("No workload was compared by its ratio")
    heights = [len(panel) for _, panel in panels]
    figure = charts.new_figure(0.35 + 0.34 * sum(heights) + 0.62 * len(panels))
    grid = figure.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (title, panel) in zip(grid[:, 0], panels, strict=True):
        _draw_forest(axes, panel)
        axes.set_title(title, loc="left", fontsize=11)
    sides = results.candidates[candidate], results.baseline
    names = " / ".join(charts.short(side.label) for side in sides)
    figure.supxlabel(
        f"ratio {names}, log scale; right of 1: slower or bigger; shaded: beyond the margin",
        fontsize=10,
    )
    return figure


def samples_figure(results: Results, workload: str) -> Figure:
    """Draws every pair of a workload as a dot and every block's value as a marker, over time.

    Each candidate has a panel. Disturbed blocks are hatched and labelled; failed ones have no dots.
    """
    terms = results.workloads[workload]
    groups = [
        [b for b in results.blocks if b.candidate == index and _concerns(b, workload)]
        for index in range(len(results.candidates))
    ]
    if not any(workload in block.samples for group in groups for block in group):
        return charts.message_figure(f"{charts.short(workload)}: nothing was measured")
    height = 2.3 if len(groups) < 4 else 1.6
    heights = [height if group else 0.6 for group in groups]
    figure = charts.new_figure(0.35 + sum(heights))
    grid = figure.subplots(len(groups), squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, side, group in zip(grid[:, 0], results.candidates, groups, strict=True):
        sides = f"{charts.short(side.label)} against {charts.short(results.baseline.label)}"
        axes.set_title(f"{charts.short(workload)}: {sides}", loc="left", fontsize=11)
        if group:
            _draw_samples(axes, group, workload, terms)
        else:
            axes.set_axis_off()
            axes.text(0, 0.5, "nothing was measured", transform=axes.transAxes, color=charts.FAINT)
    figure.supxlabel("block, started at (UTC); a dot is a pair, a marker the block", fontsize=10)
    figure.supylabel(charts.quantity(terms), fontsize=10)
    return figure


def _has_slices(d: Decision) -> bool:
    spec = WORKLOADS.get(d.workload)
    return spec.kind == SLICE if spec else d.terms.steps > 0


def _draw_forest(axes: Axes, rows: Sequence[Decision]) -> None:
    low, high = charts.limits(rows, is_difference=False)
    charts.set_value_axis(axes, "x", low, high, is_difference=False)
    axes.axvline(1, color="black", linewidth=0.8)
    for y, decision in enumerate(rows):
        margin, span = decision.terms.margin, [y - 0.5, y + 0.5]
        axes.fill_betweenx(span, margin, high, color=charts.WORSE, linewidth=0, zorder=0)
        axes.plot(
            [margin] * 2, span, color=charts.COLOURS[Verdict.FAIL], linewidth=1.2, linestyle="--"
        )
        charts.draw_interval(axes, y, decision, (low, high), horizontal=True)
        _describe(axes, y, decision)
    for points, heading in zip(_COLUMNS, ("verdict", "ratio (interval)", "margin"), strict=True):
        _beside(axes, -0.75, points, heading, color=charts.FAINT, fontsize=9)
    names = [charts.short(d.workload) + ("" if d.terms.gated else " (informational)") for d in rows]
    axes.set_yticks(range(len(rows)), names)
    for label, decision in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color("black" if decision.terms.gated else charts.FAINT)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _describe(axes: Axes, y: int, d: Decision) -> None:
    if math.isnan(d.ratio):
        ratio = "not measured"
    elif math.isnan(d.low):
        ratio = f"{d.ratio:.3f} (none yet)"
    else:
        ratio = f"{d.ratio:.3f} ({interval(d)})"
    _beside(axes, y, _COLUMNS[0], d.verdict.value, color=charts.COLOURS[d.verdict], weight="bold")
    _beside(axes, y, _COLUMNS[1], ratio)
    _beside(axes, y, _COLUMNS[2], f"{d.terms.margin:g}")


def _beside(axes: Axes, y: float, points: float, text: str, **style: Any) -> None:
    """Draws text right of the axes, in a column at an offset in points."""
    where = axes.get_yaxis_transform()
    style = {"xytext": (points, 0), "textcoords": "offset points", **style}
    axes.annotate(text, (1, y), xycoords=where, va="center", **style)


def _concerns(block: Block, workload: str) -> bool:
    failed = any(failure.workload in ("", workload) for failure in block.failures)
    return workload in block.samples or failed


def _draw_samples(axes: Axes, blocks: Sequence[Block], workload: str, terms: WorkloadTerms) -> None:
    """Draws blocks of equal width side by side, with the pairs of a block in their order."""
    _, back = charts.scale(is_difference=terms.is_difference)
    measured = [block.samples.get(workload) for block in blocks]
    pairs = [_pairs(samples, terms) if samples else [] for samples in measured]
    middles = [back(value(samples, terms)) if samples else math.nan for samples in measured]
    low, high = _sample_limits([x for block in pairs for x in block], middles, terms)
    charts.set_value_axis(axes, "y", low, high, is_difference=terms.is_difference, ticks=5)
    charts.draw_margin(axes, terms, high)
    axes.vlines(range(1, len(blocks)), low, high, color="#D8D8D8", linewidth=0.6)
    for slot, (block, values, middle) in enumerate(zip(blocks, pairs, middles, strict=True)):
        if block.disturbed:
            axes.axvspan(slot, slot + 1, facecolor=DISTURBED, hatch="//", edgecolor="#D8D8D8")
        if block.disturbed or not values:
            charts.draw_note(axes, slot + 0.5, "disturbed" if values else "failed")
        _draw_dots(axes, slot, values, low, high)
        fill = "none" if block.disturbed else "full"
        axes.plot(slot + 0.5, middle, "D", color="black", markersize=6, fillstyle=fill, zorder=4)
    shown = range(0, len(blocks), math.ceil(len(blocks) / MOST_BLOCKS_NAMED))
    names = [f"{blocks[slot].number + 1}\n{blocks[slot].started[11:16]}" for slot in shown]
    axes.set_xticks([slot + 0.5 for slot in shown], names, fontsize=9)
    axes.set_xlim(0, len(blocks))
    axes.tick_params(axis="x", length=0)


def _pairs(samples: Samples, terms: WorkloadTerms) -> list[float]:
    both = zip(samples.baseline.values, samples.candidate.values, strict=True)
    return [c - b if terms.is_difference else c / b for b, c in both]


def _sample_limits(
    pairs: Sequence[float], middles: Sequence[float], terms: WorkloadTerms
) -> tuple[float, float]:
    """Ends of the axis: margin, blocks, and pairs within three interquartile ranges."""
    forward, back = charts.scale(is_difference=terms.is_difference)
    near = [forward(charts.equal(terms)), forward(terms.margin)]
    near += [forward(middle) for middle in middles if math.isfinite(middle)]
    if len(pairs) > 1:
        places = [forward(pair) for pair in pairs]
        lower, _, upper = quantiles(places)
        reach = 3 * (upper - lower)
        near += [place for place in places if lower - reach <= place <= upper + reach]
    low, high = min(near), max(near)
    room = 0.1 * (high - low)
    return back(low - room), back(high + 2 * room)  # space for notes at the top


def _draw_dots(axes: Axes, slot: int, values: Sequence[float], low: float, high: float) -> None:
    """Draws faint dots, with triangles at the edge for values beyond; no dot for a single pair."""
    if len(values) < 2:
        return
    places = [slot + 0.06 + 0.88 * order / (len(values) - 1) for order in range(len(values))]
    points = list(zip(places, values, strict=True))
    for marker, size, chosen in (
        (".", 4 if len(values) > 60 else 7, [(x, y) for x, y in points if low <= y <= high]),
        ("v", 5, [(x, low) for x, y in points if y < low]),
        ("^", 5, [(x, high) for x, y in points if y > high]),
    ):
        columns = [x for x, _ in chosen], [y for _, y in chosen]
        colour = charts.COLOURS[Verdict.PASS]
        axes.plot(*columns, marker, markersize=size, color=colour, alpha=0.4, markeredgewidth=0)
