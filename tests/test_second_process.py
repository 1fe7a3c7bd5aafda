"""Unit tests in two processes give the same results as in one, even after a crash."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
Run = Callable[..., pytest.RunResult]

CONFTEST = """
import pathlib, time, pytest
from tests import second_process
second_process.FEWEST_SHARED = 2
second_process.usable_cores = lambda: 2
pytest_plugins = ["tests.second_process"]
HERE = pathlib.Path(__file__).parent

@pytest.fixture(autouse=True)
def process(pytestconfig, record_property, request):
    name = "second" if hasattr(pytestconfig, "workerinput") else "first"
    record_property("process", name)
    with (HERE / "order").open("a") as file:
        print(request.node.name, file=file)
    if name == "second":
        (HERE / "second").touch()
    return name

@pytest.fixture
def gated():
    "Takes until the second process has begun a test."
    end = time.monotonic() + 60
    while not (HERE / "second").exists():
        assert time.monotonic() < end
        time.sleep(0.01)

@pytest.fixture
def benchmark():
    pass
"""
MODULES = {
    "test_a": "def test_a1(): pass\ndef test_a2(): pass",
    "test_b": "def test_b(): pass",
    "test_gate": "def test_gate(gated): pass",
    "test_speed": "def test_speed(benchmark): pass",
}


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the modules in a subprocess that detects two cores."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\njunit_family = legacy")
    folder = pytester.mkdir("tests")

    def go(*arguments: str, **modules: str) -> pytest.RunResult:
        for name, content in {**MODULES, **modules}.items():
            (folder / f"{name}.py").write_text(content)
        plain = ("-p", "no:cacheprovider", "--junitxml=junit.xml")
        return pytester.run(sys.executable, "-m", "pytest", *plain, *arguments)

    return go


def processes(pytester: pytest.Pytester) -> dict[str, str]:
    """Returns the process of each test, from the JUnit file."""
    cases = ElementTree.parse(pytester.path / "junit.xml").getroot().iter("testcase")  # noqa: S314
    ran = {case.get("name", ""): case.find(".//property") for case in cases}
    return {name: found.get("value", "") for name, found in ran.items() if found is not None}


def order(pytester: pytest.Pytester) -> list[str]:
    return (pytester.path / "order").read_text().split()


def test_both_processes_take_modules_and_each_test_runs_once(
    run: Run, pytester: pytest.Pytester
) -> None:
    done = run()
    assert done.ret == 0
    done.assert_outcomes(passed=5)
    assert sorted(order(pytester)) == ["test_a1", "test_a2", "test_b", "test_gate", "test_speed"]
    ran = processes(pytester)
    assert ran["test_b"] == "second"  # the second process starts with the last module
    assert ran["test_a1"] == ran["test_a2"]


def test_the_gate_stays_here_and_benchmarks_run_alone_at_the_end(
    run: Run, pytester: pytest.Pytester
) -> None:
    slow = "import time\ndef test_b(): time.sleep(0.3)"
    run(test_b=slow).assert_outcomes(passed=5)
    ran = processes(pytester)
    assert (ran["test_gate"], ran["test_speed"]) == ("first", "first")
    assert order(pytester)[-1] == "test_speed"


@pytest.mark.parametrize("option", ["--one-process", "--pdb", "--lf"])
def test_debugging_options_use_one_process(
    run: Run, pytester: pytest.Pytester, option: str
) -> None:
    (pytester.path / "second").touch()
    cache = ("-p", "cacheprovider") if option == "--lf" else ()
    run(*cache, option).assert_outcomes(passed=5)
    assert set(processes(pytester).values()) == {"first"}


def test_a_failure_in_the_second_process_is_reported(run: Run) -> None:
    failing = "import warnings\ndef test_b():\n    warnings.warn('of b')\n    assert 1 == 2"
    done = run(test_b=failing)
    assert done.ret == 1
    done.assert_outcomes(passed=4, failed=1, warnings=2)  # one of them from the plugin's import
    done.stdout.fnmatch_lines(["*assert 1 == 2", "*UserWarning: of b", "FAILED tests/test_b.py*"])


def test_exitfirst_stops_both_processes(run: Run) -> None:
    done = run("-x", test_b="def test_b(): assert 0", test_a="import time\ndef test_a(): pass")
    assert done.ret == 1
    done.assert_outcomes(failed=1, passed=done.parseoutcomes().get("passed", 0))
    assert "test_speed" not in done.stdout.str()


def test_a_crash_of_the_second_process_fails_one_test_and_the_rest_runs_here(
    run: Run, pytester: pytest.Pytester
) -> None:
    deadly = """
    import os
    def test_b1(): pass
    def test_b2(process):
        if process == "second":
            os._exit(11)
    def test_b3(): pass
    """
    done = run(test_b=deadly.replace("\n    ", "\n"))
    assert done.ret == 1
    done.assert_outcomes(passed=6, failed=1)
    done.stdout.fnmatch_lines(["*the second process ended with status 11*"])
    done.stdout.fnmatch_lines(["FAILED tests/test_b.py::test_b2*"])
    assert processes(pytester)["test_b3"] == "first"


def test_a_failed_start_of_the_second_process_gives_a_warning(
    run: Run, pytester: pytest.Pytester
) -> None:
    (pytester.path / "second").touch()
    breaking = "import pytest\ndef pytest_collection(session):\n"
    breaking += "    if hasattr(session.config, 'workerinput'): raise pytest.UsageError('broken')\n"
    (pytester.path / "breaking.py").write_text(breaking)
    done = run("-p", "breaking")
    assert done.ret == 0
    done.assert_outcomes(passed=5)
    assert "the second process ended with status 4" in done.stderr.str()
    assert "broken" in done.stderr.str()
