"""The head of the HTML report: accuracy, environment, plots and throughput, as one HTML string.

pytest-html inserts the head as it is, so everything is escaped here. No file of a run is trusted
to be there or to be whole: what cannot be read is named in the report, and costs nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bench.records.trainings import Trained, identity, read_reference
from bench.report.benchmarks import Throughput
from bench.report.html import CSS, figure_html, table_html, text_of
from lenet5.errors import InputError
from lenet5.run_directory import read_history, read_run

ENVIRONMENT = pytest.StashKey[Mapping[str, object]]()
"""What this session runs in; keys as in a run's `environment.json`."""


@dataclass(frozen=True)
class Gated:
    """A model whose accuracy this session gated.

    Attributes:
        engine: that trained it; empty if that is not known.
        run_directory: that it is of; None: it was trained elsewhere, and nothing else is known.
        path: of the model file.
        bounds: lowest and highest accuracy (0 to 1) that pass.
        accuracy: on the test images in this session, 0 to 1.
        described: the same in words, with counts and interval.
        weight_norms: root of the sum of squares of every weight, in Keras's order.
    """

    engine: str
    run_directory: Path | None
    path: Path
    bounds: tuple[float, float]
    accuracy: float
    described: str
    weight_norms: tuple[float, ...]


GATED = pytest.StashKey[list[Gated]]()
"""What this session gated; absent if no gate ran, or none came as far as to a model."""

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


def id_cell(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The cell of pytest-html's table that names the test, which it does not escape itself."""
    name = report.nodeid if report.when == "call" else f"{report.nodeid}::{report.when}"
    return f'<td class="col-testId">{escape(name)}</td>'


def head_html(
    environment: Mapping[str, object],
    gated: Sequence[Gated],
    throughput: Sequence[Throughput],
    *,
    findings: Sequence[str] = (),
    test_counts: Mapping[str, int] | None = None,
) -> str:
    """The head of the report: HTML with its own style that loads nothing.

    Args:
        environment: What this session runs in; see `ENVIRONMENT`. May be empty.
        gated: What was gated; empty if no gate ran.
        throughput: What the session's benchmarks measured; may be empty.
        findings: See `FINDINGS`.
        test_counts: Number of tests by outcome, such as `{"passed": 12, "failed": 1}`.
    """
    directories = [model.run_directory for model in gated if model.run_directory is not None]
    parts = [
        f"<style>{CSS}</style>",
        '<div id="lenet5-report">',
        _headline_html(gated),
        _counts_html(test_counts or {}),
        '<div class="columns">',
        *map(_gate_html, gated),
        _environment_html(environment, directories[0] if directories else None),
        "</div>",
        _plots_html(gated),
        _throughput_html(throughput),
        _findings_html(findings),
        '<h2 id="tests">Tests</h2>',
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def _headline_html(gated: Sequence[Gated]) -> str:
    if not gated:
        return '<p class="headline">No accuracy gate ran in this session.</p>'
    lines = [
        f"{_engine(model)}test accuracy {model.described}"
        if len(gated) > 1
        else f"test accuracy {model.described}"
        for model in gated
    ]
    return "\n".join(f'<p class="headline">{escape(line)}</p>' for line in lines)


def _engine(model: Gated) -> str:
    return f"engine {model.engine}: " if model.engine else ""


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


def _gate_html(model: Gated) -> str:
    """What was gated, and between which bounds."""
    low, high = model.bounds
    rows = [("Bounds", _bounds_text(low, high)), ("Model file", str(model.path))]
    notes = ""
    if not low <= model.accuracy <= high:
        notes += '<p class="note">The accuracy is outside the bounds.</p>'
    title = f"Accuracy gate, engine {model.engine}" if model.engine else "Accuracy gate"
    if model.run_directory is None:
        rows.append(("Recipe", "not known: it was trained elsewhere"))
        return f"<section><h2>{escape(title)}</h2>{notes}{table_html((), rows)}</section>"
    path = model.run_directory / "recipe.json"
    try:
        saved = _read_json(path)
        recipe = saved["recipe"]
        overrides = text_of(saved.get("overrides") or {})
        rows[:0] = [
            ("Recipe", f"{recipe['name']} with {overrides}" if overrides else str(recipe["name"])),
            ("Seed", text_of(saved["seed"])),
            ("Dataset", text_of(saved["dataset"])),
        ]
    except _DAMAGE as error:
        notes += _damage_note(path, error)
    path = model.run_directory / "metrics.json"
    try:
        metrics = _read_json(path)
        epochs = f"{metrics['epochs_run']}, the best is epoch {metrics['best_epoch']}"
        rows += [("Epochs", epochs), ("Training time", f"{metrics['train_seconds']:.1f} s")]
        rows.append(("Test loss", f"{metrics['test_loss']:.4f}"))
    except _DAMAGE as error:
        notes += _damage_note(path, error)
    return f"<section><h2>{escape(title)}</h2>{notes}{table_html((), rows)}</section>"


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


def _plots_html(gated: Sequence[Gated]) -> str:
    """The curves of all in one picture where they can be read, then the plots of each run."""
    runs = {model.run_directory: model for model in gated if model.run_directory}
    if not runs:
        return ""
    curves = _gate_curves(runs)
    parts = ["<h2>Plots</h2>"]
    if curves is not None:
        parts.append(figure_html(curves, "Every epoch beside the reference of recipe and engine"))
    for directory, model in runs.items():
        if len(runs) > 1:
            parts.append(f"<h3>Engine {escape(model.engine)}</h3>")
        parts.append(_run_plots_html(directory, () if curves is None else ("curves.png",)))
    return "\n".join(parts)


def _run_plots_html(directory: Path, without: Sequence[str]) -> str:
    parts = []
    for name, caption in PLOTS.items():
        path = directory / "plots" / name
        if name in without:
            continue
        try:
            parts.append(figure_html(_read_png(path), caption))
        except _DAMAGE as error:
            parts.append(_damage_note(path, error))
    return "\n".join(parts)


def _gate_curves(runs: Mapping[Path, Gated]) -> bytes | None:
    """The curves of runs that have a reference; None where one has none, or is damaged."""
    trained: dict[str, tuple[Trained, Sequence[Trained]]] = {}
    try:
        for directory, model in runs.items():
            run = read_run(directory)
            reference = read_reference(run.recipe.name, run.engine)
            if run.dataset != "mnist" or identity(reference.recipe) != identity(run.recipe):
                return None
            epochs = read_history(directory).epochs
            curves = tuple(
                (e.training_loss, e.training_accuracy, e.validation_loss, e.validation_accuracy)
                for e in epochs
            )
            one = Trained(run.seed, 0, 1, curves=curves, weight_norms=model.weight_norms)
            trained[run.engine] = one, reference.seeds
        # matplotlib takes longer to import than most sessions without a gate run.
        from bench.report.accuracy_plots import gate_png

        return gate_png(trained)
    except (InputError, ValueError):  # ValueError: a reference without curves
        return None


def _throughput_html(throughput: Sequence[Throughput]) -> str:
    if not throughput:
        return "<h2>Throughput</h2><p>No throughput was measured in this session.</p>"
    # matplotlib takes longer to import than most sessions without benchmarks run.
    from bench.report.throughput_plots import throughput_png

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


def _damage_note(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f'<p class="note">{escape(str(path))} is missing.</p>'
    if isinstance(error, KeyError):
        return f'<p class="note">{escape(str(path))} lacks {escape(str(error))}.</p>'
    reason = f"{type(error).__name__}: {error}"
    return f'<p class="note">{escape(str(path))} is damaged ({escape(reason)}).</p>'


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
