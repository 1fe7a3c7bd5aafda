"""Sets of trainings survive being written and read, and unlike ones are told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.accuracy import Trained
from bench.results import Side
from bench.trainings import Trainings, differs, read_trainings, write_trainings
from lenet5.errors import InputError
from lenet5.recipes import find_recipe

SOME = Trainings(
    recipe=find_recipe("fast"),
    split="1" * 64,
    code="2" * 64,
    side=Side("tensorflow==2.21.0", "2.21.0", {"keras": "3.15.1"}, ("numpy==2.4.6",)),
    machine={"cpu": "a processor"},
    started="2026-11-23T12:00:00+00:00",
    seeds=(Trained(0, 150, 10_000, "71", 8.5, 6, 6), Trained(1, None, 10_000, problem="NaN")),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fast.json"
    write_trainings(path, [SOME, replace(SOME, seeds=())])
    assert read_trainings(path) == [SOME, replace(SOME, seeds=())]


def test_seeds_stand_in_their_order() -> None:
    more = SOME.with_seed(Trained(7, 140, 10_000)).with_seed(Trained(3, 141, 10_000))
    assert [trained.seed for trained in more.seeds] == [0, 1, 3, 7]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is damaged or holds no trainings"),
        ('{"schema": 1}', "is damaged or holds no trainings"),
        ('{"schema": 9, "kind": "trainings", "sets": []}', "of schema 9, not 'trainings' of 1"),
        ('{"schema": 1, "kind": "trainings", "sets": [{}]}', "is damaged: 'recipe'"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "fast.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_trainings(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"wrong": 10_001}, {"images": "many"}, {"unheard_of": 1}])
def test_seeds_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "fast.json"
    write_trainings(path, [SOME])
    content = json.loads(path.read_text())
    content["sets"][0]["seeds"][0].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="is damaged"):
        read_trainings(path)


def test_a_reference_is_of_one_recipe_split_and_code() -> None:
    assert differs(SOME, replace(SOME, side=Side("another", "another"))) == ""
    slower = SOME.recipe.with_overrides({"epochs": 7})
    assert "another recipe and code" in differs(SOME, replace(SOME, recipe=slower, code="3"))
    renamed = SOME.recipe.with_overrides({"name": "quick", "min_accuracy": 0.9})
    assert differs(SOME, replace(SOME, recipe=renamed)) == ""
