"""Two sides are one environment unless lock, settings or a fact reported by both differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench.records.blocks import Results
from bench.records.results import check_alike
from bench.records.sides import Side, device_of, difference, unlike_machines, with_told
from bench.records.together import together
from lenet5.errors import InputError
from tests import synthetic
from tests.synthetic import LOOP

TOLD = {"python": "3.11.7", "scheduling": "round robin", "onednn": True}
SIDE = Side("tensorflow-cpu==2.20.0", "2.20.0", TOLD, ("tensorflow-cpu==2.20.0",))

UNLIKE = [
    ({"python": "3.12.1"}, "Python 3.11.7 and 3.12.1"),
    ({"scheduling": "default"}, "scheduling round robin and default"),
    ({"onednn": False}, "oneDNN on and off"),
]


def part(baseline: Side, *, candidate: Side = SIDE, name: str = LOOP) -> Results:
    found = synthetic.results({name: synthetic.exactly(0.0, 0.002, 4)})
    return replace(found, baseline=baseline, candidates=(candidate,))


def telling(versions: Mapping[str, Any]) -> Side:
    return replace(SIDE, versions={**TOLD, **versions})


@pytest.mark.parametrize(("versions", "words"), UNLIKE)
def test_a_different_fact_reported_by_both_sides_separates_them(
    versions: Mapping[str, Any], words: str
) -> None:
    assert difference(SIDE, telling(versions)) == words
    with pytest.raises(
        InputError, match=f"^2.20.0 differs from the measured environment: {words}$"
    ):
        with_told(SIDE, versions)


@pytest.mark.parametrize("unknown", [None, ""])
@pytest.mark.parametrize("name", TOLD)
def test_a_fact_missing_on_one_side_is_ignored(name: str, unknown: object) -> None:
    assert difference(SIDE, telling({name: unknown})) == ""
    assert difference(replace(SIDE, versions={}), SIDE) == ""
    assert with_told(replace(SIDE, versions={}), TOLD) == SIDE


def test_packages_settings_and_local_wheels_always_count() -> None:
    assert difference(SIDE, replace(SIDE, settings={"TF_X": "1"})) == "other settings"
    assert difference(SIDE, replace(SIDE, lock=())) == "other packages"
    wheels = [replace(SIDE, lock=(f"tensorflow==2.20.0 @ sha256:{digit * 64}",)) for digit in "ab"]
    assert difference(*wheels) == "other packages"


@pytest.mark.parametrize(("versions", "words"), UNLIKE)
def test_results_of_different_baselines_cannot_be_combined(
    versions: Mapping[str, Any], words: str
) -> None:
    parts = [part(SIDE), part(telling(versions))]
    told = f"results of different baselines cannot be combined: {words}"
    with pytest.raises(InputError, match=told):
        check_alike(*parts)
    with pytest.raises(InputError, match=told):
        together(parts)
    silent = part(replace(SIDE, versions={}))
    with pytest.raises(InputError, match=told):  # a baseline without facts does not reconcile them
        together([silent, *parts])
    assert len(together([silent, parts[0]]).candidates) == 1


@pytest.mark.parametrize(("versions", "words"), UNLIKE)
def test_candidates_of_different_parts_are_merged_only_if_alike(
    versions: Mapping[str, Any], words: str
) -> None:
    """The check covers three parts, the first without facts."""
    silent = replace(SIDE, versions={})
    names = (LOOP, "import", "fit_call")
    sides = (silent, SIDE, telling(versions))
    parts = [
        replace(part(SIDE, candidate=c, name=n), started=f"2026-11-22T12:0{minute}:00+00:00")
        for minute, (c, n) in enumerate(zip(sides, names, strict=True))
    ]
    found = together(parts).candidates
    assert [dict(side.versions) for side in found] == [TOLD, {**TOLD, **versions}]
    assert difference(*found) == words


ONE = {"cpu": "a processor", "gpu": {"model": "NVIDIA H200", "driver": "550", "ecc": "on"}}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (dict(ONE), ""),
        ({"cpu": "a processor"}, "devices: NVIDIA H200 and the CPU"),
        ({"cpu": "another", "gpu": {"model": "NVIDIA L4"}}, "devices: NVIDIA H200 and NVIDIA L4"),
        ({"cpu": "another", "gpu": ONE["gpu"]}, "machines"),
        (
            {"cpu": "a processor", "gpu": {"model": "NVIDIA H200", "driver": "560"}},
            "GPUs: driver 550 and 560, ecc on and unknown",
        ),
    ],
)
def test_unlike_machines_and_devices_are_named(other: Mapping[str, Any], words: str) -> None:
    assert unlike_machines(ONE, other) == words


def test_the_device_of_a_machine_is_its_gpu_in_use_or_the_cpu() -> None:
    assert device_of({"cpu": "a processor"}) == "the CPU"
    assert device_of(ONE) == "NVIDIA H200"
    strange: list[Any] = [{}, [1], "x"]  # a ledger of others may hold anything
    for unknown in strange:
        assert device_of({"gpu": unknown}) == "a GPU"
        assert unlike_machines({"gpu": unknown}, {"gpu": {"a_b": 1}}) in (
            *("machines", "GPUs: a b unknown and 1"),
        )
