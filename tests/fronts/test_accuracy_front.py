"""Commands `pytest bench --seeds N` and `python -m bench reference`, with stub workers."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import __main__ as command
from bench.measure import machine
from bench.measure.seeds import TrainedSeed, train_seeds
from bench.records import trainings
from bench.records.sides import Side
from bench.records.trainings import (
    SeedTask,
    Trained,
    Trainings,
    read_trainings,
    reference_path,
    write_trainings,
)
from lenet5.recipe import ENGINES
from lenet5.recipes import find_recipe
from tests.measure.fake_nvml import DESCRIBED, NVMLError, install

Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.usefixtures("black_images", "short_blocks")


@pytest.fixture(autouse=True)
def references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Creates a separate folder with the references of `fast`.

    Their margins are 0.15 points with the engine `graph`, and 0.29 with `keras`.
    """
    folder = tmp_path / "references"
    folder.mkdir()
    for module in (trainings, command):
        monkeypatch.setattr(
            module, "reference_path", lambda recipe, engine: reference_path(recipe, engine, folder)
        )
    for engine, spread in (("graph", 8), ("keras", 16)):
        counts = [150 - spread, 150 + spread] * 10
        found = tuple(Trained(seed, wrong, 10_000) for seed, wrong in enumerate(counts))
        reference = Trainings(find_recipe("fast"), engine, "", "", Side("", ""), {}, "", found)
        write_trainings(reference_path("fast", engine, folder), [reference])
    return folder


@pytest.fixture
def no_reference(references: Path) -> None:
    """Removes the stored references."""
    for path in references.iterdir():
        path.unlink()


def test_without_seeds_accuracy_is_not_collected(run: Run) -> None:
    run().assert_outcomes(passed=1)


def test_equal_sides_give_identical_seeds_and_no_other_test_runs(
    run: Run, stub: str, pytester: pytest.Pytester
) -> None:
    done = run("--seeds", "20", "--baseline", stub, "--candidate", stub)
    assert done.ret == 0
    done.assert_outcomes(passed=1)
    (path,) = (pytester.path / "reports").glob("accuracy-*.jsonl")
    baseline, candidate = read_trainings(path)
    assert [t.seed for t in candidate.seeds] == list(range(10))  # decided at the first look
    assert [t.wrong for t in candidate.seeds] == [t.wrong for t in baseline.seeds]
    assert (baseline.engine, candidate.engine) == ("graph", "graph")
    done.stdout.fnmatch_lines(
        ["accuracy: *, recipe fast, engine graph, up to 20 seeds (paired), margin 0.15 points*"]
    )


def test_seeds_are_unpaired_with_the_engine_keras(
    run: Run, stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Header, margin and finding match the engine; equal seeds alone do not give PASS."""
    path = str(tmp_path / "accuracy.jsonl")
    sides = ("--baseline", stub, "--candidate", stub)
    done = run("--seeds", "10", "--engine", "keras", *sides, "--results", path)
    assert done.ret == 0
    done.stdout.fnmatch_lines(
        ["accuracy: *, recipe fast, engine keras, up to 10 seeds (unpaired), margin 0.29 points*"]
    )
    capsys.readouterr()
    assert command.main(["verdict", path]) == 0
    assert capsys.readouterr().out == (
        "PASS: accuracy[fast]: 9.9.0 again loses 0.000 points against 9.9.0 "
        "(97 % interval of the loss -0.037 to +0.037, 10 seeds, unpaired, engine keras), "
        "margin 0.29, detects 0.340\n"
    )


@pytest.mark.parametrize(("engine", "word"), [("graph", "paired"), ("keras", "unpaired")])
def test_a_reference_is_paired_with_the_engine_graph(
    run: Run, stub: str, engine: str, word: str
) -> None:
    """The reference's seeds used the same random numbers at another time."""
    done = run("--seeds", "10", "--candidate", stub, "--engine", engine)
    done.stdout.fnmatch_lines(
        [f"accuracy: * against the stored reference, *, engine {engine}, * ({word}), *"]
    )


def test_a_loss_fails_with_a_finding(run: Run, stub: str) -> None:
    worse = f"{stub} TF_STUB_LOSS=30.4"
    done = run("--seeds", "10", "--baseline", stub, "--candidate", worse)
    assert done.ret == 1
    done.stdout.fnmatch_lines(
        [
            "accuracy[[]fast]: 9.9.0 TF_STUB_LOSS=30.4 loses 0.300 points against 9.9.0 "
            "(97 % interval of the loss +0.300 to +0.300, 10 seeds, paired, engine graph), "
            "margin 0.15, detects 0.150"
        ]
    )
    done.stdout.no_fnmatch_line("*Traceback*")


def test_a_loss_within_a_wider_margin_passes(run: Run, stub: str) -> None:
    worse = f"{stub} TF_STUB_LOSS=30"
    terms = ("--seeds", "10", "--baseline", stub, "--candidate", worse)
    assert run(*terms, "--accuracy-margin", "0.5").ret == 0


def test_a_run_below_the_floor_fails_without_a_statistical_test(run: Run, stub: str) -> None:
    done = run("--seeds", "10", "--baseline", stub, "--candidate", f"{stub} TF_STUB_LOSS=9000")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["*diverged: seed 0 reached 8.50 %"])


