"""The head of the HTML report: accuracy, environment, plots and throughput, as one HTML string.

pytest-html inserts the head as it is, so everything is escaped here. No file of a run is trusted
to be there or to be whole: what cannot be read is named in the report, and costs nothing else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from lenet5.accuracy import describe_accuracy

ENVIRONMENT = pytest.StashKey[Mapping[str, object]]()
"""What this session runs in; keys as in a run's `environment.json`."""

RUN_DIRECTORY = pytest.StashKey[Path]()
"""The run whose accuracy this session gated; absent if no gate ran."""

GATE_BOUNDS = pytest.StashKey[tuple[float | None, float | None]]()
"""Lowest and highest accuracy (0 to 1) that pass; absent: those of the run's recipe."""

FINDINGS = pytest.StashKey[list[str]]()
"""Sentences that this session's measurements come to, for the report and the terminal."""

PLOTS = {
    "curves.png": "Accuracy and loss over the epochs",
    "confusion_matrix.png": "Confusion matrix of the test images",
    "roc.png": "ROC curve of each class",
    "errors.png": "Misclassified test images",
}
"""Files in a run's `plots` folder and their captions, in the report's order."""

_LABELS = {
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "numpy": "NumPy",
    "python": "Python",
    "cpu": "CPU",
    "threads": "Threads",
    "usable_cores": "Usable cores",
    "git_commit": "Git commit",
}

# What reading or formatting a missing, truncated or foreign file raises.
_DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError)


@dataclass(frozen=True)
class Throughput:
    """What one benchmark measured.

    Attributes:
        name: Name of the benchmark, such as `train_step[loop,b32]`.
        batch_size: Images per batch; None if the benchmark does not say.
        threads: TensorFlow's threads; None if the benchmark does not say.
        images_per_second: One value per round, in the order measured; not empty.
    """

    name: str
    batch_size: int | None
    threads: int | None
    images_per_second: tuple[float, ...]


def session_throughput(config: pytest.Config) -> list[Throughput]:
    """What this session's benchmarks measured, in the order they ran.

    A benchmark that did not fail counts if its `extra_info` has `images` (of a round) or else
    `images_per_second`. Without pytest-benchmark, or with it disabled, the list is empty.
    """
    session = getattr(config, "_benchmarksession", None)  # the only place that holds results
    rows = (_throughput(benchmark) for benchmark in getattr(session, "benchmarks", ()))
    return [row for row in rows if row is not None]


def _throughput(benchmark: Any) -> Throughput | None:
    info = benchmark.extra_info
    if benchmark.has_error:
        return None
    if "images" in info:
        rates = tuple(info["images"] / seconds for seconds in benchmark.stats.data if seconds > 0)
    else:
        rates = (info["images_per_second"],) if "images_per_second" in info else ()
    if not rates:
        return None
    name = str(benchmark.name).removeprefix("test_")
    return Throughput(name, info.get("batch_size"), info.get("threads"), rates)


def accuracy_line(metrics: Mapping[str, Any]) -> str:
    """`test accuracy 98.52 % (148 wrong of 10,000; 95 % interval 98.26-98.74 %)`.

    Args:
        metrics: A run's `metrics.json`; accuracy and interval are 0 to 1.

    Raises:
        LookupError, TypeError, ValueError: A number is missing, or is none.
    """
    low, high = metrics["test_accuracy_interval"]
    described = describe_accuracy(metrics["test_errors"], metrics["test_images"], (low, high))
    return f"test accuracy {described}"


