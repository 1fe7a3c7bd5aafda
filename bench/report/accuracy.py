"""Report of an accuracy comparison: a table for the terminal, a page for a browser."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench.records.sides import ON_CPU, device_of
from bench.records.trainings import Trainings
from bench.report.pages import Picture, render
from bench.report.tables import Table
from bench.report.versions import CPUS_ONLY, age_note, environment_table, facts, moment
from bench.report.words import SEVEREST_FIRST, tally
from bench.verdicts.accuracy import AccuracyDecision, finding
from bench.verdicts.flips import Flips, find_flips
from bench.verdicts.outcomes import NOT_THERE
from lenet5.data import Subset

HEADER = ("", "verdict", "accuracy (%)", "loses (points)", "interval", "seeds", "detects", "s/seed")


def accuracy_html(
    sets: Sequence[Trainings],
    decisions: Sequence[AccuracyDecision],
    test: Subset,
    *,
    paired: bool,
) -> str:
    """Returns the head of the HTML report: HTML with inline style and no external resources.

    Args:
        sets: trainings of the baseline or reference, then of each candidate.
        decisions: decision on each candidate.
        test: the test images.
        paired: whether the same seeds were trained on both sides.
    """
    from bench.report.accuracy_plots import losses_figure, seeds_figure
    from bench.report.charts import png_of  # matplotlib takes long to import

    baseline, *candidates = sets
    losses = png_of(losses_figure, sets, decisions)
    seeds = png_of(seeds_figure, sets, paired=paired)
    return render(
        "accuracy.html",
        title=headline(sets, decisions),
        findings=[
            *(
                f"{d.verdict.value}: {finding(d, candidate, baseline, paired=paired)}"
                for d, candidate in zip(decisions, candidates, strict=True)
            ),
            *notes(sets),
        ],
        overview=accuracy_table(sets, decisions),
        pictures=[
            Picture(losses, "Accuracy lost, with intervals and margin"),
            Picture(seeds, "Wrong test images by seed"),
        ],
        candidates=[_candidate(candidate, baseline, test) for candidate in candidates],
        facts=how_measured(sets, paired=paired),
    )


def headline(sets: Sequence[Trainings], decisions: Sequence[AccuracyDecision]) -> str:
    """Returns `PASS: accuracy[fast] of 2 candidates against 2.15.1: 2 PASS of 2 candidates`."""
    baseline, *candidates = sets
    verdicts = [
        NOT_THERE if baseline.problem or candidate.problem else decision.verdict.value
        for decision, candidate in zip(decisions, candidates, strict=True)
    ]
    worst = next(word for word in SEVEREST_FIRST if word in verdicts)
    text = f"{worst}: accuracy[{baseline.recipe.name}] of"
    if len(candidates) == 1:
        return f"{text} {candidates[0].side.label} against {baseline.side.label}"
    against = f"{len(candidates)} candidates against {baseline.side.label}"
    return f"{text} {against}: {tally(verdicts, 'candidates')}"


def notes(sets: Sequence[Trainings]) -> list[str]:
    """Returns the notes of the builds: about an earlier build, and the age of a nightly one."""
    found = [f"{item.side.label}: {item.side.note}." for item in sets if item.side.note]
    return [*found, *filter(None, (age_note(item.side, item.started) for item in sets))]


def how_measured(sets: Sequence[Trainings], *, paired: bool) -> list[tuple[str, str]]:
    """Returns recipe, engine, seeds, devices and machine as rows of label and text.

    The machine is the baseline's; on a GPU the candidates', since a reference may be of CPUs.
    """
    baseline, *_, last = sets
    theirs, ours = device_of(baseline.machine), device_of(last.machine)
    is_on_gpu = ours != ON_CPU or theirs != ON_CPU
    told = ours if ours == theirs else f"{theirs} (reference), {ours} (candidates)"
    return [
        ("Measured", moment(baseline.started)),
        ("Recipe", baseline.recipe.name),
        ("Engine", baseline.engine),
        ("Seeds", "paired" if paired else "unpaired"),
        ("Devices", told) if is_on_gpu else CPUS_ONLY,
        ("SHA-256 of the images", baseline.split),
        ("SHA-256 of the training code", baseline.code),
        *facts(last.machine if is_on_gpu else baseline.machine),
    ]


def accuracy_table(sets: Sequence[Trainings], decisions: Sequence[AccuracyDecision]) -> Table:
    """Returns a table with one row per side, the baseline or reference first."""
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
    return Table(HEADER, rows, left=2)


def flips_words(flips: Flips) -> str:
    """Returns the numbers of images lost and gained, and their probability by chance."""
    return (
        f"{len(flips.lost)} images lost and {len(flips.gained)} gained in at least "
        f"{flips.least} of {flips.seeds} seeds; as many by chance: p = {flips.p_value:.3g} "
        "(sides swapped within seeds)"
    )


def _candidate(candidate: Trainings, baseline: Trainings, test: Subset) -> dict[str, object]:
    """Section of a candidate: flipped images and environments."""
    shown: dict[str, object] = {
        "title": f"{candidate.side.label} against {baseline.side.label}",
        "environments": environment_table(baseline.side, candidate.side),
        "flips": "",
        "flipped": None,
    }
    flips = find_flips(candidate.seeds, baseline.seeds, test.labels)
    if flips is None:
        return shown
    shown["flips"] = f"{flips_words(flips)}."
    if flips.lost or flips.gained:
        from bench.report.accuracy_plots import MOST_IMAGES, flips_figure
        from bench.report.charts import png_of

        png = png_of(flips_figure, flips, test.images, test.labels)
        more = len(flips.lost) + len(flips.gained) > MOST_IMAGES
        caption = f"The first {MOST_IMAGES} flipped images" if more else "The flipped images"
        shown["flipped"] = Picture(png, f"{caption}, lost ones first")
    return shown


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
