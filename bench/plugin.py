"""The pytest plugin: verdicts on environments, their exit status, and the report's head.

`--baseline` compares training speed, `--seeds` accuracy. Such a session collects only the verdicts'
module, and its process does not import TensorFlow. The exit status depends on the outcomes only,
not on reporters, other plugins or `-x`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from bench.accuracy import AccuracyExperiment
from bench.bending import BENDING, SKIPPING, SPREADING, refuse_bending
from bench.environments.builds import default_cache
from bench.outputs import Output
from bench.report.pages import clear_plain
from bench.speed import SpeedExperiment
from bench.verdicts.outcomes import NOT_THERE, Exit, Outcome, exit_code
from bench.verdicts.sequential import Verdict
from lenet5 import data
from lenet5.errors import InputError
from lenet5.folders import default_cache_dir, default_data_dir
from lenet5.printable import printable

FOLDER = Path(__file__).parent
ON_REQUEST = {
    "test_speed.py": "--baseline",
    "test_accuracy.py": "--seeds",
    "test_self_check.py": "--self-check",
    "test_mutations.py": "--mutations",
}
"""Test modules in this folder, each with the option that collects it."""

VERDICT = "verdict"
_SPEED_ONLY = ("workloads", "margin", "budget", "resume")
_ACCURACY_ONLY = ("accuracy_margin", "recipe", "engine", "processes")
_COMPARISONS_ONLY = ("candidate", "results", "summary", "cluster")


class Experiment(Protocol):
    """Interface of a speed or accuracy comparison for this plugin."""

    results_path: Path

    def header(self) -> str:
        """Returns the terms, in one line."""

    def tests(self) -> list[tuple[Hashable, str]]:
        """Returns keys and ids of the tests."""

    def run(self, selected: Sequence[Hashable], dataset: data.Dataset, cache: Path) -> None:
        """Builds environments, measures, and stores each record immediately."""

    def outcomes(self) -> Mapping[Any, Outcome]:
        """Returns the outcomes of the selected tests by key, also before any measurement."""

    def text(self) -> str:
        """Returns the table of verdicts."""

    def summary(self, cache: Path) -> str:
        """Returns the table of verdicts for a CI job's page."""

    def html(self, cache: Path) -> str:
        """Returns the head of the HTML report."""

    def stopped(self, reason: str) -> None:
        """Records why measuring ended early; undecided outcomes report it."""


EXPERIMENT = pytest.StashKey[Experiment]()
OUTCOMES = pytest.StashKey[Mapping[Any, Outcome]]()
SELECTED = pytest.StashKey[Sequence[Hashable]]()
ENDED = pytest.StashKey[Exit]()
ERRORS = pytest.StashKey[set[str]]()
SUMMARY = pytest.StashKey[Output]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options of comparisons, without defaults, so that given options are recognised."""
    group = parser.getgroup("comparison", "LeNet-5: comparing environments")
    add = group.addoption
    add(
        "--baseline",
        metavar="REQ",
        help='such as "tensorflow-cpu==2.20.0 keras==3.11.2"; quotes as in a shell: '
        "\"'./my builds/tensorflow-2.22.0-py3-none-any.whl'\"",
    )
    add(
        "--candidate",
        metavar="REQ",
        action="append",
        help="another environment, repeatable; default: the current one",
    )
    add(
        "--seeds",
        type=int,
        metavar="N",
        help="compare accuracy over up to N seeds; without --baseline with the reference",
    )
    add("--workloads", metavar="NAMES", help="gated (default), all, or names")
    add(
        "--margin",
        type=float,
        metavar="RATIO",
        help="acceptable ratio of times; default: 1.03, on a GPU 1.05",
    )
    add(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="measuring time per candidate; default: 900",
    )
    add(
        "--accuracy-margin",
        type=float,
        metavar="POINTS",
        help="percentage points that may be lost; default: 1.5 standard deviations between seeds",
    )
    add(
        "--processes",
        type=int,
        metavar="N",
        help="trainings at a time; default: as many as cores, CPU quota and memory allow",
    )
    add("--self-check", action="store_true", help="replay the stopping rule on this machine's bank")
    add("--mutations", action="store_true", help="run the ordinary tests on broken variants")
    add(
        "--resume",
        type=Path,
        metavar="FILE",
        help="resume these results, up to --budget in all",
    )
    add(
        "--cluster",
        metavar="ADDRESS",
        help="measure or train on a Dask cluster, such as tcp://node1:8786; default: here",
    )
    add("--results", type=Path, metavar="FILE", help="where records are kept")
    add("--summary", type=Path, metavar="FILE.md", help="the table of verdicts for a CI job's page")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Rejects inconsistent options before any build, and checks the outputs."""
    option = config.option
    _treat_sigterm_as_ctrl_c(config)
    config.stash[ERRORS] = set()
    _place_report(option)
    asked = _asked_module(option)
    _choose_modules(config, asked)
    if asked is not None:
        refuse_bending(config, BENDING)
    elif option.markexpr != "not mnist":  # the unit tests alone may be spread out
        refuse_bending(config, SPREADING)
    try:
        if option.resume is not None or option.baseline is not None or option.seeds is not None:
            config.stash[EXPERIMENT] = _experiment(option)
        else:
            _refuse(option, _SPEED_ONLY, "needs --baseline")
            _refuse(option, ("accuracy_margin", "processes"), "needs --seeds")
            _refuse(option, _COMPARISONS_ONLY, "needs --baseline or --seeds")
        if option.summary is not None:
            config.stash[SUMMARY] = Output.checked(option.summary)
    except InputError as error:
        raise pytest.UsageError(str(error)) from None


