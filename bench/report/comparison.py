"""The report of a comparison: HTML for a browser, Markdown for a CI job's page, a text table.

Labels, requests and what workers printed are anybody's text: all of it is escaped here.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from html import escape

from bench.records.blocks import Results
from bench.records.sides import Side
from bench.report import words
from bench.report.html import CSS as REPORT_CSS
from bench.report.html import figure_html, table_html
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import Decision

WIDTH = 110
MOST_OPEN = 3  # more candidates than these are folded if they pass
LONG = 100  # characters of a machine's property that is folded


def comparison_html(results: Results, decisions: Sequence[Decision], *, false_alarms: str) -> str:
    """The head of the HTML report: HTML with its own style that loads nothing.

    Args:
        results: of the comparison.
        decisions: on every workload of every candidate.
        false_alarms: the machine's rate of false alarms in words, or `not measured here`.
    """
    several = len(results.candidates) > 1
    parts = [
        STYLE,
        '<div class="comparison">',
        f'<p class="headline">{escape(words.headline(results, decisions))}</p>',
        *(f'<p class="note">{escape(note)}</p>' for note in words.notes(results)),
        _overview_html(results, decisions) if several else "",
        _versions_html(results, decisions) if several else "",
        f"<p>{escape(words.EXPLANATION)} {escape(words.false_alarm_sentence(false_alarms))}</p>",
        *(_candidate_html(results, decisions, place) for place in words.version_order(results)),
        _failures_html(results),
        _samples_html(results, decisions),
        _method_html(results),
        '<h2 id="tests">Tests</h2>',
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def comparison_pictures(results: Results, decisions: Sequence[Decision]) -> dict[str, bytes]:
    """PNGs by file name without ending: each workload by version, or one candidate's forest."""
    from bench.report.comparison_plots import forest_png, versions_png

    if len(results.candidates) == 1:
        return {"forest": forest_png(decisions, results, 0)}
    return {
        re.sub(r"\W+", "-", name).strip("-"): versions_png(decisions, results, name)
        for name in results.workloads
    }


def table_text(results: Results, decisions: Sequence[Decision]) -> str:
    """The verdicts as columns for the terminal, and in words what is not a plain PASS."""
    lines = [words.headline(results, decisions), *_wrapped(words.notes(results))]
    for candidate in words.version_order(results):
        rows = words.of_candidate(decisions, candidate)
        several = len(results.candidates) > 1
        lines += ["", words.candidate_line(results, decisions, candidate)] if several else [""]
        if words.problem(results, candidate):  # the notes say what
            continue
        lines += _aligned(rows) if rows else []
        lines += _wrapped(d.finding for d in rows if words.deserves_words(d))
    disturbed = words.disturbed_blocks(results)
    if len(disturbed) > 1:
        lines += ["", f"disturbed blocks: {disturbed[0]}", *_wrapped(disturbed[1:])]
    return "\n".join(lines)


def summary_markdown(results: Results, decisions: Sequence[Decision], *, false_alarms: str) -> str:
    """The comparison for a CI job's page, in GitHub's Markdown: the verdict stands first."""
    lines = [f"## {_md(words.headline(results, decisions))}", ""]
    lines += [f"> **{_md(note)}**\n" for note in words.notes(results)]
    if len(results.candidates) > 1:
        header, rows = words.overview(results, decisions)
        lines += [*_md_table(header, rows, right_from=1), "", words.OVERVIEW_LEGEND, ""]
    for candidate in words.version_order(results):
        lines += _candidate_markdown(results, decisions, candidate)
    for failure in words.failures(results):
        head = f"<details><summary>{escape(' '.join(failure.words.split()))}</summary>"
        lines += [head, "", f"<pre>{escape(failure.output)}</pre>", "", "</details>", ""]
    lines += [_md(words.false_alarm_sentence(false_alarms)), ""]
    machine = [(name, text) for name, text in words.machine(results) if len(text) <= LONG]
    facts = [*words.how_measured(results), *machine]
    lines += ["<details><summary>How it was measured</summary>", "", _md(words.EXPLANATION), ""]
    lines += [*_md_table(("", ""), facts), ""]
    lines += [f"- {_md(line)}" for line in words.disturbed_blocks(results)[1:]]
    lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def lock_differences(baseline: Side, candidate: Side) -> list[tuple[str, str, str]]:
    """What two locks hold unlike, by name: its version there, its version here; '' for absent."""
    there, here = baseline.packages, candidate.packages
    names = sorted(set(there) | set(here))
    rows = [(name, there.get(name, ""), here.get(name, "")) for name in names]
    return [row for row in rows if row[1] != row[2]]


