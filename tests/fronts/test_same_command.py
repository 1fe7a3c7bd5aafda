"""The same command on the same ledger continues it after a kill, and refuses any other ledger."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import bench.__main__ as command
from bench.environments.builds import default_cache
from bench.records import ledger, results, trainings
from bench.records.trainings import Trained, Trainings, reference_path, write_trainings
from tests.measure.stub_worker import stub_python

LOOP = "train_step[loop,b128]"
Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.usefixtures("black_images", "short_blocks")


@pytest.fixture
def speed(stub: str) -> tuple[str, ...]:
    """Returns the options of a comparison of speed."""
    terms = ("--baseline", stub, "--candidate", f"{stub} TF_STUB_RATIO=1.001")
    return (*terms, "--workloads", LOOP, "--budget", "600", "--results", "r.jsonl")


@pytest.fixture
def accuracy(stub: str) -> tuple[str, ...]:
    """Returns the options of a comparison of accuracy that needs all its looks."""
    terms = ("--seeds", "10", "--baseline", stub, "--candidate", f"{stub} TF_STUB_LOSS=2")
    return (*terms, "--accuracy-margin", "0.5", "--results", "r.jsonl")


@pytest.fixture
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Returns the options of the kind in the parameter."""
    found: tuple[str, ...] = request.getfixturevalue(request.param)
    return found


def records(path: Path) -> Counter[str]:
    """Counts each block or seed of a ledger."""
    found: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        ((name, content),) = json.loads(line).items()
        if name in ("block", "seed"):
            numbers = [content.get(key) for key in ("candidate", "set", "number", "seed")]
            found[f"{name} {numbers}"] += 1
    return found


@pytest.mark.parametrize("options", ["speed", "accuracy"], indirect=True)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_the_same_command_continues_a_torn_ledger(
    run: Run, pytester: pytest.Pytester, options: tuple[str, ...], share: float
) -> None:
    assert run(*options).ret == 0
    path = pytester.path / "r.jsonl"
    whole, expected = path.read_bytes(), records(path)
    kept = whole[: int(share * len(whole))]
    path.write_bytes(kept)
    done = run(*options)
    assert done.ret == 0
    assert ("are kept)" in done.stdout.str()) is (share > 0)
    assert path.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert records(path) == expected
    assert set(expected.values()) == {1}
    done = run(*options)  # complete now
    assert done.ret == 4
    assert "exists, results are never overwritten" in done.stderr.str()


@pytest.mark.parametrize(
    ("options", "other", "message"),
    [
        ("speed", ("--margin", "1.2"), "with other workloads or margins"),
        ("speed", ("--budget", "300"), "with another budget"),
        ("speed", ("--threads", "2"), "with another number of threads"),
        ("speed", ("--candidate", "."), "with other candidates"),
        ("speed", ("--baseline", "."), "with another baseline"),
        ("speed", ("--workloads", "import"), "with other workloads or margins"),
        ("accuracy", ("--seeds", "16"), "with other terms"),
        ("accuracy", ("--accuracy-margin", "0.4"), "with other terms"),
    ],
    indirect=["options"],
)
def test_an_unfinished_ledger_of_other_terms_is_refused(
    run: Run,
    pytester: pytest.Pytester,
    options: tuple[str, ...],
    other: tuple[str, ...],
    message: str,
) -> None:
    assert run(*options).ret == 0
    path = pytester.path / "r.jsonl"
    unfinished = b"".join(path.read_bytes().splitlines(keepends=True)[:-1])
    path.write_bytes(unfinished)
    done = run(*options, *other)
    assert done.ret == 4
    (line,) = [line for line in done.errlines if line.startswith("ERROR")]
    assert f"holds an unfinished comparison {message}: choose another --results" in line
    assert path.read_bytes() == unfinished


def test_seeds_of_another_recipe_or_candidate_are_not_continued(
    run: Run, pytester: pytest.Pytester, accuracy: tuple[str, ...]
) -> None:
    assert run(*accuracy).ret == 0
    path = pytester.path / "r.jsonl"
    unfinished = b"".join(path.read_bytes().splitlines(keepends=True)[:-1])
    path.write_bytes(unfinished)
    done = run(*accuracy, "--recipe", "best")
    assert done.ret == 4
    assert "is of another recipe; choose another --results" in done.stdout.str()
    done = run(*accuracy, "--candidate", ".")
    assert done.ret == 4
    assert "are of other environments; choose another --results" in done.stdout.str()
    assert path.read_bytes() == unfinished


def test_a_comparison_with_a_reference_continues(
    run: Run,
    pytester: pytest.Pytester,
    stub: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    references = tmp_path / "references"
    references.mkdir()
    terms = ("--seeds", "10", "--candidate", stub, "--results", "r.jsonl")
    found = tuple(Trained(seed, 150, 10_000) for seed in range(20))
    assert run("--baseline", stub, *terms).ret == 0
    path = pytester.path / "r.jsonl"
    base = trainings.read_trainings(path)[0]
    write_trainings(reference_path("fast", "graph", references), [base_of(base, found)])
    monkeypatch.setattr(
        trainings,
        "reference_path",
        lambda recipe, engine: reference_path(recipe, engine, references),
    )
    path.unlink()
    options = (*terms, "--accuracy-margin", "0.5")
    assert run(*options).ret == 0
    whole, expected = path.read_bytes(), records(path)
    path.write_bytes(whole[: len(whole) - 300])
    assert run(*options).ret == 0
    assert records(path) == expected


def base_of(like: Trainings, seeds: tuple[Trained, ...]) -> Trainings:
    return Trainings(
        *(like.recipe, like.engine, like.split, like.code, like.side, like.machine, like.started),
        seeds,
    )


def test_a_second_comparison_on_one_ledger_is_refused_in_one_line(
    run: Run, pytester: pytest.Pytester, speed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before it builds an environment."""
    path = pytester.path / "r.jsonl"
    monkeypatch.setattr("bench.speed.build_candidates", None)
    with ledger.appending(path, results.KIND, default_cache(os.environ)):
        done = run(*speed)
    assert done.ret == 4
    told = "r.jsonl: another process appends to it: wait until it ends"
    assert sum(told in line for line in done.outlines if line.startswith("INCONCLUSIVE")) == 1


def test_a_reference_killed_before_its_first_record_is_begun_anew(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "reference.jsonl"
    for left in ("", '{"ledger":{"kind":"tr', '{"ledger":{"kind":"trainings","schema":3}}\n{"hea'):
        out.write_text(left)
        argv = ["reference", "--out", str(out), "--environment", stub, "--seeds", "2"]
        assert command.main(argv) == 0, capsys.readouterr().err
        assert len(trainings.read_trainings(out)[0].seeds) == 2


def test_a_bank_survives_a_run_killed_before_its_first_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = f"python:{stub_python(tmp_path)}"
    argv = ["calibrate", "--environment", stub, "--runs", "1"]
    assert command.main(argv) == 0
    for bank in (tmp_path / "cache" / "lenet5-bench" / "banks").iterdir():
        (bank / "comparison-0.jsonl").touch()
    assert command.main(argv) == 0, capsys.readouterr().err
