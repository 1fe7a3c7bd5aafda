"""Error rates of accuracy verdicts, from runs drawn from seeds of known truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bench.__main__ as command
from bench.records.sides import Side
from bench.records.trainings import Trained, Trainings, write_trainings
from bench.verdicts.accuracy_error_rates import replay
from bench.verdicts.sequential import Verdict
from lenet5.errors import InputError
from lenet5.recipes import find_recipe


def pool(loss_points: float, count: int = 60, stream: int = 0, first_seed: int = 0) -> Trainings:
    """Seeds with a mean of 150 wrong images, a standard deviation of 8, and an added loss."""
    wrong = 150 + 100 * loss_points + 8 * np.random.RandomState(stream).standard_normal(count)
    seeds = tuple(
        Trained(seed, round(number), 10_000) for seed, number in enumerate(wrong, first_seed)
    )
    return Trainings(find_recipe("fast"), "graph", "", "", Side("", ""), {}, "", seeds)


@pytest.mark.parametrize(
    ("loss", "verdict"), [(0.0, Verdict.PASS), (0.3, Verdict.FAIL), (0.15, Verdict.INCONCLUSIVE)]
)
def test_most_verdicts_match_the_truth(loss: float, verdict: Verdict) -> None:
    found = replay(pool(0.0), pool(loss, stream=1), margin_points=0.15, replays=50, seed=0)
    assert found.counts[verdict] >= 40
    assert found.pool == 60
    assert found.loss_points == pytest.approx(loss, abs=0.05)


@pytest.mark.parametrize(("loss", "verdict"), [(0.0, Verdict.PASS), (0.3, Verdict.FAIL)])
def test_files_without_common_seeds_compare_like_a_reference(loss: float, verdict: Verdict) -> None:
    others = pool(loss, stream=1, first_seed=100)
    found = replay(pool(0.0), others, margin_points=0.15, replays=50, seed=0)
    assert not found.beside
    assert not found.paired
    assert found.counts[verdict] >= 45
    assert found.loss_points == pytest.approx(loss, abs=0.05)
    assert found.deviation_points == pytest.approx(0.08 * 2**0.5, rel=0.2)


def test_a_drawn_reference_has_the_size_of_the_recipes_reference() -> None:
    """Ten seeds of `original` leave more runs undecided than twenty equal seeds of `fast`."""
    passed = []
    for name in ("fast", "original"):
        recipe = find_recipe(name)
        base = replace(pool(0.0), recipe=recipe)
        other = replace(pool(0.0, stream=1, first_seed=100), recipe=recipe)
        found = replay(base, other, margin_points=0.1, replays=200, seed=0)
        passed.append(found.counts[Verdict.PASS])
    assert 20 < passed[1] < passed[0] - 20 < 180


def test_too_few_different_seeds_are_refused() -> None:
    others = pool(0.0, count=29, first_seed=100)
    with pytest.raises(InputError, match="a file has 29 seeds, 30 are needed"):
        replay(pool(0.0), others, margin_points=0.15, replays=10, seed=0)


def test_identical_files_give_identical_verdicts() -> None:
    found = replay(pool(0.0), pool(0.0), margin_points=0.15, replays=10, seed=0)
    assert found.counts[Verdict.PASS] == 10
    assert found.mean_seeds == 10


def test_the_engine_keras_has_unpaired_seeds() -> None:
    """Pairs of equal seeds would be identical; as two samples they have twice the variance."""
    fitted = replace(pool(0.0), engine="keras")
    found = replay(fitted, fitted, margin_points=0.1, replays=200, seed=0)
    assert found.beside
    assert not found.paired
    assert 20 < found.counts[Verdict.PASS] < 198
    assert found.deviation_points == pytest.approx(0.08 * 2**0.5, rel=0.2)


def test_too_few_common_seeds_are_refused() -> None:
    with pytest.raises(InputError, match="20 seeds are common to both files, 30 are needed"):
        replay(pool(0.0), pool(0.0, count=20), margin_points=0.15, replays=10, seed=0)


def test_the_command_prints_one_row_per_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "base.jsonl", tmp_path / "equal.jsonl", tmp_path / "degraded.jsonl"]
    for path, item in zip(paths, (pool(0), pool(0, stream=1), pool(0.5, stream=2)), strict=True):
        write_trainings(path, [item])
    arguments = ["error-rates", *map(str, paths), "--accuracy-margin", "0.15"]
    assert command.main(arguments) == 0
    told, _, _, *lines = capsys.readouterr().out.splitlines()
    assert told == "margin 0.15 points"
    assert [line.split()[0] for line in lines] == ["equal", "degraded"]
    assert " 100.0 % " in lines[1]


def test_files_with_different_images_are_refused() -> None:
    other = replace(pool(0.0), split="validation")
    with pytest.raises(InputError, match="differ in images"):
        replay(pool(0.0), other, margin_points=0.15, replays=10, seed=0)


def test_a_run_ends_at_its_deciding_look() -> None:
    """A run that passes at 10 seeds neither trains nor counts seeds 10 and later."""
    found = replay(pool(0.0), pool(0.0, stream=1), margin_points=0.5, replays=20, seed=0)
    assert found.mean_seeds == 10


@pytest.mark.parametrize("margin", ["nan", "0", "-1"])
def test_an_invalid_margin_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], margin: str
) -> None:
    path = str(tmp_path / "base.jsonl")
    write_trainings(tmp_path / "base.jsonl", [pool(0.0)])
    assert command.main(["error-rates", path, path, f"--accuracy-margin={margin}"]) == 4
    assert "expected 0.01 to 100 percentage points" in capsys.readouterr().err


def test_a_file_with_several_recipes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "base.jsonl"
    write_trainings(path, [pool(0.0), pool(0.3)])
    assert command.main(["error-rates", str(path), str(path)]) == 4
    assert "holds 2 recipes or sides, expected one" in capsys.readouterr().err
