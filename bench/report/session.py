"""Head of the HTML report: accuracy, environment, plots and throughput.

pytest-html inserts the head unchanged; the templates escape all values. Missing or damaged files of
a run are named in the report; the other files are still shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest

from bench.records.trainings import Trained, identity, read_reference
from bench.report.pages import Picture, render
from bench.report.tables import Table
from bench.report.throughput import Throughput
from bench.report.versions import DEVICE_FACTS, device_row, facts, text_of
from lenet5.devices import Device
from lenet5.errors import InputError
from lenet5.run_directory import read_history, read_run

ENVIRONMENT = pytest.StashKey[Mapping[str, object]]()
"""Environment of this session, with the keys of a run's `environment.json`."""

DEVICE = pytest.StashKey[Device]()
"""Device of this session; the variables of a process on a GPU no longer tell its number."""


@dataclass(frozen=True)
class Gated:
    """A model whose accuracy this session gated.

    Attributes:
        engine: engine that trained the model; empty if unknown.
        run_directory: run directory of the model; None for a model trained elsewhere, about
            which nothing else is known.
        path: path of the model file.
        bounds: lowest and highest accuracy (0 to 1) that pass.
        accuracy: accuracy on the test images in this session, 0 to 1.
        described: the accuracy as text, with counts and interval.
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
"""Gated models of this session; absent if no gate ran or none obtained a model."""

FINDINGS = pytest.StashKey[list[str | Table]]()
"""Sentences and tables with this session's measurements, for report and terminal."""

PLOTS = {
    "curves.png": "Accuracy and loss over the epochs",
    "confusion_matrix.png": "Confusion matrix of the test images",
    "roc.png": "ROC curve of each class",
    "errors.png": "Misclassified test images",
}
"""Captions of the files in a run's `plots` folder, in the report's order."""

_CURVES = "Every epoch compared with the reference of recipe and engine"
_FIRST_FACTS = (
    *("tensorflow", "tensorflow_package", "keras", "numpy", "python"),
    *("cpu", "threads", "usable_cores"),
)
# Reading or formatting a missing, truncated or foreign file raises one of these.
_DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError),
    RecursionError,
)
_LARGEST_FILE = 2**25  # bytes; a run's largest plot has 2**18


class _Section(NamedTuple):
    """A table under a title, with notes between them."""

    title: str
    notes: Sequence[str]
    table: Table


def id_cell(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Returns the cell with the test's id, since pytest-html does not escape it."""
    name = report.nodeid if report.when == "call" else f"{report.nodeid}::{report.when}"
    return f'<td class="col-testId">{escape(name)}</td>'


def head_html(
    environment: Mapping[str, object],
    gated: Sequence[Gated],
    throughput: Sequence[Throughput],
    *,
    findings: Sequence[str | Table] = (),
    test_counts: Mapping[str, int] | None = None,
) -> str:
    """Returns the head of the report: HTML with inline style and no external resources.

    Args:
        environment: Environment of this session; see `ENVIRONMENT`. May be empty.
        gated: Gated models; empty if no gate ran.
        throughput: Results of the session's benchmarks; may be empty.
        findings: See `FINDINGS`.
        test_counts: Number of tests by outcome, such as `{"passed": 12, "failed": 1}`.
    """
    directories = [model.run_directory for model in gated if model.run_directory is not None]
    return render(
        "session.html",
        headlines=_headlines(gated),
        test_counts=test_counts or {},
        gates=[_gate(model) for model in gated],
        environment=_environment(environment, directories[0] if directories else None),
        plots=_plots(gated),
        throughput=_throughput_section(throughput),
        findings=findings,
    )


def _headlines(gated: Sequence[Gated]) -> list[str]:
    if not gated:
        return ["No accuracy gate ran in this session."]
    engines = [f"engine {m.engine}: " if m.engine and len(gated) > 1 else "" for m in gated]
    both = zip(engines, gated, strict=True)
    return [f"{engine}test accuracy {model.described}" for engine, model in both]


def _gate(model: Gated) -> _Section:
    """The gated model, its run, and the bounds."""
    low, high = model.bounds
    bounds = f"at least {100 * low:.2f} %, at most {100 * high:.2f} %"
    rows = [("Bounds", bounds), ("Model file", str(model.path))]
    notes = [] if low <= model.accuracy <= high else ["The accuracy is outside the bounds."]
    if model.run_directory is None:
        rows.append(("Recipe", "unknown: the model was trained elsewhere"))
    else:
        for name, read in (("recipe", _recipe_rows), ("metrics", _metric_rows)):
            path = model.run_directory / f"{name}.json"
            try:
                rows += read(_read_json(path))
            except _DAMAGE as error:
                notes.append(_damage_note(path, error))
    title = f"Accuracy gate, engine {model.engine}" if model.engine else "Accuracy gate"
    return _Section(title, notes, Table((), rows, left=None))


def _recipe_rows(saved: Mapping[str, Any]) -> list[tuple[str, str]]:
    name, overrides = str(saved["recipe"]["name"]), text_of(saved.get("overrides") or {})
    recipe = f"{name} with {overrides}" if overrides else name
    facts = ("Recipe", recipe), ("Seed", saved["seed"]), ("Dataset", saved["dataset"])
    return [(fact, text_of(value)) for fact, value in facts]


def _metric_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Epochs", f"{metrics['epochs_run']}, the best is epoch {metrics['best_epoch']}"),
        ("Training time", f"{metrics['train_seconds']:.1f} s"),
        ("Test loss", f"{metrics['test_loss']:.4f}"),
    ]


