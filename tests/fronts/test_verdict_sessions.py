"""Options, plugins and folders do not change the status; all outputs show every outcome."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import bench.__main__ as command
from bench import plugin
from bench.records import results
from lenet5 import data
from tests import synthetic
from tests.commands import of_checkout

LOOP = "train_step[loop,b128]"
SLOWED = "TF_STUB_RATIO=1.5"
OLD = "## PASS: all is well\n"
Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.usefixtures("black_images", "short_blocks")


@pytest.fixture
def speed(stub: str) -> tuple[str, ...]:
    """Returns the options of a comparison with a slower candidate."""
    return "--baseline", stub, "--candidate", f"{stub} {SLOWED}", "--workloads", LOOP


@pytest.fixture
def foreign_options(pytester: pytest.Pytester) -> None:
    """Adds options of plugins that are not installed here, with the plugins' spelling."""
    pytester.makepyfile(
        foreign="""
        def pytest_addoption(parser):
            parser.getgroup("x")._addoption("-n", "--numprocesses", dest="numprocesses")
            parser.addoption("--tx", action="append", default=[])
            parser.addoption("--dist", default="no")
            for name in ("--reruns", "--count", "--forked-runs", "--session-timeout"):
                parser.addoption(name, type=int)
        """
    )
    pytester.syspathinsert()


