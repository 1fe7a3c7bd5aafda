"""The HTML report of the root conftest's hooks, in small separate projects."""

from __future__ import annotations

import base64
import io
import json
import shutil
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from bench.records.sides import Side
from bench.records.trainings import Trainings
from bench.report.session import (
    ENVIRONMENT,
    GATED,
    PLOTS,
    Gated,
    head_html,
)
from bench.report.tables import Table
from bench.report.throughput import Throughput, session_throughput, throughput_figure
from lenet5.history import Epoch, History
from lenet5.plots import PLOT_FILES
from lenet5.recipes import RECIPES
from lenet5.run_directory import Run as RecipeRun
from lenet5.run_directory import run_content, write_json
from tests import stand_in_gpu
from tests.verdicts.test_reference import drawn

ROOT = Path(__file__).resolve().parents[2]
HOOKS = (
    "pytest_make_benchmark_folder",
    "pytest_metadata",
    "pytest_html_report_title",
    "pytest_html_results_summary",
    "pytest_html_results_table_row",
)
HEIGHTS = {"curves.png": 4.6, "confusion_matrix.png": 9.0, "roc.png": 5.4, "errors.png": 8.8}
METRICS = {
    "test_images": 10_000,
    "test_errors": 148,
    "test_accuracy": 0.9852,
    "test_accuracy_interval": [0.98263, 0.98738],
    "test_loss": 0.0812,
    "epochs_run": 6,
    "best_epoch": 5,
    "train_seconds": 41.25,
}
RECIPE = {
    "recipe": {"name": "fast", "min_accuracy": 0.98, "max_accuracy": 0.992},
    "overrides": {},
    "seed": 0,
    "dataset": "mnist",
}
VERSIONS = {
    "tensorflow": "2.21.0",
    "keras": "3.12.0",
    "numpy": "2.4.6",
    "python": "3.11.7",
    "cpu": "Some CPU @ 2.5 GHz",
    "threads": "1",
    "git_commit": "0123456789ab",
}
PASSING = "def test_passes(): pass"
BENCHMARK = """
    def test_train_step_loop_b32(benchmark):
        benchmark.extra_info.update(images=640, batch_size=32, threads=1)
        benchmark.pedantic(sum, args=[range(1000)], rounds=3)
    """
ACCURACY = "test accuracy 98.52 % (148 wrong of 10,000; 95 % interval 98.26-98.74 %)"


class Page(HTMLParser):
    """Content and resources of a report.

    Attributes:
        words: Text of the page, without styles and scripts, with single spaces.
        pictures: Bytes of every picture, by its alternative text.
        tags: Name and attributes of every start tag.
        cells: Cells, as HTML, of the table of tests, built by pytest-html's script.
        metadata: Values, as HTML, of the table of test tools, built by the same script.
        styles: The style sheets.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.pictures: dict[str, bytes] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.metadata: dict[str, Any] = {}
        self.styles = ""
        self._parts: list[str] = []
        self.feed(self.text)
        self.words = " ".join(" ".join(self._parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects the tag, its picture and the data of pytest-html's script."""
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        source = attributes.get("src") or ""
        if tag == "img" and source:
            head, _, content = source.partition(",")
            assert head == "data:image/png;base64"
            self.pictures[str(attributes["alt"])] = base64.b64decode(content, validate=True)
        if "data-jsonblob" in attributes:
            data = json.loads(str(attributes["data-jsonblob"]))
            self.metadata = data["environment"]
            rows = [row for rows in data["tests"].values() for row in rows]
            self.cells = [cell for row in rows for cell in row["resultsTableRow"]]

    def handle_data(self, data: str) -> None:
        """Collects text and styles."""
        if self.cdata_elem == "style":
            self.styles += data
        elif self.cdata_elem is None:
            self._parts.append(data)


def report_hooks(config: pytest.Config) -> Any:
    """A plugin with only the report hooks of the root conftest."""
    conftest = config.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    hooks = types.ModuleType("hooks")
    for name in HOOKS:
        setattr(hooks, name, getattr(conftest, name))
    return hooks


Run = Callable[..., tuple[pytest.RunResult, Page]]


def gated(
    directory: Path, bounds: tuple[float, float] = (0.98, 0.992), engine: str = "keras"
) -> Gated:
    """A run gated by this session."""
    described = ACCURACY.removeprefix("test accuracy ")
    return Gated(
        engine, directory, directory / "model.keras", bounds, 0.9852, described, 10 * (3.0,)
    )


