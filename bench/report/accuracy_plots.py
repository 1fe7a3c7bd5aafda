"""Charts of an accuracy comparison: wrong images by seed and side, and flipped images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from bench.records.trainings import Trained, Trainings
from bench.report import charts
from bench.verdicts.accuracy import AccuracyDecision
from bench.verdicts.flips import Flips
from bench.verdicts.reference import Quantity, hold_against

MOST_IMAGES = 40
_COLUMNS = 10
_POINT, _LINK = "#0072B2", "#C4C4C4"
_LIMIT = "#B30000"
_ENGINES = {"keras": "#0072B2", "graph": "#D55E00"}  # colours of Okabe & Ito (2008)


def gate_figure(trained: Mapping[str, tuple[Trained, Sequence[Trained]]]) -> Figure:
    """Draws the curves of gated trainings and each epoch's distance from the reference.

    Args:
        trained: by engine, a training with its curves and the seeds of its reference.
    """
    figure = charts.new_figure(7.2)
    (losses, accuracies), scores = figure.subplots(2, 2)
    for engine, (one, reference) in trained.items():
        colour = _ENGINES.get(engine, _LINK)
        epochs = np.arange(1, len(one.curves) + 1)
        curves = np.array(one.curves) * [1, 100, 1, 100]
        for part, line in (("training", "-"), ("validation", "--")):
            place = 0 if part == "training" else 2
            label = f"{part}, engine {engine}"
            for axes, values in ((losses, curves[:, place]), (accuracies, curves[:, place + 1])):
                axes.plot(epochs, values, line, color=colour, label=label, marker=".")
        _draw_scores(scores, hold_against(one, reference), colour)
    losses.set(title="Loss", ylabel="cross-entropy + L2 penalty (nats)", yscale="log")
    losses.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    losses.yaxis.set_major_formatter("{x:g}")
    losses.yaxis.set_minor_formatter(NullFormatter())
    losses.legend(frameon=False)
    accuracies.set(title="Accuracy", ylabel="images classified correctly (%)")
    for axes, part in zip(scores, ("Training", "Validation"), strict=True):
        axes.axhline(0, color=_LINK, linewidth=0.8)
        axes.set(title=f"{part} against the reference", ylabel="standard errors of one more seed")
        axes.text(
            *(0.02, 0.97, "● loss  ▲ accuracy; beyond the dotted lines the gate fails"),
            transform=axes.transAxes,
            va="top",
            fontsize=9,
        )
    for axes in figure.axes:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_scores(scores: Sequence[Axes], quantities: Sequence[Quantity], colour: str) -> None:
    """Losses as dots and accuracies as triangles, by epoch; values far beyond are at the edge."""
    limit = quantities[0].limit
    for axes, part in zip(scores, ("training", "validation"), strict=True):
        for name, marker in (("loss", "o-"), ("accuracy", "^-")):
            values = [q.score for q in quantities if q.name.startswith(f"{part} {name} ")]
            shown = np.clip(np.nan_to_num(values, nan=np.inf), -2 * limit, 2 * limit)
            epochs = np.arange(1, len(values) + 1)
            axes.plot(epochs, shown, marker, color=colour, markersize=5, linewidth=0.8)
        for edge in (-limit, limit):
            axes.axhline(edge, color=_LIMIT, linewidth=1, linestyle=":")
        axes.set_ylim(-2.1 * limit, 2.1 * limit)


def _apart(
    points: Sequence[tuple[float, float, str]], axes: Axes
) -> list[tuple[float, float, str]]:
    """Drops points whose labels would overlap an earlier point's label."""
    wide, high = 0.2 * np.diff(axes.get_xlim())[0], 0.035 * np.diff(axes.get_ylim())[0]
    kept: list[tuple[float, float, str]] = []
    for point in points:
        if all(abs(point[0] - p[0]) > wide or abs(point[1] - p[1]) > high for p in kept):
            kept.append(point)
    return kept


def seeds_figure(sets: Sequence[Trainings], *, paired: bool) -> Figure:
    """Draws wrong test images per seed, one column per side; lines join the sides of a seed."""
    figure = charts.new_figure(4.2)
    axes = figure.subplots()
    by_seed = [{t.seed: t.wrong for t in side.seeds if t.wrong is not None} for side in sets]
    if paired:
        for place, side in enumerate(by_seed[1:], start=1):
            for seed in sorted(set(side) & set(by_seed[0])):
                axes.plot([0, place], [by_seed[0][seed], side[seed]], color=_LINK, linewidth=0.8)
    for place, side in enumerate(by_seed):
        counts = list(side.values())
        axes.plot([place] * len(counts), counts, "o", color=_POINT, alpha=0.6, markersize=5)
        if counts:
            mean = float(np.mean(counts))
            axes.plot([place - 0.15, place + 0.15], [mean, mean], color="black", linewidth=1.5)
            text = f"mean {mean:.1f}, sd {np.std(counts, ddof=1):.1f}" if len(counts) > 1 else ""
            axes.annotate(text, (place + 0.17, mean), va="center", fontsize=9)
    names = [f"{charts.short(side.side.label)}\n{len(side.seeds)} seeds" for side in sets]
    axes.set_xticks(range(len(sets)), names)
    axes.set_xlim(-0.5, len(sets) - 0.3)
    axes.set_ylabel("wrong test images of 10,000")
    charts.clear(axes, "y")
    return figure


def losses_figure(sets: Sequence[Trainings], decisions: Sequence[AccuracyDecision]) -> Figure:
    """Draws each candidate's loss and interval, one row each; shaded beyond the margin."""
    figure = charts.new_figure(1.1 + 0.45 * len(decisions))
    axes = figure.subplots()
    for row, decision in enumerate(decisions):
        if math.isnan(decision.difference):
            continue
        colour = charts.COLOURS[decision.verdict]
        if not math.isnan(decision.low):
            axes.plot([decision.low, decision.high], [row, row], color=colour, linewidth=2)
        axes.plot(
            decision.difference, row, charts.MARKERS[decision.verdict], color=colour, markersize=7
        )
    names = [
        f"{charts.short(item.side.label)}\n{d.verdict.value}"
        for item, d in zip(sets[1:], decisions, strict=True)
    ]
    axes.set_yticks(range(len(decisions)), names)
    axes.set_ylim(len(decisions) - 0.5, -0.5)
    margin = decisions[0].margin
    ends = [margin, -margin, *axes.get_xlim()]
    axes.set_xlim(1.1 * min(ends), 1.25 * max(ends))
    axes.axvspan(margin, 1.25 * max(ends), color=charts.WORSE)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("accuracy lost, percentage points; shaded: beyond the margin")
    charts.clear(axes, "x")
    return figure


def flips_figure(flips: Flips, images: np.ndarray, labels: np.ndarray) -> Figure:
    """Draws the flipped images, lost ones first, each with its true digit and index."""
    shown = [("lost", place) for place in flips.lost] + [("gained", p) for p in flips.gained]
    shown = shown[:MOST_IMAGES]
    rows = -(-len(shown) // _COLUMNS)
    figure = charts.new_figure(1.25 * rows)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (kind, place) in zip(grid, shown, strict=False):
        axes.imshow(images[place, :, :, 0], cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(f"{labels[place]}: {kind}\n#{place}", fontsize=8)
    return figure
