"""Report of a speed comparison: a table for the terminal, a page for a browser.

Labels, requests and worker output are untrusted text: the templates escape all of it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

from bench.records.blocks import Results
from bench.report import words
from bench.report.pages import Picture, markdown, render
from bench.report.tables import Table
from bench.report.versions import environment_table, facts, version_order
from bench.verdicts.faults import missing
from bench.verdicts.speed import Decision
from lenet5.printable import printable

WIDTH = 110
MOST_OPEN = 3  # above this number of candidates, passing ones are folded
_LONGEST_NAME = 24
_LONGEST_STEM = 80  # letters of a file's name, which a file of results chose


def comparison_html(results: Results, decisions: Sequence[Decision], *, false_alarms: str) -> str:
    """Returns the head of the HTML report: HTML with inline style and no external resources.

    Args:
        results: results of the comparison.
        decisions: decisions on every workload of every candidate.
        false_alarms: text on the machine's rate of false alarms, or `not measured here`.
    """
    several = len(results.candidates) > 1
    return render(
        "comparison.html",
        title=words.headline(results, decisions),
        first=words.notes(results),
        overview=_overview(results, decisions) if several else None,
        legend=words.OVERVIEW_LEGEND,
        versions=_versions(results, decisions) if several else [],
        columns=Table((), words.EXPLANATION, left=None),
        false_alarms=words.false_alarm_sentence(false_alarms),
        candidates=[_candidate(results, decisions, place) for place in version_order(results)],
        failures=words.failures(results),
        samples=_samples(results, decisions),
        facts=[*words.how_measured(results), *facts(results.machine)],
        disturbed=words.disturbed_blocks(results)[1:],
    )


def comparison_pictures(results: Results, decisions: Sequence[Decision]) -> dict[str, bytes]:
    """Returns PNGs by file name: each workload by version, or the forest plot of one candidate."""
    from bench.report.charts import png_of
    from bench.report.comparison_plots import forest_figure

    if len(results.candidates) == 1:
        return {"forest.png": png_of(forest_figure, decisions, results, 0)}
    pictures: dict[str, bytes] = {}
    for name, picture, _ in _versions(results, decisions):
        stem = re.sub(r"\W+", "-", name, flags=re.ASCII).strip("-")[:_LONGEST_STEM] or "workload"
        number = 1 + sum(
            re.fullmatch(rf"{stem}(-again-\d+)?\.png", n) is not None for n in pictures
        )
        pictures[f"{stem}-again-{number}.png" if number > 1 else f"{stem}.png"] = picture.png
    return pictures


def table_text(results: Results, decisions: Sequence[Decision]) -> str:
    """Returns the verdicts as columns, and sentences for rows that need an explanation."""
    lines = [words.headline(results, decisions), *_wrapped(words.notes(results))]
    for candidate in version_order(results):
        rows = words.of_candidate(decisions, candidate)
        several = len(results.candidates) > 1
        lines += ["", words.candidate_line(results, decisions, candidate)] if several else [""]
        if missing(results, candidate):  # a note names it
            continue
        lines += [str(_verdict_table(rows, longest=_LONGEST_NAME))] if rows else []
        lines += _wrapped(d.finding for d in rows if words.deserves_words(d))
    disturbed = words.disturbed_blocks(results)
    if len(disturbed) > 1:
        lines += ["", f"disturbed blocks: {disturbed[0]}", *_wrapped(disturbed[1:])]
    for failure in words.failures(results):
        output = textwrap.indent(failure.output, "    ").splitlines()
        lines += ["", *_wrapped([failure.words]), *output]
    return printable("\n".join(lines))  # a wrapped line may begin like a command to a CI server


def summary_text(results: Results, decisions: Sequence[Decision], *, false_alarms: str) -> str:
    """Returns the comparison for a CI job's page: headline and the unchanged terminal table."""
    table = f"{table_text(results, decisions)}\n\n{words.false_alarm_sentence(false_alarms)}"
    return markdown(words.headline(results, decisions), table)


