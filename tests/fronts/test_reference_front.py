"""Command `python -m bench reference` adds seeds only to a matching reference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench.__main__ as command
from bench.environments.builds import default_cache
from bench.measure import capacity
from bench.measure.seeds import TrainedSeed
from bench.records.trainings import SeedTask, Trained, keeping, read_trainings
from lenet5.recipe import ENGINES

pytestmark = pytest.mark.usefixtures("black_images")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Returns the path of a reference in a folder that does not exist yet."""
    return tmp_path / "found" / "reference.jsonl"


@pytest.fixture
def arguments(stub: str, out: Path) -> list[str]:
    """Returns the arguments for a reference of two seeds."""
    return ["reference", "--out", str(out), "--environment", stub, "--seeds", "2"]


def test_a_reference_is_extended_by_its_missing_seeds(
    arguments: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 0
    assert "2 of 2 seeds" in capsys.readouterr().out
    assert command.main([*arguments[:-1], "3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:4] == ["fast", "keras", "3", "0"]
    (found,) = read_trainings(out)
    assert [trained.seed for trained in found.seeds] == [0, 1, 2]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reference_is_extended_by_the_same_engine_only(
    arguments: list[str], out: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    """The default engine is `keras`."""
    asked = [] if engine == "keras" else ["--engine", engine]
    assert command.main([*arguments, *asked]) == 0
    (other,) = set(ENGINES) - {engine}
    assert command.main([*arguments, "--engine", other]) == 4
    assert "of another engine; remove it" in capsys.readouterr().err
    (found,) = read_trainings(out)
    assert (found.engine, len(found.seeds)) == (engine, 2)


def test_a_reference_is_extended_by_one_process_at_a_time(
    arguments: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with keeping(out, default_cache(os.environ)):
        assert command.main(arguments) == 4
    assert f"{out}: another process appends to it" in capsys.readouterr().err
    assert not out.exists()
    assert command.main(arguments) == 0


def test_the_first_seed_can_be_set(arguments: list[str], out: Path) -> None:
    assert command.main(arguments) == 0
    assert command.main([*arguments, "--first-seed", "40"]) == 0
    (found,) = read_trainings(out)
    assert [trained.seed for trained in found.seeds] == [0, 1, 40, 41]


def test_a_first_seed_out_of_range_is_rejected(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--first-seed", "-1"]) == 4
    assert "seed is -1" in capsys.readouterr().err


def test_the_requested_number_of_processes_is_used(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []

    def fail(tasks: list[SeedTask], *_: object, processes: int) -> Iterator[TrainedSeed]:
        seen.append(processes)
        fault = Trained(tasks[0].seed, None, 10_000, problem="killed", crashed=True)
        yield TrainedSeed(tasks[0], fault, {})

    monkeypatch.setattr("bench.seeds.train_seeds", fail)
    monkeypatch.setattr(capacity, "default_processes", lambda: 7)
    assert [command.main([*arguments, *more]) for more in ([], ["--processes", "3"])] == [1, 1]
    assert seen == [7, 3]
    capsys.readouterr()
    assert command.main([*arguments, "--processes", "257"]) == 4
    refusal = "bench: error: --processes is 257, expected 1 to 256\n"
    assert capsys.readouterr().err == refusal
