"""`pytest bench --seeds N` and `python -m bench reference` as users meet them; stub workers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import __main__ as command
from bench import accuracy_comparison, accuracy_plugin, seeds
from bench.trainings import read_trainings, reference_path
from lenet5 import data
from tests.bench.stub_worker import stub_python
from tests.bench.test_comparison_front import CONFTEST, ROOT

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def stub(tmp_path: Path) -> str:
    return f"python:{stub_python(tmp_path)}"


@pytest.fixture
def references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of references of its own, which is empty."""
    folder = tmp_path / "references"
    for module in (accuracy_plugin, command):
        monkeypatch.setattr(module, "reference_path", lambda name: reference_path(name, folder))
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Black images, a cache of its own."""
    black = data.Subset(np.zeros((20, 28, 28, 1), np.uint8), np.zeros(20, np.uint8))
    monkeypatch.setattr(
        data, "load_dataset", lambda *_, **__: data.Dataset("mnist", black, black, black)
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    pytester.makeconftest(CONFTEST)
    folder = pytester.mkdir("bench")
    for name in ("test_accuracy.py", "test_speed.py"):
        shutil.copy(ROOT / "bench" / name, folder)
    (folder / "test_other.py").write_text("def test_other(): pass\n")

    def go(*arguments: str) -> pytest.RunResult:
        arguments = ("-p", "no:cacheprovider", "bench", *arguments)
        return pytester.runpytest_inprocess(*arguments, no_reraise_ctrlc=True)

    return go


def test_without_seeds_accuracy_is_not_collected(run: Run) -> None:
    run().assert_outcomes(passed=1)


def test_equal_sides_are_identical_and_nothing_else_runs(
    run: Run, stub: str, pytester: pytest.Pytester
) -> None:
    done = run("--seeds", "20", "--baseline", stub, "--candidate", stub)
    assert done.ret == 0
    done.assert_outcomes(passed=1)
    (path,) = (pytester.path / "reports").glob("accuracy-*.json")
    baseline, candidate = read_trainings(path)
    assert [t.seed for t in candidate.seeds] == list(range(10))  # decided at the first look
    assert [t.wrong for t in candidate.seeds] == [t.wrong for t in baseline.seeds]
    done.stdout.fnmatch_lines(["accuracy: *, recipe fast, up to 20 seeds, margin 0.15 points*"])


def test_a_loss_fails_with_a_finding(run: Run, stub: str) -> None:
    worse = f"{stub} TF_STUB_LOSS=30.4"
    done = run("--seeds", "10", "--baseline", stub, "--candidate", worse)
    assert done.ret == 1
    done.stdout.fnmatch_lines(
        [
            "accuracy[[]fast]: 9.9.0 TF_STUB_LOSS=30.4 loses 0.300 points against 9.9.0 "
            "(97 % interval +0.300 to +0.300, 10 seeds), margin 0.15"
        ]
    )
    done.stdout.no_fnmatch_line("*Traceback*")


def test_a_wider_margin_lets_it_pass(run: Run, stub: str) -> None:
    worse = f"{stub} TF_STUB_LOSS=30"
    terms = ("--seeds", "10", "--baseline", stub, "--candidate", worse)
    assert run(*terms, "--accuracy-margin", "0.5").ret == 0


def test_a_run_below_the_floor_fails_without_a_test(run: Run, stub: str) -> None:
    done = run("--seeds", "10", "--baseline", stub, "--candidate", f"{stub} TF_STUB_LOSS=9000")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["*diverged: seed 0 reached 8.50 %"])


def test_an_environment_that_is_not_there_is_exit_7(run: Run, stub: str) -> None:
    done = run("--seeds", "10", "--baseline", stub, "--candidate", "python:/no/such")
    assert done.ret == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "9"), "--seeds is 9, expected 10 to 20"),
        (("--seeds", "10", "--accuracy-margin", "0"), "--accuracy-margin is 0"),
        (("--seeds", "10", "--recipe", "slow"), "unknown recipe 'slow'"),
        (("--seeds", "10", "--speed"), "--speed needs --baseline"),
        (("--speed",), "--speed adds speed tests to --seeds"),
        (("--seeds", "10", "--candidate=--index-url=x"), "index-url"),
    ],
)
def test_options_that_make_no_sense_are_exit_4(
    run: Run, arguments: tuple[str, ...], message: str
) -> None:
    done = run(*arguments)
    assert done.ret == 4
    assert message in done.stderr.str()


def test_a_reference_is_trained_and_held_against(
    run: Run, stub: str, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["reference", "--environment", stub, "--seeds", "12"]) == 0
    assert "12 seeds, 15" in capsys.readouterr().out
    (found,) = read_trainings(references / "fast.json")
    assert [trained.seed for trained in found.seeds] == list(range(12))
    done = run("--seeds", "10", "--candidate", stub)
    assert done.ret == 0


def test_a_reference_goes_on_where_it_was_left(
    stub: str, references: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = ["reference", "--environment", stub, "--seeds"]
    assert command.main([*reference, "3"]) == 0
    trained: list[object] = []
    train: Any = seeds.train_seeds

    def watched(jobs: list[object], *arguments: Any, **more: Any) -> None:
        trained.extend(jobs)
        train(jobs, *arguments, **more)

    monkeypatch.setattr(accuracy_comparison, "train_seeds", watched)
    assert command.main([*reference, "5"]) == 0
    assert len(trained) == 2
    (found,) = read_trainings(references / "fast.json")
    assert len(found.seeds) == 5


def test_a_reference_of_another_recipe_is_not_gone_on_with(
    stub: str, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(references / "mine.json")
    reference = ["reference", "--environment", stub, "--seeds", "2", "--out", path]
    assert command.main(reference) == 0
    assert command.main([*reference, "--recipe", "original"]) == 4
    assert "the reference is of another recipe: remove it" in capsys.readouterr().err


def test_without_a_reference_one_line_says_so(run: Run, stub: str, references: Path) -> None:
    done = run("--seeds", "10", "--candidate", stub)
    assert done.ret == 4
    assert not references.exists()
    said = done.stdout.str() + done.stderr.str()
    assert "no reference of recipe fast: python -m bench reference --recipe fast" in said
