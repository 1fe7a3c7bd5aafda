"""`pytest bench --baseline …`: options, the experiment before the first verdict, exit codes.

With `--baseline` nothing but `bench/test_speed.py` is collected, and this process does not import
TensorFlow. Exit codes beside pytest's own: 6 for an INCONCLUSIVE without a failure, 7 for an
environment that could not be built or whose worker could not start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from bench import speed
from bench.environments import builds
from bench.environments.builds import EnvironmentProblem, Environments, default_cache
from bench.plans import speed as speed_plan
from bench.plans.speed import DEFAULT_BUDGET_SECONDS, Terms
from bench.records import results
from bench.records.blocks import Block, Results
from bench.report.comparison import comparison_html, summary_text, table_text
from bench.verdicts import speed_error_rates
from bench.verdicts.exit_codes import Exit
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import Decision, decide, verdicts_of_all
from lenet5 import data
from lenet5.cli import default_data_dir
from lenet5.errors import InputError
from lenet5.run_directory import writing, written_whole

VERDICT = "verdict"
NOT_THERE = "NOT THERE"

TERMS = pytest.StashKey[Terms]()
_SPEED_OPTIONS = {  # and their defaults
    "workloads": "gated",
    "margin": speed_plan.DEFAULT_MARGIN,
    "budget": DEFAULT_BUDGET_SECONDS,
    "summary": None,
}

FOUND = pytest.StashKey[Results]()
BEFORE = pytest.StashKey[Results]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The terms of a comparison."""
    group = parser.getgroup("comparison", "LeNet-5: training speed of TensorFlow versions")
    group.addoption(
        "--baseline", metavar="REQ", help='such as "tensorflow-cpu==2.20.0 keras==3.11.2"'
    )
    group.addoption(
        "--candidate",
        metavar="REQ",
        action="append",
        default=[],
        help="another environment, repeatable; default: the current one",
    )
    group.addoption(
        "--seeds",
        type=int,
        metavar="N",
        help="compare accuracy instead, over up to N seeds; without --baseline with the reference",
    )
    group.addoption("--speed", action="store_true", help="with --seeds: speed too, after it")
    group.addoption(
        "--workloads",
        metavar="NAMES",
        default=_SPEED_OPTIONS["workloads"],
        help="gated (default), all, or names",
    )
    group.addoption(
        "--margin",
        type=float,
        default=_SPEED_OPTIONS["margin"],
        metavar="RATIO",
        help="of times that is still acceptable; default: %(default)s",
    )
    group.addoption(
        "--budget",
        type=float,
        default=_SPEED_OPTIONS["budget"],
        metavar="SECONDS",
        help="of measuring, per candidate; default: %(default)g",
    )
    group.addoption(
        "--self-check", action="store_true", help="replay the stopping rule on this machine's bank"
    )
    group.addoption(
        "--mutations", action="store_true", help="run the ordinary tests on broken variants"
    )
    group.addoption(
        "--resume",
        type=Path,
        metavar="FILE.json",
        help="go on with these results, undecided or interrupted, up to --budget in all",
    )
    group.addoption("--results", type=Path, metavar="FILE.json", help="where raw samples are kept")
    group.addoption("--summary", type=Path, metavar="FILE.md", help="Markdown for a CI job's page")


def pytest_configure(config: pytest.Config) -> None:
    """Refuses options that make no sense before anything is built."""
    option = config.option
    if option.resume is not None:
        _resume(config)
    if option.seeds is not None and not option.speed:  # of accuracy alone: bench.accuracy_plugin
        _refuse(option, _SPEED_OPTIONS, "is of speed: add --speed, or leave it out")
        return
    if option.baseline is None:
        if option.seeds is None:
            given = dict.fromkeys(("candidate", "results", "summary"))
            _refuse(option, {**given, "candidate": []}, "needs --baseline")
        return
    if getattr(option, "numprocesses", None) or getattr(option, "reruns", None):
        raise pytest.UsageError("--baseline measures: without -n and --reruns only")
    try:
        before = config.stash.get(BEFORE, None)
        if before is not None:
            terms = speed_plan.terms_to_resume(before, option.budget)
        else:
            terms = speed_plan.read_terms(
                option.baseline,
                option.candidate,
                workloads=option.workloads,
                margin=option.margin,
                budget_seconds=option.budget,
                threads=option.threads,
                project=config.rootpath,
            )
            option.results = option.results or results.default_results(Path("reports"))
            results.check_new(option.results)
        if option.summary is not None:
            with writing(option.summary):
                option.summary.parent.mkdir(parents=True, exist_ok=True)
    except InputError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[TERMS] = terms


