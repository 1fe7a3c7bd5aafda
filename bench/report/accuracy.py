"""The head of an accuracy comparison's HTML report, and its table for other pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from bench.records.trainings import Trainings
from bench.report.comparison import STYLE
from bench.report.html import figure_html, table_html
from bench.verdicts.accuracy import AccuracyDecision, finding
from bench.verdicts.flips import Flips, find_flips
from lenet5.data import Subset

HEADER = ("", "verdict", "accuracy (%)", "loses (points)", "interval", "seeds", "detects", "s/seed")


def accuracy_html(
    sets: Sequence[Trainings],
    decisions: Sequence[AccuracyDecision],
    test: Subset,
    *,
    paired: bool,
) -> str:
    """Findings, table, seeds by side, and what became of single images.

    Args:
        sets: of baseline or reference, then of each candidate.
        decisions: on each candidate.
        test: the test images.
        paired: whether the same seeds were trained on both sides.
    """
    from bench.report.accuracy_plots import losses_png, seeds_png  # matplotlib takes long to import

    baseline, *candidates = sets
    findings = "".join(
        f"<li>{d.verdict.value}: {escape(finding(d, candidate, baseline, paired=paired))}</li>"
        for d, candidate in zip(decisions, candidates, strict=True)
    )
    parts = [
        STYLE,
        '<div class="comparison">',
        "<h2>Accuracy over seeds</h2>",
        f"<ul>{findings}</ul>",
        table_html(HEADER, table_rows(sets, decisions)),
        figure_html(losses_png(sets, decisions), "accuracy lost, with intervals and margin"),
        figure_html(seeds_png(sets, paired=paired), "wrong test images by seed"),
    ]
    parts += [_flips_html(candidate, baseline, test) for candidate in candidates]
    return "\n".join([*parts, "</div>"])


def table_rows(
    sets: Sequence[Trainings], decisions: Sequence[AccuracyDecision]
) -> list[tuple[str, ...]]:
    """A row a side under `HEADER`; the first is what the others are held against."""
    baseline, *candidates = sets
    seeds = str(len(baseline.seeds))
    rows: list[tuple[str, ...]] = [
        (*_side_cells(baseline, "baseline"), "", "", seeds, "", _seconds(baseline))
    ]
    for candidate, d in zip(candidates, decisions, strict=True):
        rows.append(
            (
                *_side_cells(candidate, d.verdict.value),
                _figure(d.difference, "+.3f"),
                "" if math.isnan(d.low) else f"{d.low:+.3f} to {d.high:+.3f}",
                str(d.seeds),
                _figure(d.detectable or math.nan, ".3f"),
                _seconds(candidate),
            )
        )
    return rows


def accuracy_text(sets: Sequence[Trainings], decisions: Sequence[AccuracyDecision]) -> str:
    """The same table in columns for the terminal."""
    rows = [HEADER, *table_rows(sets, decisions)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)


def flips_words(flips: Flips) -> str:
    """What became of single images, and whether it is more than chance."""
    return (
        f"{len(flips.lost)} images lost and {len(flips.gained)} gained in at least "
        f"{flips.least} of {flips.seeds} seeds; as many by chance: p = {flips.p_value:.3g} "
        "(sides swapped within seeds)"
    )


def _flips_html(candidate: Trainings, baseline: Trainings, test: Subset) -> str:
    flips = find_flips(candidate.seeds, baseline.seeds, test.labels)
    if flips is None:
        return ""
    parts = [f"<p>{escape(candidate.side.label)}: {flips_words(flips)}.</p>"]
    if flips.lost or flips.gained:
        from bench.report.accuracy_plots import MOST_IMAGES, flips_png

        if len(flips.lost) + len(flips.gained) > MOST_IMAGES:
            parts.append(f"<p>The first {MOST_IMAGES} of them, lost ones first:</p>")
        parts.append(figure_html(flips_png(flips, test.images, test.labels), "flipped images"))
    return "\n".join(parts)


def _side_cells(side: Trainings, verdict: str) -> tuple[str, str, str]:
    accuracies = [100 * trained.accuracy for trained in side.seeds if trained.wrong is not None]
    if not accuracies:
        return side.side.label, verdict, "-"
    spread = f" ± {np.std(accuracies, ddof=1):.3f}" if len(accuracies) > 1 else ""
    return side.side.label, verdict, f"{np.mean(accuracies):.3f}{spread}"


def _seconds(side: Trainings) -> str:
    seconds = [t.train_seconds for t in side.seeds if t.train_seconds]
    return f"{np.mean(seconds):.1f}" if seconds else "-"


def _figure(number: float, form: str) -> str:
    return "-" if math.isnan(number) else f"{number:{form}}"
