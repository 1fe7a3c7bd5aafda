"""Chart of a workload by version: ratios with their intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from bench.records.blocks import Results, WorkloadTerms
from bench.records.sides import Side
from bench.report import charts
from bench.report.versions import SAME_KERAS, differs_in, version_key, version_order
from bench.verdicts.speed import Decision

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST_LETTERS_LEVEL = 90  # all names below an axis together; longer ones are slanted


def versions_figure(decisions: Sequence[Decision], results: Results, workload: str) -> Figure:
    """Draws a workload's ratio or difference and interval by candidate, in order of version.

    If candidates differ from the baseline in more than TensorFlow, each such axis (the same
    Keras, other versions of Keras, each setting) has a panel. The panels share the columns of
    TensorFlow's versions.
    """
    terms = results.workloads[workload]
    found = {d.candidate: d for d in decisions if d.workload == workload and math.isfinite(d.ratio)}
    if not found:
        return charts.message_figure(f"{charts.short(workload)}: nothing was measured")
    panels = _version_panels(results)
    span = charts.limits(list(found.values()), is_difference=terms.is_difference)
    figure = charts.new_figure(4.2 if len(panels) == 1 else 0.2 + 2.9 * len(panels))
    gate = "" if terms.gated else " (informational)"
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(len(panels), 1, number + 1)
        charts.set_value_axis(axes, "y", *span, is_difference=terms.is_difference)
        charts.draw_margin(axes, terms, span[1])
        _draw_versions(axes, panel, found, terms, span)
        if number == 0:
            charts.draw_legend(axes, {d.verdict for d in found.values()})
        title = f"{charts.short(workload)}{gate}{panel.title}"
        axes.set_title(title, loc="left", fontsize=11, pad=11)  # space above the arrows
    axes.set_xlabel("environment, in order of version (in bold: the baseline)")
    figure.supylabel(charts.quantity(terms), fontsize=10)
    return figure


@dataclass(frozen=True)
class _Panel:
    """A panel's positions on the axis of versions.

    Attributes:
        title: common property of the candidates.
        names: names of the columns; empty for empty columns.
        columns: column by candidate.
        baseline: the baseline's column, if it is shown.
    """

    title: str
    names: Sequence[str]
    columns: Mapping[int, int]
    baseline: int | None


def _version_panels(results: Results) -> list[_Panel]:
    candidates, baseline = results.candidates, results.baseline
    groups: dict[str, list[int]] = {}
    for index in version_order(results):
        groups.setdefault(differs_in(candidates[index], baseline), []).append(index)
    alone = all(
        len({_tensorflow(candidates[index]) for index in group}) == len(group)
        for group in groups.values()
    )
    if len(groups) == 1 or not alone:
        sides: list[tuple[Side, int | None]] = [(baseline, None)]
        sides += [(candidates[index], index) for index in version_order(results)]
        sides.sort(key=lambda item: version_key(item[0]))
        own = {index: column for column, (_, index) in enumerate(sides) if index is not None}
        places = [index for _, index in sides]
        return [_Panel("", [side.label for side, _ in sides], own, places.index(None))]
    ordered = sorted((*candidates, baseline), key=version_key)
    versions = dict.fromkeys(_tensorflow(side) for side in ordered)
    columns = {version: column for column, version in enumerate(versions)}
    panels = []
    for title in sorted(groups, key=lambda title: (title != SAME_KERAS, title)):
        names = [""] * len(columns)
        if title == SAME_KERAS:
            names[columns[_tensorflow(baseline)]] = baseline.label
        for index in groups[title]:
            names[columns[_tensorflow(candidates[index])]] = candidates[index].label
        panels.append(
            _Panel(
                f": {title}",
                [name.replace(" + ", "\n+ ") for name in names],
                {index: columns[_tensorflow(candidates[index])] for index in groups[title]},
                columns[_tensorflow(baseline)] if title == SAME_KERAS else None,
            )
        )
    return panels


def _tensorflow(side: Side) -> str:
    return str(side.versions.get("tensorflow", ""))


def _draw_versions(
    axes: Axes,
    panel: _Panel,
    found: Mapping[int, Decision],
    terms: WorkloadTerms,
    span: tuple[float, float],
) -> None:
    shown = {column: found[c] for c, column in panel.columns.items() if c in found}
    line = {column: d.ratio for column, d in shown.items()}
    if panel.baseline is not None:
        line[panel.baseline] = charts.equal(terms)
        axes.plot(panel.baseline, charts.equal(terms), "s", color="black", markersize=7)
    axes.plot(sorted(line), [line[column] for column in sorted(line)], color="#C4C4C4", zorder=1)
    for column in panel.columns.values():
        if column in shown:
            charts.draw_interval(axes, column, shown[column], span)
            _label_point(axes, column, shown[column], span)
        else:
            charts.draw_note(axes, column, "no result")
    _name_versions(axes, panel.names, panel.baseline)


def _label_point(axes: Axes, place: int, d: Decision, span: tuple[float, float]) -> None:
    """Draws the number above a point's interval, or below it at the end of the axis."""
    top = max(d.ratio, d.high) if math.isfinite(d.high) else d.ratio
    axes.annotate(
        f"{d.ratio:+.3f}" if d.terms.is_difference else f"{d.ratio:.3f}",
        (place, min(max(top, span[0]), span[1])),
        (0, 7) if top < span[1] else (0, -17),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        bbox=charts.BEHIND_TEXT,
    )


def _name_versions(axes: Axes, labels: Sequence[str], baseline: int | None) -> None:
    """Draws names below the axis, the baseline in bold; long names are slanted or split."""
    names = ["\n".join(charts.short(line) for line in label.split("\n")) for label in labels]
    axes.set_xticks(range(len(names)), names, fontsize=9)
    letters = max(len(line) for name in names for line in name.split("\n")) * len(names)
    if letters > MOST_LETTERS_LEVEL and any("\n" in name for name in names):
        axes.set_xticks(range(len(names)), [re.sub(r" (?=\S+$)", "\n", name) for name in names])
    elif letters > MOST_LETTERS_LEVEL:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")
    if baseline is not None:
        axes.get_xticklabels()[baseline].set_fontweight("bold")
    axes.set_xlim(-0.6, len(names) - 0.4)