def test_a_candidate_that_crashes_twice_fails_and_trains_no_more(
    run: Run, stub: str, pytester: pytest.Pytester
) -> None:
    """One seed per process may be running at the first failure; no other seed starts."""
    broken = f"{stub} TF_STUB_FAULT=train_-_crash"
    done = run("--seeds", "10", "--baseline", stub, "--candidate", broken)
    assert done.ret == 1
    done.stdout.fnmatch_lines(
        ["*: fails: seed * killed by SIGSEGV; it last printed: Fatal: the sky*"]
    )
    (path,) = (pytester.path / "reports").glob("accuracy-*.jsonl")
    baseline, candidate = read_trainings(path)
    assert len(baseline.seeds) == 10
    assert 1 <= len(candidate.seeds) <= len(machine.cores())
    assert all(trained.crashed for trained in candidate.seeds)


def test_a_missing_environment_gives_status_7(run: Run, stub: str) -> None:
    done = run("--seeds", "10", "--baseline", stub, "--candidate", "python:/no/such")
    assert done.ret == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "12"), "--seeds is 12, expected 10, 16 or 20"),
        (("--seeds", "10", "--threads", "2"), "one thread per process"),
        (("--seeds", "10", "--seed", "3"), "remove --seed"),
        (("--seeds", "10", "--margin", "1.1"), "--margin applies to speed only"),
        (("--seeds", "10", "--accuracy-margin", "0"), "--accuracy-margin is 0"),
        (("--seeds", "10", "--recipe", "slow"), "unknown recipe 'slow'"),
        (("--seeds", "10", "--engine", "products"), "argument --engine: invalid choice"),
        (("--accuracy-margin", "0.2"), "--accuracy-margin needs --seeds"),
        (("--seeds", "10", "--processes", "0"), "--processes is 0, expected 1 to 256"),
        (("--processes", "2"), "--processes needs --seeds"),
        (("--seeds", "10", "--candidate=--index-url=x"), "index-url"),
    ],
)
def test_invalid_options_give_status_4(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.ret == 4
    assert message in done.stderr.str()


@pytest.mark.usefixtures("no_reference")
@pytest.mark.parametrize(
    ("asked", "engine"), [([], "keras"), *((["--engine", name], name) for name in ENGINES)]
)
def test_a_reference_is_trained_and_used_in_a_comparison(
    run: Run,
    stub: str,
    references: Path,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
    engine: str,
) -> None:
    """The default is twenty seeds with the engine `keras`."""
    assert command.main(["reference", "--environment", stub, *asked]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    assert row.split()[:4] == ["fast", engine, "20", "0"]
    assert [path.name for path in references.iterdir()] == [f"fast-{engine}.jsonl"]
    (found,) = read_trainings(references / f"fast-{engine}.jsonl")
    assert found.engine == engine
    assert [trained.seed for trained in found.seeds] == list(range(20))
    done = run("--seeds", "10", "--candidate", stub, "--engine", engine)
    assert done.ret == 0


def test_a_reference_of_an_unknown_engine_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["reference", "--engine", "products"]) == 4
    assert "argument --engine: invalid choice: 'products'" in capsys.readouterr().err


@pytest.mark.usefixtures("no_reference")
def test_an_incomplete_reference_is_rejected(run: Run, stub: str, references: Path) -> None:
    reference = ["reference", "--environment", stub, "--engine", "graph", "--seeds", "12"]
    assert command.main(reference) == 0
    assert (references / "fast-graph.jsonl").exists()
    done = run("--seeds", "10", "--candidate", stub)
    assert done.ret == 4
    said = done.stdout.str() + done.stderr.str()
    told = "resume with python -m bench reference --recipe fast --engine graph"
    assert f"fast-graph.jsonl has 12 of 20 seeds: {told}" in said


def test_a_reference_of_an_earlier_schema_is_rejected_in_one_line(
    run: Run, stub: str, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = references / "fast-graph.jsonl"
    path.write_text(path.read_text().replace('"schema":3', '"schema":1', 1))
    message = f"{path}: has schema 1, this version reads 3"
    for terms in ((), ("--accuracy-margin", "0.2")):
        done = run("--seeds", "10", "--candidate", stub, *terms)
        assert done.ret == 4
        assert message in done.stdout.str() + done.stderr.str()
        done.stderr.no_fnmatch_line("*Traceback*")
    capsys.readouterr()
    for arguments in (["verdict", str(path)], ["reference", "--out", str(path)]):
        assert command.main(arguments) == 4
        assert capsys.readouterr().err == f"bench: error: {message}\n"


@pytest.mark.usefixtures("no_reference")
def test_a_failed_seed_is_not_stored_in_a_reference(
    stub: str,
    references: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def train(tasks: list[SeedTask], *_: object, **__: object) -> Iterator[TrainedSeed]:
        for task in tasks:
            fault: dict[str, Any] = {"wrong": None, "problem": "killed", "crashed": True}
            answer = fault if task.seed == 1 else {"wrong": 150}
            yield TrainedSeed(task, Trained(task.seed, images=10_000, **answer), {})

    monkeypatch.setattr("bench.seeds.train_seeds", train)
    assert command.main(["reference", "--environment", stub, "--seeds", "3"]) == 1
    assert "seed 1 is missing: killed" in capsys.readouterr().out
    (found,) = read_trainings(references / "fast-keras.jsonl")
    assert [trained.seed for trained in found.seeds] == [0, 2]


@pytest.mark.usefixtures("no_reference")
def test_training_of_a_reference_resumes(
    stub: str, references: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = ["reference", "--environment", stub, "--seeds"]
    assert command.main([*reference, "3"]) == 0
    trained: list[object] = []

    def watched(tasks: list[SeedTask], *more: Any, **options: Any) -> Iterator[TrainedSeed]:
        trained.extend(tasks)
        return train_seeds(tasks, *more, **options)

    monkeypatch.setattr("bench.seeds.train_seeds", watched)
    assert command.main([*reference, "5"]) == 0
    assert len(trained) == 2
    (found,) = read_trainings(references / "fast-keras.jsonl")
    assert len(found.seeds) == 5


def test_a_reference_of_another_recipe_or_engine_does_not_resume(
    stub: str, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(references / "mine.jsonl")
    reference = ["reference", "--environment", stub, "--seeds", "2", "--out", path]
    assert command.main(reference) == 0
    assert command.main([*reference, "--recipe", "original"]) == 4
    assert "is of another recipe; remove it" in capsys.readouterr().err
    assert command.main([*reference, "--engine", "graph"]) == 4
    assert "another engine; remove it" in capsys.readouterr().err
    assert read_trainings(references / "mine.jsonl")[0].engine == "keras"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_missing_reference_is_reported_in_one_line(
    run: Run, stub: str, references: Path, engine: str
) -> None:
    """A reference of the other engine does not count."""
    reference_path("fast", engine, references).unlink()
    terms = ("--seeds", "10", "--candidate", stub, "--engine", engine)
    done = run(*terms)
    assert done.ret == 4
    said = done.stdout.str() + done.stderr.str()
    told = (
        f"no reference of recipe fast and engine {engine}: "
        f"python -m bench reference --recipe fast --engine {engine}, or give"
    )
    assert f"{told} --accuracy-margin" in said
    done = run(*terms, "--accuracy-margin", "0.2")
    assert f"{told} --baseline" in done.stdout.str() + done.stderr.str()


def test_only_selected_candidates_are_trained(run: Run, stub: str, tmp_path: Path) -> None:
    path = tmp_path / "accuracy.jsonl"
    candidates = (f"{stub} TF_STUB_LOSS=1", f"{stub} TF_STUB_RATIO=1")
    arguments = [argument for text in candidates for argument in ("--candidate", text)]
    done = run(
        "--seeds",
        "10",
        "--baseline",
        stub,
        *arguments,
        "-k",
        "TF_STUB_RATIO",
        "--results",
        str(path),
    )
    done.assert_outcomes(passed=1, deselected=1)
    assert [item.side.settings for item in read_trainings(path)] == [{}, {"TF_STUB_RATIO": "1"}]


@pytest.mark.parametrize("broken", ["baseline", "candidate"])
def test_a_worker_that_cannot_start_gives_status_7(
    run: Run, stub: str, broken: str, tmp_path: Path
) -> None:
    path = tmp_path / "accuracy.jsonl"
    sides = {"baseline": stub, "candidate": stub}
    sides[broken] += " TF_STUB_FAULT=start_-_raise"
    sides["results"] = str(path)
    done = run("--seeds", "10", *(f"--{name}={text}" for name, text in sides.items()))
    assert done.ret == 7
    problems = {item.problem for item in read_trainings(path)}
    assert "its worker cannot start: ValueError: no such op" in problems


@pytest.mark.usefixtures("no_reference")
def test_a_candidate_that_cannot_start_is_missing_against_a_reference(
    run: Run, stub: str, pytester: pytest.Pytester
) -> None:
    """Its file gives the same status, although no seed was trained."""
    assert command.main(["reference", "--environment", stub, "--engine", "graph"]) == 0
    done = run("--seeds", "10", "--candidate", f"{stub} TF_STUB_FAULT=start_-_raise")
    assert done.ret == 7
    (path,) = (pytester.path / "reports").glob("accuracy-*.jsonl")
    assert command.main(["verdict", str(path)]) == 7


def test_a_full_disk_is_reported_in_one_line(
    run: Run, stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    done = run("--seeds", "10", "--baseline", stub, "--candidate", stub)
    assert done.ret == 4
    assert "cannot be written: No space left on device" in done.stdout.str() + done.stderr.str()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("candidate", "status", "word"),
    [
        ("", 0, "PASS"),
        (" TF_STUB_LOSS=38", 1, "FAIL"),
        (" TF_STUB_FAULT=start_-_raise", 7, "NOT THERE"),
    ],
)
def test_stored_results_give_the_same_verdict(
    run: Run,
    stub: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    candidate: str,
    status: int,
    word: str,
    engine: str,
) -> None:
    path = str(tmp_path / "accuracy.jsonl")
    sides = ("--baseline", stub, "--candidate", stub + candidate, "--engine", engine)
    assert run("--seeds", "10", *sides, "--results", path).ret == status
    capsys.readouterr()
    assert command.main(["verdict", path]) == status
    assert capsys.readouterr().out.startswith(word)
    assert command.main(["show", path]) == 0
    assert "baseline" in capsys.readouterr().out


def test_seeds_without_a_comparison_have_no_verdict(
    references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(references / "fast-graph.jsonl")
    assert command.main(["verdict", path]) == 4
    assert "holds seeds without a comparison" in capsys.readouterr().err
    assert command.main(["show", path]) == 0


@pytest.mark.usefixtures("no_reference")
def test_seeds_of_several_ledgers_are_held_against_the_reference(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = ("--engine", "graph")
    assert command.main(["reference", "--environment", stub, *engine]) == 0
    paths = [str(tmp_path / f"{seed}.jsonl") for seed in range(10)]
    for seed, path in enumerate(paths):
        terms = ("--environment", f"{stub} TF_STUB_LOSS=38", *engine, "--results", path)
        assert command.main(["measure", "--seed", str(seed), *terms]) == 0
    capsys.readouterr()
    assert command.main(["verdict", *paths, "--baseline", "reference"]) == 1
    assert "loses 0.380 points against the reference (9.9.0) (" in capsys.readouterr().out
    for more in ([], ["--accuracy-margin", "2"]):
        assert command.main(["verdict", paths[0], "--baseline", "reference", *more]) == 6


def test_a_reference_of_an_earlier_recipe_gives_no_margin(
    run: Run, stub: str, references: Path
) -> None:
    (reference,) = read_trainings(references / "fast-graph.jsonl")
    earlier = replace(reference, recipe=replace(reference.recipe, epochs=3))
    write_trainings(references / "fast-graph.jsonl", [earlier])
    done = run("--seeds", "10", "--baseline", stub, "--candidate", stub)
    assert done.ret == 4
    told = "the reference of recipe fast is outdated: python -m bench reference"
    assert f"{told} --recipe fast --engine graph once it is removed" in done.stderr.str()


def test_a_reference_does_not_resume_on_another_machine(
    stub: str, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = references / "mine.jsonl"
    reference = ["reference", "--environment", stub, "--out", str(path), "--seeds"]
    assert command.main([*reference, "2"]) == 0
    (found,) = read_trainings(path)
    write_trainings(path, [replace(found, machine={"cpu": "another"})])
    assert command.main([*reference, "3"]) == 4
    assert "is of another machine" in capsys.readouterr().err


def test_seeds_without_a_comparison_have_no_report(
    references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(references / "fast-graph.jsonl")
    assert command.main(["report", path, "--out", str(tmp_path)]) == 4
    assert "holds seeds without a comparison: add --baseline" in capsys.readouterr().err


@pytest.fixture
def h200(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives this machine a stand-in for a GPU."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    install(monkeypatch)


@pytest.mark.usefixtures("h200")
def test_a_comparison_on_a_gpu_trains_one_seed_at_a_time_and_names_the_gpu(
    run: Run, stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []

    def watched(*arguments: Any, processes: int, **options: Any) -> Iterator[TrainedSeed]:
        at_once.append(processes)
        return train_seeds(*arguments, processes=processes, **options)

    monkeypatch.setattr("bench.seeds.train_seeds", watched)
    path = tmp_path / "accuracy.jsonl"
    sides = ("--baseline", stub, "--candidate", f"{stub} TF_STUB_LOSS=1")
    done = run("--seeds", "10", *sides, "--device", "gpu", "--results", str(path))
    assert done.ret == 0
    done.stdout.fnmatch_lines(["accuracy: * (paired), device gpu:0, margin 0.15 points*"])
    assert ", 10 seeds, paired, engine graph, both on NVIDIA H200), margin" in done.stdout.str()
    assert at_once == [1]
    for item in read_trainings(path):
        assert item.machine == {**machine.describe(), "gpu": DESCRIBED}
        assert item.side.versions["device"] == "gpu:0"


@pytest.mark.usefixtures("no_reference", "h200")
def test_seeds_of_a_gpu_against_the_reference_of_cpus_are_unpaired(
    run: Run, stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same with seeds that were trained one by one."""
    engine = ("--engine", "graph")
    assert command.main(["reference", "--environment", stub, *engine]) == 0
    done = run("--seeds", "20", "--candidate", stub, "--device", "gpu")
    assert done.ret == 0
    done.stdout.fnmatch_lines(["accuracy: * the stored reference, * (unpaired), device gpu:0, *"])
    words = "unpaired, engine graph, 9.9.0 on NVIDIA H200 and the reference (9.9.0) on the CPU)"
    assert words in done.stdout.str()
    paths = [str(tmp_path / f"{seed}.jsonl") for seed in range(10)]
    for seed, path in enumerate(paths):
        terms = ("--environment", stub, *engine, "--device", "gpu", "--results", path)
        assert command.main(["measure", "--seed", str(seed), *terms]) == 0
    capsys.readouterr()
    assert command.main(["verdict", *paths, "--baseline", "reference"]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.usefixtures("h200")
def test_a_comparison_does_not_resume_on_another_device(
    run: Run, stub: str, tmp_path: Path
) -> None:
    path = tmp_path / "accuracy.jsonl"
    sides = ("--baseline", stub, "--candidate", f"{stub} TF_STUB_LOSS=1")
    terms = ("--seeds", "10", *sides, "--results", str(path))
    assert run(*terms).ret == 0
    path.write_bytes(path.read_bytes()[: int(0.9 * path.stat().st_size)])
    done = run(*terms, "--device", "gpu")
    assert done.ret == 4
    told = "9.9.0 is of another device: the CPU and NVIDIA H200; choose another --results"
    assert told in done.stdout.str() + done.stderr.str()
    assert run(*terms).ret == 0


def test_without_a_gpu_nothing_is_built(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    install(monkeypatch, init=NVMLError("no driver"))
    path = tmp_path / "accuracy.jsonl"
    done = run("--seeds", "10", "--device", "gpu", "--results", str(path))
    assert done.ret == 4
    told = "ERROR: --device gpu:0: NVIDIA's driver gives no answer: no driver"
    assert told in done.stderr.str().splitlines()
    assert not path.exists()