def id_cell(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The cell of pytest-html's table that names the test, which it does not escape itself."""
    name = report.nodeid if report.when == "call" else f"{report.nodeid}::{report.when}"
    return f'<td class="col-testId">{escape(name)}</td>'


def head_html(
    environment: Mapping[str, object],
    run_directory: Path | None,
    throughput: Sequence[Throughput],
    *,
    gate_bounds: tuple[float | None, float | None] | None = None,
    findings: Sequence[str] = (),
    test_counts: Mapping[str, int] | None = None,
) -> str:
    """The head of the report: HTML with its own style that loads nothing.

    Args:
        environment: What this session runs in; see `ENVIRONMENT`. May be empty.
        run_directory: The gated run; None if no gate ran.
        throughput: What the session's benchmarks measured; may be empty.
        gate_bounds: See `GATE_BOUNDS`; None takes them from the run's recipe.
        findings: See `FINDINGS`.
        test_counts: Number of tests by outcome, such as `{"passed": 12, "failed": 1}`.
    """
    parts = [
        f"<style>{CSS}</style>",
        '<div id="lenet5-report">',
        _headline_html(run_directory),
        _counts_html(test_counts or {}),
        '<div class="columns">',
        _gate_html(run_directory, gate_bounds) if run_directory else "",
        _environment_html(environment, run_directory),
        "</div>",
        _plots_html(run_directory) if run_directory else "",
        _throughput_html(throughput),
        _findings_html(findings),
        '<h2 id="tests">Tests</h2>',
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def _headline_html(run_directory: Path | None) -> str:
    if run_directory is None:
        return '<p class="headline">No accuracy gate ran in this session.</p>'
    try:
        line = accuracy_line(_read_json(run_directory / "metrics.json"))
    except _DAMAGE as error:
        return '<p class="headline">The accuracy of the gated run is unknown.</p>' + _damage_note(
            run_directory / "metrics.json", error
        )
    return f'<p class="headline">{escape(line)}</p>'


def _findings_html(findings: Sequence[str]) -> str:
    """Paragraphs; lines of a Markdown table become a table."""
    parts: list[str] = []
    for is_table, lines in groupby(findings, key=lambda finding: finding.startswith("|")):
        if is_table:
            header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
            parts.append(table_html(header, rows))
        else:
            parts += [f"<p>{escape(finding)}</p>" for finding in lines]
    return "\n".join(parts)


def _counts_html(test_counts: Mapping[str, int]) -> str:
    if not test_counts:
        return ""
    counts = ", ".join(
        f'<span class="{escape(outcome)}">{count:,} {escape(outcome)}</span>'
        for outcome, count in test_counts.items()
    )
    return f'<p>Tests: {counts}. <a href="#tests">Every test\'s result</a></p>'


def _gate_html(run_directory: Path, gate_bounds: tuple[float | None, float | None] | None) -> str:
    """What was gated, and between which bounds."""
    rows = []
    notes = ""
    low, high = gate_bounds or (None, None)
    try:
        saved = _read_json(run_directory / "recipe.json")
        recipe = saved["recipe"]
        overrides = text_of(saved.get("overrides") or {})
        low, high = gate_bounds or (recipe["min_accuracy"], recipe["max_accuracy"])
        rows += [
            ("Recipe", f"{recipe['name']} with {overrides}" if overrides else str(recipe["name"])),
            ("Seed", text_of(saved["seed"])),
            ("Dataset", text_of(saved["dataset"])),
            ("Bounds", _bounds_text(low, high)),
        ]
    except _DAMAGE as error:
        notes = _damage_note(run_directory / "recipe.json", error)
    with suppress(*_DAMAGE):  # the headline names damaged metrics
        metrics = _read_json(run_directory / "metrics.json")
        ended = "; training was interrupted" if metrics.get("interrupted") else ""
        epochs = f"{metrics['epochs_run']}, the best is epoch {metrics['best_epoch']}{ended}"
        rows += [("Epochs", epochs), ("Training time", f"{metrics['train_seconds']:.1f} s")]
        if not (low or 0) <= metrics["test_accuracy"] <= (1 if high is None else high):
            notes += '<p class="note">The accuracy is outside the bounds.</p>'
        rows.append(("Test loss", f"{metrics['test_loss']:.4f}"))
    rows.append(("Run directory", str(run_directory)))
    return f"<section><h2>Accuracy gate</h2>{notes}{table_html((), rows)}</section>"


def _bounds_text(low: float | None, high: float | None) -> str:
    bounds = [("at least", low), ("at most", high)]
    parts = [f"{word} {100 * bound:.2f} %" for word, bound in bounds if bound is not None]
    return ", ".join(parts) or "none"


def _environment_html(environment: Mapping[str, object], run_directory: Path | None) -> str:
    """The session's environment, beside that of the gated run where the two differ."""
    run_environment: Mapping[str, object] = {}
    note = ""
    if run_directory is not None:
        try:
            run_environment = _read_json(run_directory / "environment.json")
        except _DAMAGE as error:
            note = _damage_note(run_directory / "environment.json", error)
    here = environment or run_environment
    keys = [*_LABELS, *(key for key in here if key not in _LABELS)]
    keys = [key for key in keys if key in here]
    rows = [
        [
            _LABELS.get(key, key.replace("_", " ")),
            *map(text_of, (here[key], run_environment.get(key))),
        ]
        for key in keys
    ]
    rows.append(["Devices", *["CPUs only: GPUs are hidden from TensorFlow"] * 2])
    if run_environment and any(session != run for _, session, run in rows):
        header: tuple[str, ...] = ("", "this session", "the gated run")
    else:
        header = ()
        rows = [row[:2] for row in rows]
    return f"<section><h2>Environment</h2>{note}{table_html(header, rows)}</section>"


def _plots_html(run_directory: Path) -> str:
    parts = ["<h2>Plots</h2>"]
    for name, caption in PLOTS.items():
        path = run_directory / "plots" / name
        try:
            parts.append(figure_html(_read_png(path), caption))
        except _DAMAGE as error:
            parts.append(_damage_note(path, error))
    return "\n".join(parts)


def _throughput_html(throughput: Sequence[Throughput]) -> str:
    if not throughput:
        return "<h2>Throughput</h2><p>No throughput was measured in this session.</p>"
    # matplotlib takes longer to import than most sessions without benchmarks run.
    from bench.plots import throughput_png

    header = ("", "batch", "threads", "rounds", "images/s (median)", "slowest", "fastest")
    rows = []
    for row in throughput:
        rates = row.images_per_second
        figures = [f"{rate:,.0f}" for rate in (median(rates), min(rates), max(rates))]
        rows.append(
            [row.name, text_of(row.batch_size), text_of(row.threads), str(len(rates)), *figures]
        )
    chart = figure_html(throughput_png(throughput), "Median of the rounds; the line spans them all")
    return f"<h2>Throughput</h2>\n{chart}\n{table_html(header, rows, numbers=True)}"


def table_html(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False
) -> str:
    """A table whose first column holds row headings; cells are escaped here."""
    lines = [f'<table class="{"numbers" if numbers else "facts"}">']
    if header:
        lines.append("<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in header) + "</tr>")
    for heading, *cells in rows:
        texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr><th>{escape(heading)}</th>{texts}</tr>")
    return "\n".join([*lines, "</table>"])


def figure_html(png: bytes, caption: str) -> str:
    """A picture that is part of the page, at natural size; the caption is escaped here."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    words = escape(caption)
    return f'<figure><figcaption>{words}</figcaption><img alt="{words}" src="{source}"></figure>'


def _damage_note(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f'<p class="note">{escape(str(path))} is missing.</p>'
    if isinstance(error, KeyError):
        return f'<p class="note">{escape(str(path))} lacks {escape(str(error))}.</p>'
    reason = f"{type(error).__name__}: {error}"
    return f'<p class="note">{escape(str(path))} is damaged ({escape(reason)}).</p>'


def text_of(value: object) -> str:
    """A value in words; what is missing is said to be not known."""
    if value is None:
        return "not known"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return str(value)


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def _read_png(path: Path) -> bytes:
    content = path.read_bytes()
    if not (content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")):
        raise ValueError("not a whole PNG file")
    return content


# pytest-html's own rules are for 12 px grey text; its table of test tools moves to the end.
CSS = """
body { display: flex; flex-direction: column; max-width: 1080px; min-width: 0;
  margin: 2rem auto 4rem; padding: 0 1.5rem; color: #24292f; background: #fff;
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 26px; margin: 0; color: #24292f; }
h1 + p { margin: 0 0 1rem; color: #57606a; }
h2 { font-size: 18px; margin: 2rem 0 .6rem; color: #24292f; }
p, a { color: inherit; }
.summary__data > h2 { display: none; }
.headline { font-size: 20px; font-weight: 600; margin: .5rem 0; }
.headline::first-letter { text-transform: uppercase; }
.note { padding: .4rem .8rem; border-left: 4px solid #d55e00; background: #fff4ec; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr));
  gap: 0 3rem; }
#lenet5-report table { border-top: 1px solid #d0d7de; }
#lenet5-report th, #lenet5-report td { padding: .25rem 1.5rem .25rem 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid #d0d7de; font-variant-numeric: tabular-nums; }
#lenet5-report th { font-weight: 400; color: #57606a; white-space: nowrap; }
#lenet5-report .numbers th + th, #lenet5-report .numbers td { text-align: right;
  padding: .25rem 0 .25rem 2rem; }
#lenet5-report td { overflow-wrap: anywhere; }
#lenet5-report .failed, #lenet5-report .error { color: #b30000; font-weight: 600; }
figure { margin: 1rem 0 1.5rem; }
figcaption { color: #57606a; }
figure img { display: block; max-width: 100%; height: auto; }
.controls { margin-bottom: .6rem; }
.logwrapper, .logwrapper .logexpander { background: #f6f8fa; }
.logwrapper .logexpander { margin-left: calc(100% - 100px); }
#results-table { font-size: 13px; color: #24292f; }
#results-table td { overflow-wrap: anywhere; }
#environment-header, #environment { order: 1; align-self: flex-start; }
#environment-header h2 { font-size: 0; }
#environment-header h2::before { content: "Test tools"; font-size: 18px; }
"""