@pytest.fixture
def run(pytester: pytest.Pytester, pytestconfig: pytest.Config) -> Run:
    """Runs one test file under the root conftest's report hooks; returns result and report."""
    hooks = report_hooks(pytestconfig)
    hooks.pytest_benchmark_generate_machine_info = dict  # the query of the CPU takes a second
    pytester.makeini("[pytest]\naddopts =")  # overrides settings of enclosing folders

    def run(
        source: str,
        *arguments: str,
        run_directory: Path | None = None,
        environment: Mapping[str, object] | None = None,
        bounds: tuple[float, float] = (0.98, 0.992),
        others: Sequence[Gated] = (),
    ) -> tuple[pytest.RunResult, Page]:
        def pytest_sessionstart(session: pytest.Session) -> None:
            session.config.stash[ENVIRONMENT] = VERSIONS if environment is None else environment
            own = [] if run_directory is None else [gated(run_directory, bounds)]
            session.config.stash[GATED] = [*own, *others]

        hooks.pytest_sessionstart = pytest_sessionstart
        pytester.makepyfile(source)
        html = ("--html=new/folder/report.html", "--self-contained-html")
        result = pytester.runpytest_inprocess(*html, *arguments, plugins=[hooks])
        return result, Page(pytester.path / "new" / "folder" / "report.html")

    return run


@pytest.fixture(scope="module")
def plots() -> dict[str, bytes]:
    """Distinct PNG files with the sizes of real plots."""
    files = {}
    for name, inches in HEIGHTS.items():
        figure = Figure(figsize=(10.5, inches), dpi=100)
        figure.subplots().plot([0, 1, 2], [len(name), 1, 2])
        file = io.BytesIO()
        figure.savefig(file, format="png")
        files[name] = file.getvalue()
    return files


@pytest.fixture
def run_directory(tmp_path: Path, plots: Mapping[str, bytes]) -> Path:
    """A finished run."""
    folder = tmp_path / "runs" / "mnist-fast-seed0"
    (folder / "plots").mkdir(parents=True)
    for name, values in (("metrics", METRICS), ("recipe", RECIPE), ("environment", VERSIONS)):
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    for name, content in plots.items():
        (folder / "plots" / name).write_bytes(content)
    return folder


def test_every_picture_is_embedded_and_none_is_blank(run: Run, run_directory: Path) -> None:
    """The report contains the four plots byte for byte and a chart of the throughput."""
    _, page = run(BENCHMARK, run_directory=run_directory)
    for name, caption in PLOTS.items():
        assert page.pictures[caption] == (run_directory / "plots" / name).read_bytes()
    assert len(page.pictures) == len(PLOTS) + 1
    for content in page.pictures.values():
        image = matplotlib.image.imread(io.BytesIO(content), format="png")
        height, width = image.shape[:2]
        assert width >= 800
        assert height >= 100
        assert np.ptp(image[:, :, :3]) > 0.5


def test_the_head_describes_the_gated_run_and_the_session(run: Run, run_directory: Path) -> None:
    """Accuracy with counts and interval, recipe, seed, bounds, versions and counts of tests."""
    result, page = run(BENCHMARK, run_directory=run_directory)
    assert result.ret == 0
    for words in (
        ACCURACY,
        "Recipe fast",
        "Seed 0",
        "Dataset mnist",
        "Bounds at least 98.00 %, at most 99.20 %",
        "Epochs 6, the best is epoch 5",
        "TensorFlow 2.21.0",
        "CPU Some CPU @ 2.5 GHz",
        "Git commit 0123456789ab",
        "GPUs are hidden",
        "train_step_loop_b32 32 1 3",  # batch, threads, rounds
        "Tests: 1 passed",
    ):
        assert words in page.words


def test_bounds_of_the_session_replace_those_of_the_recipe(run: Run, run_directory: Path) -> None:
    """The report shows `--min-accuracy` instead of the recipe's bound."""
    _, page = run(PASSING, run_directory=run_directory, bounds=(0.9, 1.0))
    assert "Bounds at least 90.00 %, at most 100.00 %" in page.words
    assert "outside the bounds" not in page.words