@pytest.mark.parametrize(
    "option",
    [
        ("--benchmark-only",),
        ("--setup-only",),
        ("--setup-plan",),
        ("--numprocesses", "2"),
        ("-n", "2"),
        ("--dist", "load", "--tx", "2*popen"),
        ("--dist", "loadfile"),
        ("--tx", "popen"),
        ("--reruns", "1"),
        ("--count", "2"),
        ("--session-timeout", "60"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", ["speed", "accuracy"])
@pytest.mark.usefixtures("foreign_options")
def test_options_that_distort_verdicts_are_rejected(
    run: Run, speed: tuple[str, ...], stub: str, option: tuple[str, ...], kind: str
) -> None:
    terms = speed if kind == "speed" else ("--seeds", "10", "--baseline", stub)
    done = run("-p", "no:timeout", "-p", "foreign", *terms, *option)
    assert done.ret == 4
    (line,) = [line for line in done.errlines if line.startswith("ERROR")]
    assert "would skip, repeat, spread out or time out verdicts: remove it" in line


def test_a_timeout_from_an_environment_variable_is_rejected(
    run: Run, speed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_TIMEOUT", "60")
    assert run("-p", "no:timeout", *speed).ret == 4


@pytest.mark.parametrize(
    "option", [(), ("-x",), ("-p", "no:terminal"), ("-p", "no:html"), ("-q",), ("-p", "no:capture")]
)
def test_a_measured_failure_keeps_its_status(
    run: Run, stub: str, speed: tuple[str, ...], option: tuple[str, ...]
) -> None:
    """With -x, the missing environment's test comes first, and the failing test never runs."""
    terms = ("--baseline", stub, "--candidate", "python:/no/such/python", *speed[2:])
    assert run(*terms, *option).ret == 1


def test_a_plugin_that_skips_all_tests_makes_none_pass(
    run: Run, pytester: pytest.Pytester, stub: str
) -> None:
    pytester.makepyfile(
        leaving_out="""
        import pytest
        def pytest_collection_modifyitems(items):
            for item in items:
                item.add_marker(pytest.mark.skip)
        """
    )
    pytester.syspathinsert()
    done = run("-p", "leaving_out", "--baseline", stub, "--candidate", stub, "--workloads", LOOP)
    assert done.ret == 6


@pytest.mark.parametrize("kind", ["speed", "accuracy"])
def test_a_missing_baseline_appears_in_every_output(
    run: Run, pytester: pytest.Pytester, stub: str, kind: str
) -> None:
    for name in ("summary.md", "junit.xml", "report.html"):
        (pytester.path / name).write_text(OLD)
    terms = ("--workloads", LOOP) if kind == "speed" else ("--seeds", "10")
    done = run(
        *("--baseline", "python:/no/such/python", "--candidate", stub, *terms),
        *("--summary", "summary.md", "--junitxml=junit.xml", "--html=report.html"),
    )
    assert done.ret == 7
    assert_told(pytester.path, "/no/such/python")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["speed", "accuracy"])
def test_ctrl_c_and_sigterm_before_the_first_record_appear_in_every_output(
    run: Run,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    stub: str,
    kind: str,
    number: signal.Signals,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        if number == signal.SIGINT:  # a shell's background job ignores it
            signal.signal(number, signal.default_int_handler)
        signal.raise_signal(number)

    for name in ("summary.md", "junit.xml", "report.html"):
        (pytester.path / name).write_text(OLD)
    for name in ("speed", "accuracy"):
        monkeypatch.setattr(f"bench.{name}.build_candidates", interrupt)
    terms = ("--workloads", LOOP) if kind == "speed" else ("--seeds", "10")
    done = run(
        *("--baseline", stub, "--candidate", stub, *terms),
        *("--summary", "summary.md", "--junitxml=junit.xml", "--html=report.html"),
    )
    assert done.ret == 2
    assert_told(pytester.path, "interrupted")


def assert_told(folder: Path, words: str) -> None:
    """Asserts that summary, JUnit XML and report show an outcome."""
    summary = (folder / "summary.md").read_text()
    assert words in summary
    assert "PASS" not in summary
    junit = ElementTree.parse(folder / "junit.xml").getroot()  # noqa: S314 - written by pytest here
    assert [len(list(case.iter("failure"))) for case in junit.iter("testcase")] == [1]
    assert words in (folder / "report.html").read_text()


def test_a_running_comparison_replaces_an_old_summary(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, speed: tuple[str, ...]
) -> None:
    (pytester.path / "summary.md").write_text(OLD)
    seen = []

    def look(*_: object) -> None:
        seen.append((pytester.path / "summary.md").read_text())
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.speed.build_candidates", look)
    run(*speed, "--summary", "summary.md")
    assert seen == ["## No verdict yet: the comparison is running\n"]


def test_an_unwritable_summary_is_rejected_before_measuring(
    run: Run, pytester: pytest.Pytester, speed: tuple[str, ...]
) -> None:
    (pytester.path / "file").write_text("")
    for path in (".", "file/summary.md"):
        done = run(*speed, "--summary", path)
        assert done.ret == 4
        assert not list((pytester.path / "reports").glob("comparison-*"))


def test_a_summary_can_be_written_to_a_link_and_a_pipe(
    run: Run, pytester: pytest.Pytester, speed: tuple[str, ...]
) -> None:
    link, target, pipe = (pytester.path / name for name in ("link", "target.md", "pipe"))
    link.symlink_to(target)
    os.mkfifo(pipe)
    assert run(*speed, "--summary", "link").ret == 1
    assert link.is_symlink()
    assert "FAIL" in target.read_text()
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert run(*speed, "--summary", "pipe").ret == 1
    reader.join(timeout=30)
    assert pipe.is_fifo()
    assert "FAIL" in read[0]


@pytest.mark.parametrize("option", [("-c", "other.ini"), ("--rootdir", "elsewhere")])
def test_project_margins_apply_with_any_pytest_configuration(
    run: Run, pytester: pytest.Pytester, speed: tuple[str, ...], option: tuple[str, str]
) -> None:
    pytester.makepyprojecttoml(f'[tool.lenet5-bench.workloads]\n"{LOOP}" = {{margin = 1.8}}\n')
    (pytester.path / "other.ini").write_text("[pytest]\n")
    (pytester.path / "elsewhere").mkdir()
    assert run(*option, *speed).ret == 0


@pytest.mark.parametrize("name", list(plugin.ON_REQUEST))
def test_a_module_given_by_name_needs_its_option(
    run: Run, pytester: pytest.Pytester, name: str
) -> None:
    (pytester.path / "bench" / name).touch()
    done = run(f"bench/{name}")
    assert done.ret == 4
    assert f"{name} needs {plugin.ON_REQUEST[name]}" in done.stderr.str()


def test_another_module_given_by_name_has_no_verdicts(run: Run, speed: tuple[str, ...]) -> None:
    done = run("bench/test_other.py", *speed)
    assert done.ret == 4
    assert "--baseline collects bench/test_speed.py alone" in done.stderr.str()


@pytest.mark.parametrize("name", ["bench/test_speed.py", "bench", "."])
def test_the_module_can_be_given_by_name(run: Run, speed: tuple[str, ...], name: str) -> None:
    done = run(name, *speed)
    assert done.ret == 1
    done.assert_outcomes(failed=1)


def test_a_checkout_can_be_in_a_folder_called_tests(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
    speed: tuple[str, ...],
) -> None:
    checkout = pytester.path / "tests"
    checkout.mkdir()
    (pytester.path / "bench").rename(checkout / "bench")
    monkeypatch.setattr(plugin, "FOLDER", checkout / "bench")
    assert run("tests/bench", *speed).ret == 1
    run("tests/bench").assert_outcomes(passed=1)


def test_reports_are_written_to_the_checkout(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, run: Run, speed: tuple[str, ...]
) -> None:
    pytester.makeini("[pytest]")  # root of the checkout
    monkeypatch.chdir(pytester.path / "bench")
    assert run(".", *speed).ret == 1
    written = {path.suffix for path in (pytester.path / "reports").iterdir()}
    assert written == {".html", ".jsonl"}
    assert not (pytester.path / "bench" / "reports").exists()


def test_collection_alone_keeps_the_last_report(
    pytester: pytest.Pytester, run: Run, speed: tuple[str, ...]
) -> None:
    report, summary = pytester.path / "reports" / "report.html", pytester.path / "summary.md"
    report.parent.mkdir()
    for path in (report, summary):
        path.write_text(OLD)
    assert run("--co", *speed, "--summary", "summary.md").ret == 0
    assert (report.read_text(), summary.read_text()) == (OLD, OLD)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--margin", "1.03"), "--margin needs --baseline"),
        (("--budget", "900"), "--budget needs --baseline"),
        (("--workloads", "gated"), "--workloads needs --baseline"),
        (("--seeds", "10", "--margin", "1.03"), "--margin applies to speed only"),
        (("--seeds", "10", "--threads", "1"), "one thread per process"),
        (("--baseline", ".", "--recipe", "fast"), "--recipe applies to accuracy only"),
        (("--baseline", ".", "--self-check"), "cannot be combined"),
        (("--mutations", "--seeds", "10"), "cannot be combined"),
    ],
)
def test_an_option_with_its_default_value_counts_as_given(
    run: Run, given: tuple[str, ...], message: str
) -> None:
    done = run(*given)
    assert done.ret == 4
    assert message in done.stderr.str()


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_a_worker_that_cannot_start_makes_its_side_missing(
    run: Run, pytester: pytest.Pytester, stub: str, side: str
) -> None:
    """The results file later gives the same status."""
    sides = {"baseline": stub, "candidate": stub}
    sides[side] += " TF_STUB_FAULT=start_-_raise"
    terms = (f"--{name}={text}" for name, text in sides.items())
    done = run(*terms, "--workloads", LOOP, "--results", "r.jsonl")
    assert done.ret == 7
    done.stdout.fnmatch_lines(["*1 not there*"])
    assert command.main(["verdict", str(pytester.path / "r.jsonl")]) == 7


def test_numerics_report_a_worker_that_cannot_start_as_missing(
    stub: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    black = data.Subset(np.zeros((1600, 28, 28, 1), np.uint8), np.zeros(1600, np.uint8))
    mnist = data.Dataset("mnist", black, black, black)
    monkeypatch.setattr(data, "load_dataset", lambda *_, **__: mnist)
    broken = f"{stub} TF_STUB_FAULT=start_-_raise"
    assert command.main(["numerics", "--environment", broken]) == 7
    assert f"NOT THERE: {broken}: ValueError: no such op" in capsys.readouterr().out
    assert command.main(["numerics", "--environment", "python:/missing"]) == 7
    told = "NOT THERE: python:/missing: cannot be run: No such file or directory\n"
    assert capsys.readouterr().out.endswith(told)


def test_output_works_on_an_ascii_terminal(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    results.write(path, synthetic.results({LOOP: [0.5] * 4}))
    done = subprocess.run(
        [sys.executable, "-m", "bench", "show", str(path)],
        env={**of_checkout(), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    assert b"FAIL" in done.stdout
