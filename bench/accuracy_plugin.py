"""`pytest bench --seeds N`: options, the trainings before the first verdict, findings.

With `--seeds` nothing but `bench/test_accuracy.py` is collected (and, with `--speed`, the speed
tests, which are measured after them: never beside trainings), and this process does not import
TensorFlow. Verdicts and exit codes are those of `bench.speed_plugin`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from bench.accuracy import compare_accuracy
from bench.environments import builds
from bench.environments.builds import Built, EnvironmentProblem, build, default_cache
from bench.measure import capacity
from bench.plans.seeds import AccuracyTerms, read_accuracy_terms
from bench.records import results
from bench.records.trainings import Trainings, read_reference, write_trainings
from bench.report.accuracy import accuracy_html
from bench.report.session import FINDINGS
from bench.speed_plugin import NOT_THERE, VERDICT
from bench.verdicts.accuracy import AccuracyDecision, decide_all, finding
from bench.verdicts.exit_codes import Exit
from bench.verdicts.sequential import Verdict
from lenet5 import data
from lenet5.cli import default_data_dir
from lenet5.errors import InputError

ACCURACY_TERMS = pytest.StashKey[AccuracyTerms]()
TRAINED = pytest.StashKey[list[Trainings]]()
_TEST_LABELS = pytest.StashKey[data.Subset]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The terms of an accuracy comparison."""
    group = parser.getgroup("accuracy", "LeNet-5: accuracy of TensorFlow versions over seeds")
    group.addoption(
        "--accuracy-margin",
        type=float,
        metavar="POINTS",
        help="percentage points that may be lost; default: 1.5 standard deviations between seeds",
    )
    group.addoption(
        "--processes",
        type=int,
        metavar="N",
        help="trainings at a time; default: as many as cores, CPU quota and memory allow",
    )