@pytest.mark.parametrize("bounds", [(0.99, 1.0), (0.0, 0.98), (0.9853, 0.99)])
def test_an_accuracy_outside_the_bounds_is_reported(
    run: Run, run_directory: Path, bounds: tuple[float, float]
) -> None:
    """The head of a failed gate differs from that of a passed one."""
    _, page = run(PASSING, run_directory=run_directory, bounds=bounds)
    assert "The accuracy is outside the bounds." in page.words


def test_the_report_loads_nothing(run: Run, run_directory: Path) -> None:
    """Everything is embedded, so the report needs no network; only links may be external."""
    _, page = run(BENCHMARK, run_directory=run_directory)
    for tag, attributes in page.tags:
        for attribute in {"src", "srcset", "href", "data", "poster", "background"} & set(
            attributes
        ):
            value = attributes[attribute] or ""
            assert tag == "a" or value == "" or value.startswith("data:"), (tag, attribute, value)
    assert "url(" not in page.styles
    assert "@import" not in page.styles
    assert "<script src" not in page.text


@pytest.mark.parametrize("identifier", ["<script>alert(1)</script>", "\"' onclick=x", "loop,b32"])
def test_test_ids_are_escaped(run: Run, identifier: str) -> None:
    """A test id is shown unchanged and is never markup."""
    _, page = run(
        f"""
        import pytest
        @pytest.mark.parametrize("x", [1], ids=[{identifier!r}])
        def test_x(x): pass
        """
    )
    (cell,) = (cell for cell in page.cells if "col-testId" in cell)
    name = f"test_test_ids_are_escaped.py::test_x[{identifier}]"
    assert cell == f'<td class="col-testId">{escape(name)}</td>'


def test_failures_in_fixtures_keep_their_names(run: Run) -> None:
    """An error in a fixture is listed with its phase and counted."""
    result, page = run(
        """
        import pytest
        @pytest.fixture
        def broken(): raise OSError("<b>")
        def test_x(broken): pass
        """
    )
    assert result.ret == 1
    assert any("test_x::setup</td>" in cell for cell in page.cells)
    assert "Tests: 1 error" in page.words


def test_environment_and_metadata_are_escaped(run: Run, run_directory: Path) -> None:
    """Names of CPU, data set or CI branch add no markup to the page."""
    recipe = {**RECIPE, "dataset": "<script>set</script>"}
    (run_directory / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    _, page = run(
        PASSING,
        *("--metadata", "branch", "<script>branch</script>"),
        run_directory=run_directory,
        environment={"cpu": "<script>cpu</script>", "<script>key</script>": "x"},
    )
    for word in ("cpu", "key", "set"):
        assert f"<script>{word}</script>" in page.words
    assert sum(tag == "script" for tag, _ in page.tags) == 1  # pytest-html's own
    assert page.metadata["branch"] == "&lt;script&gt;branch&lt;/script&gt;"


def test_a_report_without_run_or_benchmarks_says_so(run: Run) -> None:
    """Both a missing gate and a missing benchmark are stated."""
    result, page = run(BENCHMARK, "--benchmark-disable")
    assert result.ret == 0
    assert "No accuracy gate ran in this session." in page.words
    assert "No throughput was measured in this session." in page.words
    assert not page.pictures


def test_reports_do_not_need_pytest_benchmark(run: Run) -> None:
    """The report is also written with `-p no:benchmark`."""
    _, page = run(PASSING, "-p", "no:benchmark", "-p", "no:pytest-benchmark")
    assert "No throughput was measured in this session." in page.words


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(None, "is missing", id="missing"),
        pytest.param("", "is damaged", id="empty"),
        pytest.param('{"test_images": 10', "is damaged", id="cut short"),
        pytest.param("[]", "is damaged", id="list"),
        pytest.param("{}", "lacks 'epochs_run'", id="no numbers"),
        pytest.param(json.dumps({**METRICS, "test_loss": "x"}), "is damaged", id="no number"),
    ],
)
def test_damaged_metrics_are_named_without_further_effect(
    run: Run, run_directory: Path, content: str | None, complaint: str
) -> None:
    """The other parts of the run are still shown; the tests alone set the exit status."""
    metrics = run_directory / "metrics.json"
    metrics.unlink()
    if content is not None:
        metrics.write_text(content, encoding="utf-8")
    result, page = run(PASSING, run_directory=run_directory)
    assert result.ret == 0
    assert ACCURACY in page.words  # of this session, from the model
    assert f"{metrics} {complaint}" in page.words
    assert "Recipe fast" in page.words
    assert len(page.pictures) == len(PLOTS)