def _treat_sigterm_as_ctrl_c(config: pytest.Config) -> None:
    """Makes the time limit of a CI job end the session like Ctrl-C, with all its reports."""
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)

        def restore() -> None:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: not of Python

        config.add_cleanup(restore)


def _place_report(option: Any) -> None:
    """Places the report in the checkout, independent of the working directory."""
    if hasattr(option, "htmlpath"):  # absent with `-p no:html`
        option.self_contained_html = True
        if option.collectonly:
            option.htmlpath = None
        elif option.htmlpath is None:
            option.htmlpath = str(FOLDER.parent / "reports" / "report.html")


def _asked_module(option: Any) -> str | None:
    if option.seeds is not None:
        asked = ["test_accuracy.py"]
    else:
        asked = ["test_speed.py"] if option.baseline or option.resume else []
    asked += ["test_self_check.py"] if option.self_check else []
    asked += ["test_mutations.py"] if option.mutations else []
    if len(asked) > 1:
        options = " and ".join(ON_REQUEST[name] for name in asked)
        raise pytest.UsageError(f"{options} cannot be combined: give one of them")
    return asked[0] if asked else None


def _choose_modules(config: pytest.Config, asked: str | None) -> None:
    """Makes pytest collect the requested module; rejects other named ones."""
    given = [Path(config.invocation_params.dir, arg.partition("::")[0]) for arg in config.args]
    for path in given:
        if path.parent == FOLDER and path.name in ON_REQUEST and path.name != asked:
            raise pytest.UsageError(f"{path.name} needs {ON_REQUEST[path.name]}")
    if asked is None:
        return
    if config.args_source is not config.ArgsSource.ARGS:
        config.args[:] = [str(FOLDER / asked)]
        return
    for arg, path in zip(config.args, given, strict=True):
        if not (FOLDER / asked).is_relative_to(path.resolve()):
            told = f"{ON_REQUEST[asked]} collects bench/{asked} alone"
            raise pytest.UsageError(f"{arg}: {told}")


def _refuse(option: Any, names: Sequence[str], reason: str) -> None:
    for name in names:
        if getattr(option, name, None) is not None:
            raise pytest.UsageError(f"--{name.replace('_', '-')} {reason}")


def _experiment(option: Any) -> Experiment:
    if option.seeds is not None:
        _refuse(option, _SPEED_ONLY, "applies to speed only: remove it, or remove --seeds")
        return AccuracyExperiment.of_options(option, project=FOLDER.parent)
    _refuse(option, _ACCURACY_ONLY, "applies to accuracy only: add --seeds, or remove it")
    return SpeedExperiment.of_options(option, project=FOLDER.parent)