def _environment(environment: Mapping[str, object], run_directory: Path | None) -> _Section:
    """The session's environment, together with the gated run's if they differ."""
    of_run: Mapping[str, object] = {}
    notes = []
    if run_directory is not None:
        try:
            of_run = _read_json(run_directory / "environment.json")
        except _DAMAGE as error:
            notes.append(_damage_note(run_directory / "environment.json", error))
    here = environment or of_run
    others = (key for key in here if key not in DEVICE_FACTS)
    keys = list(dict.fromkeys([*(key for key in _FIRST_FACTS if key in here), *others]))
    session = [*facts({key: here[key] for key in keys}), device_row(here)]
    run = [*(text_of(of_run.get(key)) for key in keys), device_row(of_run)[1]]
    if not of_run or run == [text for _, text in session]:
        return _Section("Environment", notes, Table((), session, left=None))
    rows = [(*row, other) for row, other in zip(session, run, strict=True)]
    header = ("", "this session", "the gated run")
    return _Section("Environment", notes, Table(header, rows, left=None))


def _plots(gated: Sequence[Gated]) -> list[tuple[str, list[Picture], list[str]]]:
    """Title, pictures and notes per run; one picture has the curves of all runs, if possible."""
    runs = {model.run_directory: model for model in gated if model.run_directory}
    curves = _gate_curves(runs) if runs else None
    shown = [] if curves is None else [("", [curves], list[str]())]
    for directory, model in runs.items():
        pictures, notes = [], []
        for name, caption in PLOTS.items():
            path = directory / "plots" / name
            if curves is not None and name == "curves.png":
                continue
            try:
                pictures.append(Picture(_read_png(path), caption))
            except _DAMAGE as error:
                notes.append(_damage_note(path, error))
        shown.append((f"Engine {model.engine}" if len(runs) > 1 else "", pictures, notes))
    return shown


def _gate_curves(runs: Mapping[Path, Gated]) -> Picture | None:
    """Curves of all runs; None if a run has no reference or is damaged."""
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
        # matplotlib takes longer to import than most sessions without a gate take to run.
        from bench.report.accuracy_plots import gate_figure
        from bench.report.charts import png_of

        return Picture(png_of(gate_figure, trained), _CURVES)
    except (InputError, ValueError):  # ValueError: a reference without curves
        return None


def _throughput_section(throughput: Sequence[Throughput]) -> dict[str, object]:
    """Chart and table; empty without measurements."""
    if not throughput:
        return {}
    # matplotlib takes longer to import than most sessions without benchmarks take to run.
    from bench.report.charts import png_of
    from bench.report.throughput import throughput_figure

    header = ("", "batch", "threads", "rounds", "images/s (median)", "slowest", "fastest")
    rows = []
    for row in throughput:
        rates = row.images_per_second
        figures = [f"{rate:,.0f}" for rate in (median(rates), min(rates), max(rates))]
        sizes = text_of(row.batch_size), text_of(row.threads), str(len(rates))
        rows.append([row.name, *sizes, *figures])
    chart = png_of(throughput_figure, throughput)
    caption = "Median of the rounds; the line spans them all"
    return {"chart": Picture(chart, caption), "table": Table(header, rows)}


def _damage_note(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path} is missing."
    if isinstance(error, KeyError):
        return f"{path} lacks {error}."
    return f"{path} is damaged ({type(error).__name__}: {error})."


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(_content(path))
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def _read_png(path: Path) -> bytes:
    content = _content(path)
    if not (content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")):
        raise ValueError("not a whole PNG file")
    return content


def _content(path: Path) -> bytes:
    """Returns a file of a run; a pipe would block, and a device never ends."""
    if path.exists() and not path.is_file():
        raise ValueError("not a file")
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"larger than {_LARGEST_FILE:,} bytes")
    return path.read_bytes()
