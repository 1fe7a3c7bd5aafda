"""Writing, reading and comparison of sets of trainings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.records.sides import Side
from bench.records.trainings import (
    Comparison,
    Trained,
    Trainings,
    differs,
    keeping,
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


OPENING = '{"ledger": {"kind": "trainings", "schema": 3}}'


def change(path: Path, how: Callable[[Any, list[Any]], object]) -> None:
    """Changes the header and the seeds of a ledger."""
    opening, header, *seeds = [json.loads(line) for line in path.read_text().splitlines()]
    how(header["header"], [seed["seed"] for seed in seeds])
    path.write_text("".join(json.dumps(line) + "\n" for line in (opening, header, *seeds)))


@pytest.mark.parametrize("engine", ENGINES)
def test_written_trainings_are_read_back(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "fast.jsonl"
    sets = [replace(SOME, engine=engine), replace(SOME, engine=engine, seeds=())]
    write_trainings(path, sets)
    assert read_trainings(path) == sets


def test_a_file_without_retry_records_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fast.jsonl"
    write_trainings(path, [SOME])
    change(path, lambda _, seeds: [seed.pop("retried") for seed in seeds])
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
def test_terms_of_the_comparison_are_stored(tmp_path: Path, terms: Comparison) -> None:
    path = tmp_path / "accuracy.jsonl"
    write_trainings(path, [SOME, SOME], terms)
    assert read_comparison(path) == ([SOME, SOME], terms)


@pytest.mark.parametrize(
    "damage",
    [{"margin_points": 0}, {"margin_points": "wide"}, {"beside": None}, {"seeds": 0.5}],
)
def test_invalid_terms_are_rejected(tmp_path: Path, damage: dict[str, object]) -> None:
    path = tmp_path / "accuracy.jsonl"
    write_trainings(path, [SOME, SOME], Comparison(0.15, paired=True, beside=True))
    change(path, lambda header, _: header["comparison"].update(damage))
    with pytest.raises(InputError, match="is damaged"):
        read_comparison(path)


def test_seeds_are_written_as_they_arrive(tmp_path: Path) -> None:
    path, terms = tmp_path / "new" / "accuracy.jsonl", Comparison(0.15, paired=True, beside=True)
    empty = replace(SOME, seeds=())
    states = [[empty, empty], [SOME, empty], [SOME, replace(SOME, problem="gone")]]
    with keeping(path, tmp_path / "cache", terms) as keep:
        for sets in states:
            keep(sets)
            assert read_comparison(path) == (sets, terms)
    assert path.read_text().count('"seed":{') == 4


def test_seeds_are_appended_to_a_reference(tmp_path: Path) -> None:
    path, cache = tmp_path / "fast.jsonl", tmp_path / "cache"
    with keeping(path, cache) as keep:
        keep([SOME])
    more = SOME.with_seed(Trained(2, 140, 10_000))
    with keeping(path, cache) as keep:
        keep([more])
    assert read_trainings(path) == [more]
    assert path.read_text().count('"seed":{') == 3


def test_seeds_alone_are_not_a_comparison(tmp_path: Path) -> None:
    path = tmp_path / "fast.jsonl"
    write_trainings(path, [SOME, SOME])
    with pytest.raises(InputError, match="holds seeds without a comparison"):
        read_comparison(path)


def test_each_recipe_and_engine_has_a_reference_file(tmp_path: Path) -> None:
    assert reference_path("fast", "keras", tmp_path) == tmp_path / "fast-keras.jsonl"
    assert reference_path("best", "graph").name == "best-graph.jsonl"


def test_seeds_are_sorted() -> None:
    more = SOME.with_seed(Trained(7, 140, 10_000)).with_seed(Trained(3, 141, 10_000))
    assert [trained.seed for trained in more.seeds] == [0, 1, 3, 7]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is damaged or not a ledger"),
        ('{"schema": 2, "kind": "trainings"}', "is damaged or not a ledger"),
        ('{"ledger": {"schema": 9, "kind": "trainings"}}', "has schema 9, this version reads 3"),
        ('{"ledger": {"schema": 3, "kind": "speed"}}', "is of 'speed', expected 'trainings'"),
        (OPENING, "is damaged: it has no header"),
        (f'{OPENING}\n{{"header": {{"sets": [{{}}]}}}}', "is damaged: KeyError 'recipe'"),
        (f'{OPENING}\n{{"header": {{"sets": []}}}}', "is damaged: it has no trainings"),
    ],
)
def test_a_damaged_file_is_rejected_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "fast.jsonl"
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
        (None, "unknown engine None: choose keras or graph"),
    ],
)
def test_an_unknown_engine_is_rejected_in_one_line(
    tmp_path: Path, engine: object, complaint: str
) -> None:
    path = tmp_path / "fast.jsonl"
    write_trainings(path, [SOME])
    change(path, lambda header, _: header["sets"][0].update(engine=engine))
    with pytest.raises(InputError) as caught:
        read_trainings(path)
    assert str(caught.value) == f"{path}: is damaged: {complaint}"


@pytest.mark.parametrize(
    "changes",
    [
        {"wrong": 10_001},
        {"images": "many"},
        {"curves": [["low"]]},
        {"weight_norms": 3},
        {"set": 1},
    ],
)
def test_impossible_seed_records_are_rejected(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "fast.jsonl"
    write_trainings(path, [SOME])
    change(path, lambda _, seeds: seeds[0].update(changes))
    with pytest.raises(InputError, match="is damaged"):
        read_trainings(path)


def test_a_reference_requires_the_same_recipe_engine_split_and_code() -> None:
    assert differs(SOME, replace(SOME, side=Side("another", "another"))) == ""
    slower = SOME.recipe.with_overrides({"epochs": 7})
    assert "another recipe and code" in differs(SOME, replace(SOME, recipe=slower, code="3"))
    assert differs(SOME, replace(SOME, engine="keras", split="3")) == (
        "the reference is of another engine and split"
    )
    renamed = SOME.recipe.with_overrides({"name": "quick", "min_accuracy": 0.9})
    assert differs(SOME, replace(SOME, recipe=renamed)) == ""