def _aligned(rows: Sequence[Decision]) -> list[str]:
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in map(words.row_name, rows)]
    cells = [list(words.HEADER)]
    cells += [[name, *words.figures(d)] for name, d in zip(names, rows, strict=True)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for row in cells:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(left + right).rstrip())
    gated = sum(d.terms.gated for d in rows)
    if gated < len(rows):
        lines.insert(1 + gated, "informational:")
    return lines


def _wrapped(sentences: Iterable[str]) -> list[str]:
    lines = []
    for sentence in sentences:
        first, _, others = sentence.partition("\n")
        lines += textwrap.wrap(
            first, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False
        )
        lines += [
            f"  {line}" for line in others.splitlines()
        ]  # what a tool printed stays as it printed it
    return lines


def _md(text: str) -> str:
    """Text that Markdown shows as it is, in one line, also in a cell."""
    line = escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*|\[~])|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)


def _md_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, right_from: int = 9
) -> list[str]:
    rule = ["--:" if column >= right_from else "---" for column in range(len(header))]
    lines = [[_md(cell) for cell in header], rule, *([_md(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _candidate_markdown(
    results: Results, decisions: Sequence[Decision], candidate: int
) -> list[str]:
    rows = words.of_candidate(decisions, candidate)
    lines = []
    if len(results.candidates) > 1:
        lines += [f"### {_md(words.candidate_line(results, decisions, candidate))}", ""]
    if words.problem(results, candidate):  # the notes say what
        return lines
    if rows:
        cells = [
            [words.row_name(d) + " (informational)" * (not d.terms.gated), *words.figures(d)]
            for d in rows
        ]
        lines += [*_md_table(words.HEADER, cells, right_from=2), ""]
    findings = [f"- {_md(d.finding)}" for d in rows if words.deserves_words(d)]
    lines += [*findings, ""] if findings else []
    return lines + _differences_markdown(results, candidate)


def _differences_markdown(results: Results, candidate: int) -> list[str]:
    other, base = results.candidates[candidate], results.baseline
    rows = [row for row in words.version_rows(base, other) if row[1] != row[2]]
    rows += lock_differences(base, other)
    if not rows:
        return ["The environments are the same.", ""]
    title = f"Environments: {base.label} and {other.label}"
    head = f"<details><summary>{escape(' '.join(title.split()))}</summary>"
    return [head, "", *_md_table(("", base.label, other.label), rows), "", "</details>", ""]


def _verdict_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in which cells that begin with a verdict have its colour."""
    table = table_html(header, rows, numbers=True).replace("numbers", "numbers verdicts", 1)
    for verdict in Verdict:
        table = table.replace(
            f"<td>{verdict.value}", f'<td class="{verdict.value.lower()}">{verdict.value}'
        )
    return table


def _overview_html(results: Results, decisions: Sequence[Decision]) -> str:
    rows = []
    for place in words.version_order(results):
        verdict = words.overall(results, decisions, place)
        _, _, tally = words.candidate_line(results, decisions, place).rpartition(": ")
        label = results.candidates[place].label
        rows.append([label, verdict.value if verdict else "no verdict", tally])
    return "\n".join(
        [
            "<h2>Candidates</h2>",
            _verdict_table(("", "verdict", "of the gated workloads"), rows),
            table_html(*words.overview(results, decisions), numbers=True),
            f"<p>{escape(words.OVERVIEW_LEGEND)}</p>",
        ]
    )


def _versions_html(results: Results, decisions: Sequence[Decision]) -> str:
    from bench.report.comparison_plots import versions_png  # matplotlib takes long to import

    parts = ["<h2>By version</h2>"]
    for name, terms in results.workloads.items():
        figure = figure_html(versions_png(decisions, results, name), f"{name} by version")
        parts.append(_folded(name, figure, is_open=terms.gated))
    return "\n".join(parts)


def _candidate_html(results: Results, decisions: Sequence[Decision], candidate: int) -> str:
    side = results.candidates[candidate]
    sides = ("", results.baseline.label, side.label)
    inner = [
        "" if words.problem(results, candidate) else _verdicts_html(results, decisions, candidate),
        "<h3>Environments</h3>",
        table_html(sides, words.version_rows(results.baseline, side)),
    ]
    if side.lock:
        differences = lock_differences(results.baseline, side)
        inner += [
            "<h3>Packages that differ</h3>",
            table_html(sides, differences) if differences else "<p>None.</p>",
        ]
    title = words.candidate_line(results, decisions, candidate)
    if len(results.candidates) == 1:
        return "\n".join([f"<h2>{escape(title)}</h2>", *inner])
    passed = words.overall(results, decisions, candidate) is Verdict.PASS
    is_open = len(results.candidates) <= MOST_OPEN or not passed
    return _folded(title, "\n".join(inner), is_open=is_open, heading="h2")


def _verdicts_html(results: Results, decisions: Sequence[Decision], candidate: int) -> str:
    from bench.report.comparison_plots import forest_png

    rows = words.of_candidate(decisions, candidate)
    header = (*words.HEADER, "baseline takes")
    cells = [
        [words.row_name(d), *words.figures(d), words.baseline_amount(results, d)] for d in rows
    ]
    gated = sum(d.terms.gated for d in rows)
    if gated < len(rows):
        cells.insert(gated, ["informational:"])
    findings = "".join(f"<li>{escape(d.finding)}</li>" for d in rows if words.deserves_words(d))
    label = results.candidates[candidate].label
    parts = [
        _verdict_table(header, cells) if rows else "<p>Nothing was decided.</p>",
        f"<ul>{findings}</ul>" if findings else "",
        figure_html(forest_png(decisions, results, candidate), f"{label}: ratios and intervals"),
    ]
    return "\n".join(parts)


def _samples_html(results: Results, decisions: Sequence[Decision]) -> str:
    from bench.report.comparison_plots import samples_png

    parts = ["<h2>Samples over time</h2>"]
    for name in results.workloads:
        is_open = any(d.workload == name and words.deserves_words(d) for d in decisions)
        parts.append(
            _folded(name, figure_html(samples_png(results, name), f"{name} over time"), is_open)
        )
    return "\n".join(parts)


def _failures_html(results: Results) -> str:
    parts = []
    for failure in words.failures(results):
        parts.append(f"<p>{escape(failure.words)}</p>")
        parts.append(f"<pre>{escape(failure.output)}</pre>" if failure.output else "")
    return "\n".join(["<h2>Failures</h2>", *parts]) if parts else ""


def _method_html(results: Results) -> str:
    machine = words.machine(results)
    short = [row for row in machine if len(row[1]) <= LONG]
    long = [row for row in machine if len(row[1]) > LONG]
    disturbed = words.disturbed_blocks(results)[1:]
    parts = [
        "<h2>How it was measured</h2>",
        table_html((), [*words.how_measured(results), *short]),
        *(_folded(name, f"<p>{escape(text)}</p>", False) for name, text in long),
    ]
    if disturbed:
        lines = "".join(f"<li>{escape(line)}</li>" for line in disturbed)
        parts.append(f"<h3>Disturbed blocks</h3><ul>{lines}</ul>")
    return "\n".join(parts)


def _folded(title: str, inner: str, is_open: bool, heading: str = "span") -> str:
    state = " open" if is_open else ""
    head = f"<summary><{heading}>{escape(title)}</{heading}></summary>"
    return f"<details{state}>{head}\n{inner}\n</details>"


_CSS = """
.comparison table { border-top: 1px solid #d0d7de; border-collapse: collapse; }
.comparison table + table { margin-top: 1.5rem; }
.comparison th, .comparison td { padding: .25rem 1.5rem .25rem 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid #d0d7de; font-variant-numeric: tabular-nums; }
.comparison th { font-weight: 400; color: #57606a; white-space: nowrap; }
.comparison .numbers th + th, .comparison .numbers td { text-align: right; white-space: nowrap;
  padding: .25rem 0 .25rem 1rem; }
.comparison .verdicts th:nth-child(2), .comparison .verdicts td:nth-child(2) { text-align: left; }
.comparison td { overflow-wrap: anywhere; }
.comparison .pass { color: #0072b2; font-weight: 600; }
.comparison .fail { color: #bf5300; font-weight: 600; }
.comparison .inconclusive { color: #707070; font-weight: 600; }
.comparison .note { white-space: pre-wrap; }
.comparison h3 { font-size: 15px; margin: 1.2rem 0 .4rem; }
.comparison figcaption { display: none; }
.comparison summary { cursor: pointer; }
.comparison summary h2 { display: inline-block; margin: 1rem 0 .4rem; }
.comparison pre { padding: .4rem .8rem; background: #f6f8fa; white-space: pre-wrap; }
"""

# Of everything within `<div class="comparison">`.
STYLE = f"<style>{REPORT_CSS}{_CSS}</style>"
