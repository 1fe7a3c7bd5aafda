"""Stages: levels and packages, and their ledgers as walks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.bisection import stages
from bench.environments.builds import Built
from bench.environments.request import Request, parse_request
from bench.environments.swaps import Change
from bench.records.blocks import Failure, Results
from bench.records.ledger import plain
from bench.records.sides import Side
from bench.records.stages import OPTION, PACKAGES, Stage, ordered_stage, stage_of
from bench.verdicts.bisection.stages import (
    closure,
    good_fails,
    least_step,
    missing_places,
    speed_values,
    speed_walk,
)
from lenet5.errors import InputError
from tests.synthetic import LOOP, block_of, samples_of, terms

NAMES = ("1.0", "1.1", "1.2", "2.0")


def stage(kind: str = "versions") -> Stage:
    return ordered_stage(kind, "package", {name: f"package=={name}" for name in NAMES})


def results_of(
    blocks: Sequence[dict[int, float]], kind: str = "versions", **failing: Sequence[int]
) -> Results:
    """Returns a stage's results: log-ratios by place; `crashes` names a place for each crash."""
    on = terms()
    sides = [Side(f"package=={n}", n, lock=(f"package=={n}",)) for n in NAMES]
    found = [
        block_of(number, {LOOP: samples_of([value] * 10, on)}, candidate=place - 1)
        for number, block in enumerate(blocks)
        for place, value in block.items()
    ]
    found += [
        block_of(100 + at, {}, [Failure(side, "", "killed by SIGSEGV")], candidate=place - 1)
        for side, places in failing.items()
        for at, place in enumerate(places)
    ]
    options = {OPTION: plain(stage(kind))}
    return Results({}, "", options, "", sides[0], tuple(sides[1:]), {LOOP: on}, tuple(found))


def test_values_are_log_ratios_to_good_by_place() -> None:
    found = results_of([{1: 0.01, 3: 0.03}, {2: 0.02, 3: 0.03}])
    assert speed_values(found) == [
        {1: pytest.approx(0.01), 3: pytest.approx(0.03)},
        {2: pytest.approx(0.02), 3: pytest.approx(0.03)},
    ]
    assert least_step(found.workloads[LOOP]) == pytest.approx(math.log(1.03) / 3)


def test_a_level_is_missing_after_two_failures() -> None:
    """One failure may be an accident."""
    blocks = [{3: 0.03}]
    assert missing_places(results_of(blocks, candidate=[2])) == []
    (missing,) = missing_places(results_of(blocks, candidate=[2, 2]))
    assert (missing.place, missing.reason) == (2, "killed by SIGSEGV")
    assert speed_walk(results_of(blocks, candidate=[2, 2])).search.missing == {2}


def test_a_level_that_computes_another_result_is_missing() -> None:
    """A fast but wrong level must not count as a step."""
    found = results_of([{2: -0.2, 3: 0.03}, {2: -0.2, 3: 0.03}])
    blocks = [
        replace(block, samples={LOOP: replace(block.samples[LOOP], candidate_check=(2.3, 2.2, 9))})
        if block.candidate == 1
        else block
        for block in found.blocks
    ]
    wrong = replace(found, blocks=tuple(blocks))
    (missing,) = missing_places(wrong)
    assert (missing.place, missing.reason) == (2, "computes 9 instead of 2 (check figure 3)")
    assert speed_values(wrong) == [{3: pytest.approx(0.03)}] * 2


def test_good_that_fails_twice_is_named() -> None:
    assert good_fails(results_of([{3: 0.03}], baseline=[1])) == ""
    assert good_fails(results_of([{3: 0.03}], baseline=[1, 1])) == "killed by SIGSEGV"


def test_a_level_that_cannot_be_built_is_missing() -> None:
    found = results_of([{3: 0.03}])
    broken = replace(found.candidates[0], lock=(), problem="package==1.1: cannot\n  be resolved")
    found = replace(found, candidates=(broken, *found.candidates[1:]))
    (missing,) = missing_places(found)
    assert (missing.place, missing.reason) == (1, "cannot be resolved")


