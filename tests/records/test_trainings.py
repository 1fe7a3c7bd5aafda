"""Sets of trainings survive being written and read, and unlike ones are told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.records.sides import Side
from bench.records.trainings import (
    Comparison,
    Trained,
    Trainings,
    differs,
    read_comparison,
    read_trainings,
    reference_path,
    write_trainings,
)
from lenet5.errors import InputError
from lenet5.recipe import ENGINES
from lenet5.recipes import find_recipe

SOME = Trainings(
    recipe=find_recipe("fast"),
    engine="graph",
    split="1" * 64,
    code="2" * 64,
    side=Side("tensorflow==2.21.0", "2.21.0", {"keras": "3.15.1"}, ("numpy==2.4.6",)),
    machine={"cpu": "a processor"},
    started="2026-11-23T12:00:00+00:00",
    seeds=(
        Trained(0, 150, 10_000, "71", 8.5, 6, 6, ((0.5, 0.9, 0.25, 0.95),), (1.5, 0.25)),
        Trained(1, None, 10_000, problem="NaN", retried="killed by SIGKILL"),
    ),
)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_written_is_read(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "fast.json"
    sets = [replace(SOME, engine=engine), replace(SOME, engine=engine, seeds=())]
    write_trainings(path, sets)
    assert read_trainings(path) == sets


def test_a_file_from_before_second_tries_were_noted_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fast.json"
    write_trainings(path, [SOME])
    content = json.loads(path.read_text())
    for trained in content["sets"][0]["seeds"]:
        del trained["retried"]
    path.write_text(json.dumps(content))
    (found,) = read_trainings(path)
    assert [trained.retried for trained in found.seeds] == ["", ""]


@pytest.mark.parametrize(
    "terms",
    [
        Comparison(0.15, paired=True, beside=True),
        Comparison(0.15, paired=False, beside=True),
        Comparison(1, paired=False, beside=False),
    ],
)
def test_what_verdicts_are_made_by_is_kept(tmp_path: Path, terms: Comparison) -> None:
    path = tmp_path / "accuracy.json"
    write_trainings(path, [SOME, SOME], terms)
    assert read_comparison(path) == ([SOME, SOME], terms)


@pytest.mark.parametrize(
    "damage",
    [{"margin_points": 0}, {"margin_points": "wide"}, {"beside": None}, {"unheard_of": 1}],
)
def test_terms_that_make_no_sense_are_refused(tmp_path: Path, damage: dict[str, object]) -> None:
    """A value of None stands for a field that is not there."""
    path = tmp_path / "accuracy.json"
    write_trainings(path, [SOME, SOME], Comparison(0.15, paired=True, beside=True))
    content = json.loads(path.read_text())
    terms = {**content["comparison"], **damage}
    content["comparison"] = {name: value for name, value in terms.items() if value is not None}
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="is damaged"):
        read_comparison(path)


def test_seeds_alone_are_no_comparison(tmp_path: Path) -> None:
    path = tmp_path / "fast.json"
    write_trainings(path, [SOME, SOME])
    with pytest.raises(InputError, match="holds seeds, but of no comparison"):
        read_comparison(path)


def test_a_reference_is_of_a_recipe_and_an_engine(tmp_path: Path) -> None:
    assert reference_path("fast", "keras", tmp_path) == tmp_path / "fast-keras.json"
    assert reference_path("best", "graph").name == "best-graph.json"


def test_seeds_stand_in_their_order() -> None:
    more = SOME.with_seed(Trained(7, 140, 10_000)).with_seed(Trained(3, 141, 10_000))
    assert [trained.seed for trained in more.seeds] == [0, 1, 3, 7]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is damaged or holds no trainings"),
        ('{"schema": 2}', "is damaged or holds no trainings"),
        ('{"schema": 1, "kind": "trainings", "sets": []}', "of schema 1, not 'trainings' of 2"),
        ('{"schema": 9, "kind": "trainings", "sets": []}', "of schema 9, not 'trainings' of 2"),
        ('{"schema": 2, "kind": "speed", "sets": []}', "'speed' of schema 2, not 'trainings' of 2"),
        ('{"schema": 2, "kind": "trainings", "sets": [{}]}', "is damaged: 'recipe'"),
        ('{"schema": 2, "kind": "trainings", "sets": []}', "is damaged: it holds no trainings"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "fast.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_trainings(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("engine", "complaint"),
    [
        ("products", "unknown engine 'products': choose keras or graph"),
        ("", "unknown engine '': choose keras or graph"),
        (["keras"], "unknown engine ['keras']: choose keras or graph"),
        (None, "'engine'"),
    ],
)
def test_an_unknown_engine_is_refused_in_one_line(
    tmp_path: Path, engine: object, complaint: str
) -> None:
    """None stands for a file without an entry, which only the earlier schema had."""
    path = tmp_path / "fast.json"
    write_trainings(path, [SOME])
    content = json.loads(path.read_text())
    content["sets"][0]["engine"] = engine
    if engine is None:
        del content["sets"][0]["engine"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_trainings(path)
    assert str(caught.value) == f"{path}: is damaged: {complaint}"


@pytest.mark.parametrize(
    "change",
    [
        {"wrong": 10_001},
        {"images": "many"},
        {"curves": [["low"]]},
        {"weight_norms": 3},
        {"unheard_of": 1},
    ],
)
def test_seeds_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "fast.json"
    write_trainings(path, [SOME])
    content = json.loads(path.read_text())
    content["sets"][0]["seeds"][0].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="is damaged"):
        read_trainings(path)


def test_a_reference_is_of_one_recipe_engine_split_and_code() -> None:
    assert differs(SOME, replace(SOME, side=Side("another", "another"))) == ""
    slower = SOME.recipe.with_overrides({"epochs": 7})
    assert "another recipe and code" in differs(SOME, replace(SOME, recipe=slower, code="3"))
    assert differs(SOME, replace(SOME, engine="keras", split="3")) == (
        "the reference is of another engine and split"
    )
    renamed = SOME.recipe.with_overrides({"name": "quick", "min_accuracy": 0.9})
    assert differs(SOME, replace(SOME, recipe=renamed)) == ""