def _refuse(option: Any, defaults: Mapping[str, object], reason: str) -> None:
    """Refuses an option that was given where it would be ignored."""
    for name, default in defaults.items():
        if getattr(option, name) != default:
            raise pytest.UsageError(f"--{name} {reason}")


def _resume(config: pytest.Config) -> None:
    """Takes the terms of the results that are gone on with, which are written in their place."""
    option = config.option
    if option.baseline or option.candidate or option.results or option.seeds is not None:
        raise pytest.UsageError(
            "--resume takes baseline and candidates from its file and goes on in it: "
            "without --baseline, --candidate, --results and --seeds"
        )
    for name in ("workloads", "margin"):
        if getattr(option, name) != _SPEED_OPTIONS[name]:
            raise pytest.UsageError(f"--resume takes --{name} from its file: leave it out")
    try:
        before = config.stash[BEFORE] = results.read(option.resume)
    except InputError as error:
        raise pytest.UsageError(str(error)) from None
    option.results = option.resume
    option.baseline = before.baseline.request
    option.candidate = [side.request for side in before.candidates]


def pytest_report_header(config: pytest.Config) -> str | None:
    """What is compared, or how to."""
    terms = config.stash.get(TERMS, None)
    if terms is None:
        if config.option.seeds is not None:
            return None
        return 'comparison: none, since there is no --baseline (such as "tensorflow-cpu==2.20.0")'
    others = ", ".join(request.text for request in terms.candidates)
    return (
        f"comparison: {others} against {terms.baseline.text}, margin {terms.margin:g}, "
        f"budget {terms.budget_seconds:g} s a candidate, results {config.option.results}"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--baseline`, `--seeds` or `--self-check` what these ask for, else all but that."""
    if collection_path.suffix != ".py":
        return None
    on_request = {
        "test_speed.py": TERMS in config.stash,
        "test_accuracy.py": config.option.seeds is not None,
        "test_self_check.py": config.option.self_check,
        "test_mutations.py": config.option.mutations,
    }
    if collection_path.parent.name == "bench" and collection_path.parent.parent.name != "tests":
        wanted = on_request.get(collection_path.name, not any(on_request.values()))
    else:
        wanted = not any(on_request.values())
    return None if wanted else True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per workload and candidate."""
    if "compared" in metafunc.fixturenames:
        terms = metafunc.config.stash[TERMS]
        metafunc.parametrize(
            "compared",
            [
                pytest.param((index, name), id=f"{name}-{request.text}")
                for index, request in enumerate(terms.candidates)
                for name in terms.workloads
            ],
        )


@pytest.fixture(scope="session")
def decisions(request: pytest.FixtureRequest) -> dict[tuple[int, str], Decision]:
    """Runs the experiment on what was selected; the verdicts by candidate and workload."""
    config = request.config
    wanted = _selected(request.session)
    terms = config.stash[TERMS]
    measured = {n: spec for n, spec in terms.workloads.items() if any(n in w for w in wanted)}
    found = _measure(config, replace(terms, workloads=measured), wanted)
    return {
        (index, name): decision
        for index in range(len(found.candidates))
        for name, decision in decide(found, index).items()
    }


def judge(decision: Decision, found: Results, record: Callable[[str, object], None]) -> None:
    """Passes or fails a test by a verdict; an informational FAIL is told and passes.

    Args:
        decision: the verdict.
        found: the results that it comes from.
        record: notes a property of the test.
    """
    is_there = not found.candidates[decision.candidate].problem
    word = decision.verdict.value if is_there else NOT_THERE
    record(VERDICT, word)
    record("finding", decision.finding)
    record("ratio", decision.ratio)
    if word == NOT_THERE or (decision.terms.gated and decision.verdict is not Verdict.PASS):
        pytest.fail(decision.finding, pytrace=False)


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, Any] | None:
    """INCONCLUSIVE and NOT THERE are failed reports with a category of their own."""
    word = dict(getattr(report, "user_properties", ())).get(VERDICT)  # none when collecting
    if report.when == "call" and report.failed and word in ("INCONCLUSIVE", NOT_THERE):
        return str(word).lower(), str(word)[0], (str(word), {"yellow": True})
    return None


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turns pytest's 1 into 7 or 6 where no test failed by a verdict or an error."""
    config = session.config
    if TERMS not in config.stash and config.option.seeds is None:
        return
    if exitstatus == pytest.ExitCode.TESTS_FAILED:
        terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
        stats = terminal.stats if terminal else {}
        if not stats.get("failed") and not stats.get("error"):
            session.exitstatus = (
                Exit.NOT_THERE if stats.get(NOT_THERE.lower()) else Exit.INCONCLUSIVE
            )
    found = config.stash.get(FOUND, None)
    if found is not None and config.option.summary:
        text = summary_text(found, verdicts_of_all(found), false_alarms=_false_alarms(found))
        try:
            with written_whole(config.option.summary) as partial:
                partial.write_text(text, encoding="utf-8")
        except InputError as error:
            pytest.exit(str(error), returncode=Exit.USAGE)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table of verdicts, and where the samples are."""
    found = config.stash.get(FOUND, None)
    if found is not None:
        terminalreporter.section("comparison")
        terminalreporter.write_line(table_text(found, verdicts_of_all(found)))
        terminalreporter.write_line(f"raw samples: {config.option.results}")


def comparison_head(config: pytest.Config) -> str:
    """The head of the HTML report; empty if this session compared nothing."""
    found = config.stash.get(FOUND, None)
    if found is None:
        return ""
    return comparison_html(found, verdicts_of_all(found), false_alarms=_false_alarms(found))


def _selected(session: pytest.Session) -> list[list[str]]:
    """By candidate, the workloads whose tests were selected."""
    terms = session.config.stash[TERMS]
    chosen = {
        item.callspec.params["compared"]
        for item in session.items
        if isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and "compared" in item.callspec.params
    }
    return [
        [name for name in terms.workloads if (index, name) in chosen]
        for index in range(len(terms.candidates))
    ]


def _measure(config: pytest.Config, terms: Terms, wanted: list[list[str]]) -> Results:
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            images = data.load_dataset(
                "mnist", data_dir=default_data_dir(os.environ), mnist_dir=config.option.mnist_dir
            ).training
            built = builds.build_environments(
                terms.baseline, terms.candidates, default_cache(os.environ), _say
            )
            return _run(config, terms, built, wanted, images)
        except EnvironmentProblem as problem:
            pytest.exit(f"the baseline is not there: {problem}", returncode=Exit.NOT_THERE)
        except InputError as error:
            pytest.exit(str(error), returncode=Exit.USAGE)


def _run(
    config: pytest.Config,
    terms: Terms,
    built: Environments,
    wanted: list[list[str]],
    images: data.Subset,
) -> Results:
    budget = terms.budget_seconds * sum(bool(names) for names in wanted)
    with tqdm(total=budget, disable=None, unit="s", bar_format=_BAR, leave=False) as bar:

        def on_block(found: Results, block: Block, decided: Any) -> None:
            config.stash[FOUND] = found
            results.write(config.option.results, found)
            bar.update(min(block.seconds, budget - bar.n))
            line = speed.progress_line(found, block, decided)
            bar.set_description_str(line)
            if bar.disable:
                _say(line)

        before = config.stash.get(BEFORE, None)
        found = speed.measure(terms, built, wanted, images, on_block, before=before)
    config.stash[FOUND] = found
    results.write(config.option.results, found)
    return found


_BAR = "{desc} |{bar}| {n:.0f} of at most {total:.0f} s"


def _say(text: str) -> None:
    tqdm.write(text)
    sys.stdout.flush()


def _false_alarms(found: Results) -> str:
    return speed_error_rates.false_alarms(found, default_cache(os.environ))
