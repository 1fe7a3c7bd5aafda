"""Levels of numerics: which to compute next, and where the bits change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from bench.records.levels import Computed, Levels
from bench.records.numerics import QUANTITIES
from bench.records.sides import Side
from bench.records.stages import PACKAGES, Place, Stage, ordered_stage
from bench.report.bisection.numerics import numerics_section
from bench.verdicts.bisection.numerics import next_place, steps_of
from bench.verdicts.outcomes import Exit


def computed(request: str, bits: str) -> Computed:
    """Returns a level with these bits of all quantities; a problem for no bits."""
    side = Side(request, request, lock=(f"keras=={bits}",))
    if not bits:
        return Computed(request, side, {}, {}, "cannot be resolved")
    return Computed(request, side, dict.fromkeys(QUANTITIES, bits), dict.fromkeys(QUANTITIES, 1e-7))


def follow(stage: Stage, bits: Mapping[str, str]) -> Levels:
    """Computes a stage to its end."""
    found = Levels(stage, {}, "", "2026-11-27T00:00:00+00:00")
    while (wanted := next_place(found)) is not None:
        one = computed(wanted[1], bits[wanted[1]])
        found = Levels(stage, {}, "", found.started, (*found.computed, one))
    return found


def ordered(bits: Sequence[str]) -> Levels:
    names = {str(number): f"package=={number}" for number in range(len(bits))}
    given = dict(zip(names.values(), bits, strict=True))
    return follow(ordered_stage("versions", "package", names), given)


def test_every_level_of_a_short_axis_is_computed() -> None:
    """A change that is taken back and another one are both seen."""
    found = ordered("AABBAC")
    assert len(found.computed) == 6
    assert steps_of(found) == [(1, 2), (3, 4), (4, 5)]


def test_equal_ends_need_no_level_between_them() -> None:
    found = ordered("ABBA")
    assert len(found.computed) == 2
    assert "has the same bits" in numerics_section(found, "stage-1.jsonl").finding


def test_a_long_axis_is_divided_where_its_bits_differ() -> None:
    found = ordered("A" * 70 + "B" * 30 + "C" * 28)
    assert steps_of(found) == [(69, 70), (99, 100)]
    assert len(found.computed) < 20


def test_a_level_that_cannot_be_built_widens_the_step() -> None:
    found = ordered(["A", "A", "", "B"])
    assert steps_of(found) == [(1, 3)]
    section = numerics_section(found, "stage-1.jsonl")
    assert section.finding.endswith("Found: 1 to 3")
    assert any("cannot be resolved" in row for row in section.tables[0][1].rows)
    assert section.status is Exit.PASSED


@pytest.mark.parametrize(("culprit", "expected"), [(1, (0, 1)), (2, (0, 2))])
def test_a_package_is_found_by_its_exchange(culprit: int, expected: tuple[int, int]) -> None:
    places = (
        Place("good", ("g",)),
        Place("good with a", ("a",), (1,)),
        Place("good with b", ("b",), (2,)),
        Place("bad", ("x",), (1, 2)),
    )
    stage = Stage(PACKAGES, "", places, {"1": "a", "2": "b"}, {"1": 1.0, "2": 1.0})
    bits = {p.requests[0]: "B" if culprit in p.held else "A" for p in places}
    assert expected in steps_of(follow(stage, bits))


def test_another_request_of_a_place_is_tried() -> None:
    places = (
        Place("good", ("g",)),
        Place("between", ("x", "y"), (1,)),
        Place("bad", ("b",), (1, 2)),
    )
    stage = Stage("versions", "", places, {"1": "", "2": ""}, {"1": 1.0, "2": 1.0})
    found = follow(stage, {"g": "A", "x": "", "y": "B", "b": "B"})
    assert steps_of(found) == [(0, 1)]