def test_days_with_the_same_packages_are_one_level() -> None:
    found = results_of([{3: 0.03}], "dates")
    same = replace(found.candidates[1], lock=found.candidates[0].lock)
    found = replace(found, candidates=(found.candidates[0], same, found.candidates[2]))
    (missing,) = missing_places(found)
    assert (missing.place, missing.reason) == (2, "same packages as package==1.1")


def test_ratios_close_over_a_middle_level() -> None:
    found = results_of([{1: 0.01, 3: 0.03}] * 3 + [{3: 0.03}] * 3)
    gap = closure(found, speed_walk(found), 1)
    assert gap is not None
    assert gap.mean == pytest.approx(0, abs=1e-12)
    assert gap.low < 0 < gap.high


def test_a_side_that_slows_the_others_opens_a_gap() -> None:
    found = results_of([{1: 0.01, 3: 0.05}] * 4 + [{3: 0.03}] * 4)
    gap = closure(found, speed_walk(found), 1)
    assert gap is not None
    assert gap.mean == pytest.approx(-0.02)


def test_a_stage_survives_its_ledger() -> None:
    assert stage_of({OPTION: plain(stage())}) == stage()
    with pytest.raises(InputError, match="holds no stage"):
        stage_of({})
    with pytest.raises(InputError, match="is no level"):
        stage().place_of("package==9")


def built(text: str) -> Built:
    return Built(parse_request(text), Path("python"), (), "3.11.7")


def exchange(
    monkeypatch: pytest.MonkeyPatch, *names: str, impossible: Sequence[str] = ()
) -> Stage | None:
    """Returns the stage of packages between two environments that differ in these."""

    def swapped(good: Built, _: Built, chosen: Sequence[str]) -> list[Request]:
        if set(chosen) & set(impossible):
            return []
        words = [f"{name}==1" for name in sorted(chosen)]
        return [parse_request(f"{good.request.text} {' '.join(words)}")]

    found = [Change(name, "1", "2") for name in names]
    monkeypatch.setattr(stages, "changes", lambda *_: tuple(found))
    monkeypatch.setattr(stages, "swapped", swapped)
    return stages.package_stage(built("good==1"), built("bad==1"), ("1.0", "2.0"))


def test_packages_are_exchanged_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    found = exchange(monkeypatch, "TensorFlow", "Keras", "numpy")
    assert found is not None
    assert found.kind == PACKAGES
    assert [place.held for place in found.places] == [
        (),
        *((1,), (2, 3)),
        *((2,), (1, 3)),
        *((3,), (1, 2)),
        (1, 2, 3),
    ]
    assert found.places[1].name == "1.0 with TensorFlow 1 to 2"
    assert found.places[2].name == "2.0 without TensorFlow 1 to 2"
    assert found.places[found.bad].name == "2.0"


def test_two_packages_are_exchanged_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad without one of two packages is good with the other."""
    found = exchange(monkeypatch, "TensorFlow", "Keras")
    assert found is not None
    assert [place.held for place in found.places] == [(), (1,), (2,), (1, 2)]


def test_one_package_needs_no_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exchange(monkeypatch, "Keras") is None


def test_an_exchange_that_is_impossible_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = exchange(monkeypatch, "TensorFlow", "Keras", impossible=["Keras", "TensorFlow"])
    assert found is not None
    assert [place.held for place in found.places] == [(), (1, 2)]
    assert found.named(frozenset({1, 2})) == ("TensorFlow 1 to 2 together with Keras 1 to 2")


def test_many_small_packages_are_one_change(monkeypatch: pytest.MonkeyPatch) -> None:
    small = [f"package-{number}" for number in range(20)]
    found = exchange(monkeypatch, "TensorFlow", *small, "numpy")
    assert found is not None
    assert [*found.changes.values()] == [
        *("TensorFlow 1 to 2", "numpy 1 to 2"),
        "20 other packages",
    ]