def pytest_report_header(config: pytest.Config) -> str:
    """Returns the terms of the comparison."""
    experiment = config.stash.get(EXPERIMENT, None)
    if experiment is None:
        return 'comparison: none (--baseline "tensorflow-cpu==2.20.0" compares)'
    return experiment.header()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignores modules that the options do not request."""
    asked = _asked_module(config.option)
    if collection_path.suffix != ".py" or collection_path == FOLDER / (asked or ""):
        return None
    is_on_request = collection_path.parent == FOLDER and collection_path.name in ON_REQUEST
    return True if asked is not None or is_on_request else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Generates one test per verdict."""
    if "outcome" in metafunc.fixturenames:
        tests = metafunc.config.stash[EXPERIMENT].tests()
        parameters = [pytest.param(key, id=name) for key, name in tests]
        metafunc.parametrize("outcome", parameters, indirect=True, scope="session")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Stores the selected tests; rejects options that would skip the accuracy gate."""
    config = session.config
    selected = [
        item.callspec.params["outcome"]
        for item in session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        if "outcome" in item.callspec.params
    ]
    config.stash[SELECTED] = selected
    if any("gated" in getattr(item, "fixturenames", ()) for item in session.items):
        refuse_bending(config, SKIPPING)
    if EXPERIMENT in config.stash and not config.option.collectonly and SUMMARY in config.stash:
        config.stash[SUMMARY].write("## No verdict yet: the comparison is running\n", is_last=False)


@pytest.fixture(scope="session")
def outcome(request: pytest.FixtureRequest) -> Outcome:
    """Outcome of a test; the first test starts all measurements."""
    config = request.config
    if OUTCOMES not in config.stash:
        _measure(config)
        config.stash[OUTCOMES] = config.stash[EXPERIMENT].outcomes()
    return config.stash[OUTCOMES][request.param]


def _measure(config: pytest.Config) -> None:
    experiment = config.stash[EXPERIMENT]
    with _uncaptured(config):
        try:
            dataset = data.load_dataset(
                "mnist",
                data_dir=default_data_dir(os.environ),
                mnist_dir=config.option.mnist_dir,
                cache_dir=default_cache_dir(os.environ),
                report=print,
            )
            experiment.run(config.stash[SELECTED], dataset, default_cache(os.environ))
        except InputError as error:
            experiment.stopped(str(error))
            config.stash[ENDED] = Exit.USAGE
        except KeyboardInterrupt:
            experiment.stopped("interrupted")
            config.stash[ENDED] = Exit.INTERRUPTED


@contextmanager
def _uncaptured(config: pytest.Config) -> Iterator[None]:
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    if capture is None:  # -p no:capture
        yield
        return
    with capture.global_and_fixture_disabled():
        yield


def judge(outcome: Outcome, record: Callable[[str, object], None]) -> None:
    """Passes or fails a test by its outcome, and records the outcome as properties."""
    record(VERDICT, outcome.word)
    finding = printable(outcome.finding)
    record("finding", finding)
    for name, figure in outcome.figures.items():
        record(name, figure)
    if outcome.is_failed_report:
        pytest.fail(finding, pytrace=False)


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, Any] | None:
    """Gives INCONCLUSIVE and NOT THERE separate categories among failed reports."""
    word = dict(getattr(report, "user_properties", ())).get(VERDICT)  # absent during collection
    if report.when == "call" and report.failed and word in (Verdict.INCONCLUSIVE.value, NOT_THERE):
        return str(word).lower(), str(word)[0], (str(word), {"yellow": True})
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Records tests that fail for another reason than a verdict."""
    report = yield
    if report.failed and VERDICT not in dict(item.user_properties):
        item.config.stash[ERRORS].add(item.nodeid)
    return report


def pytest_sessionstart(session: pytest.Session) -> None:
    """Removes earlier reports under the file names of this session."""
    option = session.config.option
    if option.collectonly or hasattr(session.config, "workerinput"):
        return
    for name in ("htmlpath", "xmlpath"):
        path = getattr(option, name, None)
        if path and Path(path).is_file() and not Path(path).is_symlink():
            Path(path).unlink(missing_ok=True)
    if path := getattr(option, "htmlpath", None):
        try:
            clear_plain(Path(path))
        except InputError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Computes the exit status from the outcomes, and writes the summary."""
    config = session.config
    experiment = config.stash.get(EXPERIMENT, None)
    if experiment is None or config.option.collectonly:
        return
    if exitstatus in (Exit.PASSED, Exit.FAILED, Exit.NOTHING):
        session.exitstatus = _status(config)
    if SUMMARY in config.stash:
        try:
            config.stash[SUMMARY].write(experiment.summary(default_cache(os.environ)))
        except InputError as error:
            print(f"ERROR: {error}", file=sys.stderr)


# Within the terminal's hook, which prints the verdicts.
@pytest.hookimpl(specname="pytest_sessionfinish", wrapper=True, trylast=True)
def pytest_finish_without_reports(session: pytest.Session) -> Generator[None, Any, Any]:
    """Reports in one line that a report cannot be written, for example because the disk is full."""
    try:
        return (yield)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"ERROR: {place}a report cannot be written: {error.strerror}", file=sys.stderr)
        if session.exitstatus not in (Exit.INTERRUPTED, Exit.INTERNAL_ERROR):
            session.exitstatus = Exit.USAGE


def _status(config: pytest.Config) -> Exit:
    if ENDED in config.stash:
        return config.stash[ENDED]
    if config.stash[ERRORS]:
        return Exit.FAILED
    found = config.stash.get(OUTCOMES, {})
    selected = config.stash.get(SELECTED, [])
    unknown = Outcome(Verdict.INCONCLUSIVE, "not measured for an unknown reason")
    return exit_code(found.get(key, unknown) for key in selected)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints the table of verdicts and the path of the records."""
    experiment = config.stash.get(EXPERIMENT, None)
    if experiment is None or OUTCOMES not in config.stash:
        return
    terminalreporter.section("comparison")
    terminalreporter.write_line(printable(experiment.text()))
    terminalreporter.write_line(printable(f"records: {experiment.results_path}"))


def comparison_head(config: pytest.Config) -> str:
    """Returns the head of the HTML report; empty in a session without a comparison."""
    experiment = config.stash.get(EXPERIMENT, None)
    return "" if experiment is None else experiment.html(default_cache(os.environ))