def test_missing_and_damaged_files_of_a_run_are_named(run: Run, run_directory: Path) -> None:
    """All other files may also be missing or truncated."""
    plots = run_directory / "plots"
    (plots / "roc.png").unlink()
    (plots / "errors.png").write_bytes((plots / "errors.png").read_bytes()[:-20])
    (run_directory / "recipe.json").write_text("{}", encoding="utf-8")
    (run_directory / "environment.json").unlink()
    result, page = run(PASSING, run_directory=run_directory)
    assert result.ret == 0
    assert ACCURACY in page.words
    assert f"{plots / 'roc.png'} is missing" in page.words
    assert f"{plots / 'errors.png'} is damaged" in page.words
    assert f"{run_directory / 'recipe.json'} lacks 'recipe'" in page.words
    assert f"{run_directory / 'environment.json'} is missing" in page.words
    assert len(page.pictures) == len(PLOTS) - 2


def test_two_engines_are_shown_side_by_side(run: Run, run_directory: Path, tmp_path: Path) -> None:
    """Each with its accuracy, bounds and plots."""
    other = tmp_path / "other"
    shutil.copytree(run_directory, other)
    _, page = run(PASSING, run_directory=run_directory, others=[gated(other, engine="graph")])
    for engine in ("keras", "graph"):
        assert f"engine {engine}: {ACCURACY}" in page.words
        assert f"Accuracy gate, engine {engine}" in page.words
        assert f"Engine {engine} Accuracy and loss over the epochs" in page.words
    pictures = [tag for tag, attributes in page.tags if tag == "img" and attributes.get("src")]
    assert len(pictures) == 2 * len(PLOTS)


def test_a_model_trained_elsewhere_has_an_unknown_recipe(run: Run, tmp_path: Path) -> None:
    """Only its accuracy is known: no recipe, no plots."""
    _, page = run(PASSING, others=[replace(gated(tmp_path), engine="", run_directory=None)])
    assert ACCURACY in page.words
    assert "Recipe unknown: the model was trained elsewhere" in page.words
    assert "Plots" not in page.words


def test_curves_of_runs_with_a_reference_are_one_picture(
    monkeypatch: pytest.MonkeyPatch, run: Run, run_directory: Path
) -> None:
    """A common picture of all engines and the reference replaces the curves of each run."""
    recipe = RECIPES["fast"]
    seeds = tuple(drawn(seed, epochs=9) for seed in range(20))
    reference = Trainings(recipe, "keras", "", "", Side("", ""), {}, "", seeds)
    monkeypatch.setattr("bench.report.session.read_reference", lambda *_: reference)
    epochs = tuple(
        Epoch(epoch, row[0], row[1], row[2], row[3], learning_rate=1e-3, train_seconds=1.0)
        for epoch, row in enumerate(seeds[0].curves, start=1)
    )
    history = History(epochs, best_epoch=9)
    write_json(run_directory / "recipe.json", run_content(RecipeRun(recipe, {}, 0, "mnist")))
    write_json(run_directory / "history.json", asdict(history))
    _, page = run(PASSING, run_directory=run_directory)
    assert "Every epoch compared with the reference of recipe and engine" in page.pictures
    assert PLOTS["curves.png"] not in page.pictures
    assert len(page.pictures) == len(PLOTS)


def test_a_run_of_another_environment_is_compared_with_this_one(
    run: Run, run_directory: Path
) -> None:
    """`--run-dir` may gate a run of another TensorFlow; a single version would mislead."""
    _, page = run(PASSING, run_directory=run_directory, environment={"tensorflow": "2.15.1"})
    assert "this session the gated run TensorFlow 2.15.1 2.21.0" in page.words


def test_a_gpu_and_its_modes_are_one_row(run: Run, run_directory: Path) -> None:
    """Beside the gated run's device; runs of earlier versions have none and are of a CPU."""
    here = {**VERSIONS, **stand_in_gpu.ENTRIES}
    _, page = run(PASSING, run_directory=run_directory, environment=here)
    words = (
        "Devices GPU Stand-in (gpu:0), TF32 on, deterministic operations off; "
        "compute capability 9.0; CUDA 12.5.1; cuDNN 9"
    )
    assert f"{words} CPUs only: GPUs are hidden from TensorFlow" in page.words
    write_json(run_directory / "environment.json", here)
    _, page = run(PASSING, run_directory=run_directory, environment=here)
    assert words in page.words
    assert "the gated run" not in page.words
    assert page.words.count("Stand-in") == 1


