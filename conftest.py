"""Options, fixtures and report hooks shared by tests/ and bench/."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Generator
from html import escape
from pathlib import Path
from typing import Any

import pytest

from bench.report.pages import UNLISTED, plain_note, ran_tests, write_plain
from bench.report.session import (
    DEVICE,
    ENVIRONMENT,
    FINDINGS,
    GATED,
    Gated,
    head_html,
    id_cell,
)
from bench.report.tables import Table
from bench.report.throughput import session_throughput
from bench.report.versions import device_words
from lenet5 import data, run_directory, runtime
from lenet5.devices import CPU, Device, read_device
from lenet5.distributions import check_distributions, tensorflow_package
from lenet5.environment import describe_environment
from lenet5.errors import InputError
from lenet5.folders import default_cache_dir, default_data_dir, default_mnist_dir
from lenet5.recipe import DEFAULT_ENGINE, ENGINES, check_engine, check_seed
from lenet5.recipes import RECIPES, find_recipe

TITLE = "LeNet-5 in TensorFlow: accuracy and training speed"

WITHOUT_TENSORFLOW = (
    *("bisection", "environments", "fronts", "measure", "records", "report", "verdicts"),
)
"""Test folders without TensorFlow: a session of these alone does not start it."""

GATE = Path("tests", "test_accuracy_gate.py")
"""The test module outside of `bench` that is meant for a GPU too; all others are unit tests."""

UNUSABLE = pytest.StashKey[str]()
"""Reason for the failed start of TensorFlow; absent otherwise."""

# tests/report/test_session.py runs small sessions with pytester.
pytest_plugins = ["pytester", "bench.plugin", "tests.second_process"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options of the accuracy gate and of TensorFlow."""
    group = parser.getgroup("lenet5", "LeNet-5: the accuracy gate and TensorFlow")
    group.addoption(
        "--run-dir", type=Path, metavar="DIR", help="gate this run instead of training one"
    )
    group.addoption(
        "--model", type=Path, metavar="FILE", help="gate this .keras file instead of training one"
    )
    group.addoption("--recipe", metavar="NAME", help=f"{', '.join(RECIPES)}; default: fast")
    group.addoption("--seed", type=int, metavar="N", help="default: 0")
    group.addoption("--dataset", choices=data.DATASETS, help="to gate on; default: mnist")
    group.addoption(
        "--min-accuracy",
        type=float,
        metavar="SHARE",
        help="lowest test accuracy that passes, 0 to 1; default: the recipe's",
    )
    group.addoption(
        "--engine",
        metavar="NAME",
        help=f"{' or '.join(ENGINES)}: trains; default: both, with --seeds graph (paired seeds)",
    )
    group.addoption("--threads", type=int, help="TensorFlow's; default: 1")
    group.addoption(
        "--device", metavar="DEVICE", help="cpu, gpu or gpu:N, to compute on; default: cpu"
    )
    group.addoption(
        "--mnist-dir",
        type=Path,
        metavar="DIR",
        help="folder with MNIST's four original files; default: LENET5_MNIST_DIR",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Rejects invalid options before any import or test."""
    option = config.option
    option.threads = 1 if option.threads is None else option.threads  # bench.plugin reads it first
    try:
        shown = {} if option.cluster else os.environ  # a cluster's machines have their own GPUs
        device = read_device(CPU.name if option.device is None else option.device, shown)
        config.stash[DEVICE] = device
        if device.is_gpu and option.mutations:
            given = f"--device {option.device}"
            raise InputError(f"--mutations runs the unit tests, which are for CPUs: remove {given}")
        default_data_dir(os.environ)
        default_cache_dir(os.environ)
        option.mnist_dir = option.mnist_dir or default_mnist_dir(os.environ)
        find_recipe(option.recipe or "fast")
        check_seed(option.seed or 0)
        check_engine(option.engine or DEFAULT_ENGINE)
        if not 1 <= option.threads <= 256:
            raise InputError(f"--threads is {option.threads}, expected 1 to 256")
        least = option.min_accuracy
        if least is not None and not 0 <= least <= 1:  # rejects NaN too
            raise InputError(f"--min-accuracy is {least}, expected a share from 0 to 1")
        if option.seeds is not None and (option.dataset or "mnist", least) != ("mnist", None):
            raise InputError("--seeds compares on MNIST: without --dataset and --min-accuracy")
        if option.mutations:
            for name in ("run_dir", "model", "recipe", "seed", "engine", "min_accuracy"):
                if getattr(option, name) is not None:
                    given = f"--{name.replace('_', '-')}"
                    raise InputError(f"--mutations has its own seeds: remove {given}")
        _check_given_model(option)
        if option.dataset != "mnist" and least is None:
            raise InputError(f"--dataset {option.dataset} has no bound, give --min-accuracy")
        runtime.check_settings()
    except InputError as error:
        raise pytest.UsageError(str(error)) from None


def _check_given_model(option: Any) -> None:
    """Rejects options that conflict with `--run-dir` or `--model`; sets the run's dataset."""
    given = [name for name in ("run_dir", "model") if getattr(option, name) is not None]
    if len(given) > 1:
        raise InputError("give either --run-dir or --model, not both")
    for name in given:
        what = f"--{name.replace('_', '-')}"
        if option.seeds is not None:
            raise InputError(f"{what} gates one model, --seeds trains many")
        if any(getattr(option, other) is not None for other in ("recipe", "seed", "engine")):
            raise InputError(f"{what} names a trained model: remove --recipe, --seed, --engine")
        saved = run_directory.find_model(getattr(option, name))
        if saved.run is not None:
            if option.dataset not in (None, saved.run.dataset):
                raise InputError(f"{what} is a run on {saved.run.dataset}, not on {option.dataset}")
            option.dataset = saved.run.dataset
    option.dataset = option.dataset or "mnist"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Starts TensorFlow for a GPU before the header, which names the GPU and its modes."""
    from bench.plugin import EXPERIMENT  # pytest imports its plugins first

    config = session.config
    if config.stash[DEVICE].is_gpu and EXPERIMENT not in config.stash:
        try:
            _start_tensorflow(config)
        except InputError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> None:
    """Starts TensorFlow before a test module imports it: threads cannot be set later.

    A comparison starts TensorFlow only in its workers.
    """
    config = parent.config
    from bench.plugin import EXPERIMENT

    is_without = module_path.parent.name in WITHOUT_TENSORFLOW
    if EXPERIMENT in config.stash or ENVIRONMENT in config.stash or is_without:
        return
    try:
        _start_tensorflow(config)
    except InputError as error:
        config.stash[UNUSABLE] = str(error)
        raise pytest.Collector.CollectError(str(error)) from None  # shown without a traceback


def _start_tensorflow(config: pytest.Config) -> None:
    check_distributions()
    device = config.stash[DEVICE]
    runtime.start_tensorflow(config.option.threads, device)
    config.stash[ENVIRONMENT] = describe_environment(
        runtime.threads_in_use(), runtime.keras_version(), device
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, None, None]:
    """Ends a session without a usable TensorFlow as one with wrong options, before any test."""
    try:
        return (yield)
    finally:
        if reason := session.config.stash.get(UNUSABLE, None):
            raise pytest.UsageError(reason) from None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Exempts TensorFlow's objects from garbage collection, where it took a tenth of the time."""
    if ENVIRONMENT in session.config.stash:
        gc.collect()
        gc.freeze()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Returns the effective settings."""
    environment = config.stash.get(ENVIRONMENT, {"device": config.stash[DEVICE].name})
    settings = (
        f"lenet5: threads {config.option.threads}, {device_words(environment)}, "
        f"data {default_data_dir(os.environ)}, MNIST folder {config.option.mnist_dir or 'none'}, "
        f"TensorFlow of this environment: {tensorflow_package()}"
    )
    if config.stash[DEVICE].is_gpu and ENVIRONMENT in config.stash:  # no comparison
        return [settings, "lenet5: unit tests are for CPUs: left out"]
    return [settings]


@pytest.hookimpl(tryfirst=True)  # before the selection by -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks tests that need the real MNIST; leaves out trials of faults, and on a GPU unit tests.

    `-m "not mnist"` selects the unit tests. Only a `-m` that names `faults` selects the trials.
    """
    for item in items:
        if {"mnist", "gated"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("mnist")
    trials = "faults" in config.option.markexpr
    on_gpu = config.stash.get(DEVICE, CPU).is_gpu
    left_out = [
        item
        for item in items
        if (not trials and item.get_closest_marker("faults")) or (on_gpu and not _is_for_gpus(item))
    ]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def _is_for_gpus(item: pytest.Item) -> bool:
    root = item.config.rootpath
    return item.path == root / GATE or item.path.parent == root / "bench"


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> Device:
    """The device of this session."""
    return pytestconfig.stash[DEVICE]


@pytest.fixture(scope="session")
def load_dataset(pytestconfig: pytest.Config) -> Callable[[str], data.Dataset]:
    """Returns a function that loads a dataset by name, or raises InputError."""
    capture: Any = pytestconfig.pluginmanager.get_plugin("capturemanager")  # None: -p no:capture

    def tell(line: str) -> None:
        shown = capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()
        with shown:
            print(f"lenet5: {line}", file=sys.stderr, flush=True)

    def load(name: str) -> data.Dataset:
        return data.load_dataset(
            name,
            data_dir=default_data_dir(os.environ),
            mnist_dir=pytestconfig.option.mnist_dir,
            cache_dir=default_cache_dir(os.environ),
            report=tell,
        )

    return load


@pytest.fixture(scope="session")
def mnist(load_dataset: Callable[[str], data.Dataset]) -> data.Dataset:
    """The real MNIST; without it, a test fails and is never skipped."""
    try:
        return load_dataset("mnist")
    except InputError as error:
        reason = str(error)
    pytest.fail(reason, pytrace=False)  # outside `except`, which would show both errors


@pytest.fixture(scope="session")
def digits(load_dataset: Callable[[str], data.Dataset]) -> data.Dataset:
    """scikit-learn's small digits, always available."""
    return load_dataset("digits")


# This is the first hook of a conftest that knows the options. pytest-benchmark opens its file after
# the last test, and would then lose the results. `--html` and `--junitxml` create their folders
# themselves.
@pytest.hookimpl(specname="pytest_configure", tryfirst=True)
def pytest_make_benchmark_folder(config: pytest.Config) -> None:
    """Creates the folder of `--benchmark-json`."""
    path = config.getoption("benchmark_json", None)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(f"--benchmark-json {path}: {error}") from None


@pytest.hookimpl(optionalhook=True)
def pytest_metadata(metadata: dict[str, Any]) -> None:
    """Escapes pytest-html's table of test tools: a CI branch name is untrusted text."""
    metadata.update({key: _escaped(value) for key, value in metadata.items()})


@pytest.hookimpl(optionalhook=True)
def pytest_html_report_title(report: Any) -> None:
    """Sets the title of the report."""
    report.title = TITLE


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_summary(prefix: list[str], session: pytest.Session) -> None:
    """Adds accuracy, environment, plots and throughput above the table of tests."""
    from bench.plugin import comparison_head  # pytest imports its plugins first

    head = comparison_head(session.config) or _session_head(session.config)
    path = Path(os.path.expandvars(session.config.option.htmlpath)).expanduser()
    prefix += [plain_note(path), head]
    try:
        write_plain(path, TITLE, head, ran_tests(_stats(session.config)))
    except InputError as error:
        print(f"ERROR: {error}", file=sys.stderr)


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_table_row(report: Any, cells: list[str]) -> None:
    """Escapes the test id, since pytest-html does not."""
    cells[1] = id_cell(report)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints the findings of the session."""
    findings = config.stash.get(FINDINGS, [])
    if findings:
        terminalreporter.section("findings")
        for finding in findings:
            terminalreporter.write_line(str(finding))


def _escaped(value: object) -> object:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return escape(str(value))


def _session_head(config: pytest.Config) -> str:
    stash = config.stash
    findings: list[str | Table] = stash.get(FINDINGS, [])
    gated: list[Gated] = stash.get(GATED, [])
    return head_html(
        stash.get(ENVIRONMENT, {}),
        gated,
        session_throughput(config),
        findings=findings,
        test_counts={
            outcome: len(reports)
            for outcome, reports in _stats(config).items()
            if outcome not in UNLISTED
        },
    )


def _stats(config: pytest.Config) -> dict[str, list[Any]]:
    terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
    return terminal.stats if terminal else {}