@pytest.hookimpl(trylast=True)  # after the recipe's name was checked
def pytest_configure(config: pytest.Config) -> None:
    """Refuses options that make no sense before anything is built."""
    option = config.option
    if option.seeds is None:
        if option.speed:
            raise pytest.UsageError("--speed adds speed tests to --seeds")
        if option.accuracy_margin is not None:
            raise pytest.UsageError("--accuracy-margin needs --seeds")
        if option.processes is not None:
            raise pytest.UsageError("--processes needs --seeds")
        return
    if getattr(option, "numprocesses", None) or getattr(option, "reruns", None):
        raise pytest.UsageError("--seeds trains in parallel itself: without -n and --reruns only")
    if option.threads != 1:
        raise pytest.UsageError("--seeds trains with one thread a process: without --threads")
    if option.seed is not None:
        raise pytest.UsageError("--seeds trains seeds 0, 1, 2 and so on: without --seed")
    if option.speed and option.baseline is None:
        raise pytest.UsageError("--speed needs --baseline")
    try:
        config.stash[ACCURACY_TERMS] = read_accuracy_terms(
            option.baseline,
            option.candidate,
            recipe=option.recipe or "fast",
            engine=option.engine or "graph",
            seeds=option.seeds,
            asked_margin=option.accuracy_margin,
        )
        option.processes = capacity.processes(option.processes)
        option.accuracy_results = _results_path(option.results, with_speed=option.speed)
        results.check_new(option.accuracy_results)
    except InputError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_report_header(config: pytest.Config) -> str | None:
    """What is compared."""
    terms = config.stash.get(ACCURACY_TERMS, None)
    if terms is None:
        return None
    others = ", ".join(request.text for request in terms.candidates)
    against = terms.baseline.text if terms.baseline else "the stored reference"
    return (
        f"accuracy: {others} against {against}, recipe {terms.recipe.name}, "
        f"engine {terms.engine}, up to {terms.seeds} seeds "
        f"({'paired' if terms.comparison.paired else 'unpaired'}), "
        f"margin {terms.margin_points:g} points, results {config.option.accuracy_results}"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per candidate."""
    if "trained_candidate" in metafunc.fixturenames:
        terms = metafunc.config.stash[ACCURACY_TERMS]
        metafunc.parametrize(
            "trained_candidate",
            [
                pytest.param(index, id=f"{terms.recipe.name}-{request.text}")
                for index, request in enumerate(terms.candidates)
            ],
        )


@pytest.fixture(scope="session")
def accuracy_decisions(
    request: pytest.FixtureRequest,
) -> dict[int, tuple[AccuracyDecision, Trainings]]:
    """Trains what was selected; of each such candidate, by its place, verdict and trainings."""
    config = request.config
    terms = config.stash[ACCURACY_TERMS]
    places = _selected(request.session)
    terms = replace(terms, candidates=tuple(terms.candidates[place] for place in places))
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            sets = _train(config, terms)
        except EnvironmentProblem as problem:
            pytest.exit(f"the baseline is not there: {problem}", returncode=Exit.NOT_THERE)
        except InputError as error:
            pytest.exit(str(error), returncode=Exit.USAGE)
    decisions = decide_all(sets, terms.comparison)
    paired = terms.comparison.paired
    config.stash.setdefault(FINDINGS, []).extend(
        f"{decision.verdict.value}: {finding(decision, candidate, sets[0], paired=paired)}"
        for decision, candidate in zip(decisions, sets[1:], strict=True)
    )
    return dict(zip(places, zip(decisions, sets[1:], strict=True), strict=True))


def judge_accuracy(
    decision: AccuracyDecision,
    candidate: Trainings,
    baseline: Trainings,
    record: Callable[[str, object], None],
    *,
    paired: bool,
) -> None:
    """Passes or fails a test by a verdict."""
    word = NOT_THERE if candidate.problem or baseline.problem else decision.verdict.value
    said = finding(decision, candidate, baseline, paired=paired)
    record(VERDICT, word)
    record("finding", said)
    for name in ("difference", "low", "high", "detectable"):
        record(f"{name}_points", getattr(decision, name))
    record("seeds", decision.seeds)
    if word != Verdict.PASS.value:
        pytest.fail(said, pytrace=False)


def accuracy_head(config: pytest.Config) -> str:
    """The head of the HTML report; empty if this session trained no seeds."""
    sets = config.stash.get(TRAINED, None)
    if sets is None:
        return ""
    terms = config.stash[ACCURACY_TERMS]
    decisions = decide_all(sets, terms.comparison)
    return accuracy_html(
        sets, decisions, config.stash[_TEST_LABELS], paired=terms.comparison.paired
    )


def _selected(session: pytest.Session) -> list[int]:
    """Places of the candidates whose tests were selected."""
    chosen = {
        int(str(item.callspec.params["trained_candidate"]))
        for item in session.items
        if isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and "trained_candidate" in item.callspec.params
    }
    return sorted(chosen)


def _train(config: pytest.Config, terms: AccuracyTerms) -> list[Trainings]:
    reference = None
    if terms.baseline is None:
        reference = read_reference(terms.recipe.name, terms.engine, else_give="--baseline")
    dataset = data.load_dataset(
        "mnist", data_dir=default_data_dir(os.environ), mnist_dir=config.option.mnist_dir
    )
    config.stash[_TEST_LABELS] = dataset.test
    cache = default_cache(os.environ)
    built: list[Built | EnvironmentProblem] = []
    if terms.baseline is not None:
        built.append(build(terms.baseline, cache, say=tqdm.write))
    built += builds.build_candidates(terms.candidates, cache, tqdm.write)
    sides = len(terms.candidates) + (terms.baseline is not None)
    with tqdm(total=sides * terms.seeds, disable=None, unit="seed", leave=False) as bar:

        def on_seed(sets: Sequence[Trainings]) -> None:
            config.stash[TRAINED] = list(sets)
            write_trainings(config.option.accuracy_results, sets, terms.comparison)
            bar.update()

        sets = compare_accuracy(
            terms, built, reference, dataset, on_seed, processes=config.option.processes
        )
    config.stash[TRAINED] = sets
    write_trainings(config.option.accuracy_results, sets, terms.comparison)
    return sets


def _results_path(asked: Path | None, *, with_speed: bool) -> Path:
    if asked is None:
        default = results.default_results(Path("reports"))
        return default.with_name(default.name.replace("comparison", "accuracy"))
    return asked.with_name(f"{asked.stem}-accuracy.json") if with_speed else asked