def test_the_cpu_as_device_is_no_difference(run: Run, run_directory: Path) -> None:
    here = {**VERSIONS, "device": "cpu"}
    _, page = run(PASSING, run_directory=run_directory, environment=here)
    assert "Devices CPUs only: GPUs are hidden from TensorFlow" in page.words
    assert "the gated run" not in page.words


def test_benchmark_json_makes_its_folder(run: Run, pytester: pytest.Pytester) -> None:
    """The file is written to a new folder, with the data of every round."""
    result, _ = run(BENCHMARK, "--benchmark-json=some/dir/results.json")
    assert result.ret == 0
    results = json.loads((pytester.path / "some/dir/results.json").read_text(encoding="utf-8"))
    assert len(results["benchmarks"][0]["stats"]["data"]) == 3


def test_benchmark_json_in_an_impossible_folder_ends_before_the_tests(
    pytester: pytest.Pytester, pytestconfig: pytest.Config
) -> None:
    """One line and exit status 4, before any measurement."""
    (pytester.path / "file").write_text("", encoding="utf-8")
    pytester.makepyfile(BENCHMARK)
    result = pytester.runpytest_inprocess(
        "--benchmark-json=file/x.json", plugins=[report_hooks(pytestconfig)]
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --benchmark-json file/x.json: *"])


def test_throughput_is_taken_per_round() -> None:
    """Images per round over its seconds; failed and other benchmarks are omitted."""

    def benchmark(info: dict[str, object], *, failed: bool = False) -> SimpleNamespace:
        stats = SimpleNamespace(data=[0.5, 0.25])
        return SimpleNamespace(name="test_x[b8]", extra_info=info, has_error=failed, stats=stats)

    measured = [
        benchmark({"images": 100, "batch_size": 8, "threads": 2}),
        benchmark({"images_per_second": 7.0}),
        benchmark({"images": 100}, failed=True),
        benchmark({}),
    ]
    config: Any = SimpleNamespace(_benchmarksession=SimpleNamespace(benchmarks=measured))
    assert session_throughput(config) == [
        Throughput("x[b8]", 8, 2, (200.0, 400.0)),
        Throughput("x[b8]", None, None, (7.0,)),
    ]


def test_the_table_of_throughput_shows_median_slowest_and_fastest(tmp_path: Path) -> None:
    """Rounded images per second, with batch, threads and number of rounds."""
    row = Throughput("fit[b32]", 32, 2, (1300.4, 1000.0, 1100.0))
    report = tmp_path / "report.html"
    report.write_text(head_html({}, [], [row]), encoding="utf-8")
    assert "fit[b32] 32 2 3 1,100 1,000 1,300" in Page(report).words


def test_the_chart_shows_medians_and_spread() -> None:
    """Bars are medians, lines span the rounds, training and prediction have separate scales."""
    rows = [
        Throughput("train_step[loop,b32]", 32, 1, (100.0, 130.0, 110.0)),
        Throughput("fit[b32]", 32, 1, (50.0,)),
        Throughput("predict[b512]", 512, 1, (9_000.0, 11_000.0)),
    ]
    panels: Any = throughput_figure(rows).axes
    training, prediction = panels
    assert [bar.get_width() for bar in training.patches] == [110, 50]
    assert [bar.get_width() for bar in prediction.patches] == [10_000]
    assert list(training.lines[0].get_xdata()) == [100, 130]
    assert [text.get_text() for text in prediction.texts] == ["10,000"]
    assert [label.get_text() for label in training.get_yticklabels()] == [
        "train_step[loop,b32]",
        "fit[b32]",
    ]


def test_the_report_lists_all_plots_of_a_run() -> None:
    """A plot added to or removed from runs must also change the report."""
    assert tuple(PLOTS) == PLOT_FILES


def test_findings_are_sentences_and_tables() -> None:
    """In order, and escaped."""
    table = Table(("broken", "noticed by"), [("a <b>", "c")])
    head = head_html({}, [], [], findings=["before <i>", table, "after"])
    places = [head.index(text) for text in ("<p>before &lt;i&gt;</p>", "a &lt;b&gt;", "<p>after")]
    assert places == sorted(places)
    assert '<tr><th>a &lt;b&gt;</th><td class="">c</td></tr>' in head