def _verdict_table(rows: Sequence[Decision], *, longest: int = 0) -> Table:
    """Rows of decisions, gated ones first; names are cut at `longest` unless it is 0."""
    cells = [[words.row_name(d), *words.figures(d)] for d in rows]
    for row in cells:
        if 0 < longest < len(row[0]):
            row[0] = f"{row[0][: longest - 1]}…"
    gated = sum(d.terms.gated for d in rows)
    if gated < len(rows):
        cells.insert(gated, ["informational:"])
    return Table(words.HEADER, cells, left=2)


def _wrapped(sentences: Iterable[str]) -> list[str]:
    lines = []
    for sentence in sentences:
        first, _, others = sentence.partition("\n")
        lines += textwrap.wrap(
            first, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False
        )
        lines += [
            f"  {line}" for line in others.splitlines()
        ]  # keeps the layout of a tool's output
    return lines


def _overview(results: Results, decisions: Sequence[Decision]) -> Table:
    """Verdict and ratios of each candidate; rows are workloads if these outnumber candidates."""
    header, rows = words.overview(results, decisions)
    found = [words.overall(results, decisions, place) for place in version_order(results)]
    verdicts = [verdict or "no verdict" for verdict in found]
    rows = [
        [label, verdict, *marks] for verdict, (label, *marks) in zip(verdicts, rows, strict=True)
    ]
    header = [header[0], "verdict", *header[1:]]
    if len(results.workloads) <= len(rows):
        return Table(header, rows, left=2)
    header, *rows = (list(column) for column in zip(header, *rows, strict=True))
    return Table(header, rows)


def _versions(results: Results, decisions: Sequence[Decision]) -> list[tuple[str, Picture, bool]]:
    """By workload: name, picture, and whether it is gated."""
    from bench.report.charts import png_of  # matplotlib takes long to import
    from bench.report.version_plots import versions_figure

    return [
        (
            name,
            Picture(png_of(versions_figure, decisions, results, name), f"{name} by version"),
            terms.gated,
        )
        for name, terms in results.workloads.items()
    ]


def _candidate(
    results: Results, decisions: Sequence[Decision], candidate: int
) -> dict[str, object]:
    """Section of a candidate; without verdicts if it could not be compared."""
    from bench.report.charts import png_of
    from bench.report.comparison_plots import forest_figure

    side = results.candidates[candidate]
    passed = words.overall(results, decisions, candidate) == "PASS"
    shown: dict[str, object] = {
        "title": words.candidate_line(results, decisions, candidate),
        "is_open": len(results.candidates) <= MOST_OPEN or not passed,
        "environments": environment_table(results.baseline, side),
        "verdicts": None,
    }
    if missing(results, candidate):
        return shown
    rows = words.of_candidate(decisions, candidate)
    table = _verdict_table(rows)
    amounts = {words.row_name(d): words.baseline_amount(results, d) for d in rows}
    cells = [[*row, amounts[row[0]]] if len(row) > 1 else row for row in table.rows]
    png = png_of(forest_figure, decisions, results, candidate)
    return {
        **shown,
        "verdicts": Table((*table.header, "baseline takes"), cells, left=2),
        "findings": [d.finding for d in rows if words.deserves_words(d)],
        "forest": Picture(png, f"{side.label}: ratios and intervals"),
    }


def _samples(results: Results, decisions: Sequence[Decision]) -> list[tuple[str, Picture, bool]]:
    """By workload: name, picture, and whether a decision on it needs an explanation."""
    from bench.report.charts import png_of
    from bench.report.comparison_plots import samples_figure

    worth = {d.workload for d in decisions if words.deserves_words(d)}
    return [
        (name, Picture(png_of(samples_figure, results, name), f"{name} over time"), name in worth)
        for name in results.workloads
    ]
