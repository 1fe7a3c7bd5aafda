"""Ledgers of single tasks are put together, the same way for any order of the files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from bench.records.blocks import Block, Results
from bench.records.sides import Side
from bench.records.together import together, together_trainings
from bench.records.trainings import Comparison, Trained, Trainings
from lenet5.errors import InputError
from lenet5.recipes import find_recipe
from tests import synthetic
from tests.synthetic import LOOP, terms

OLD = Side(
    "tensorflow-cpu==2.20.0", "2.20.0", {"tensorflow": "2.20.0"}, ("tensorflow-cpu==2.20.0",)
)
NEW = Side(
    "tensorflow-cpu==2.21.0", "2.21.0", {"tensorflow": "2.21.0"}, ("tensorflow-cpu==2.21.0",)
)


CPU_ONLY = {"cpu": "a processor"}
ON_H200 = {**CPU_ONLY, "gpu": {"model": "NVIDIA H200", "driver": "550.90.07"}}
UNLIKE = [
    (CPU_ONLY, "devices: (the CPU and NVIDIA H200|NVIDIA H200 and the CPU)"),
    (
        {**CPU_ONLY, "gpu": {"model": "NVIDIA L4", "driver": "550.90.07"}},
        "devices: (NVIDIA L4 and NVIDIA H200|NVIDIA H200 and NVIDIA L4)",
    ),
    (
        {**CPU_ONLY, "gpu": {"model": "NVIDIA H200", "driver": "560.35.03"}},
        "GPUs: driver 5[56]0[.0-9]+ and 5[56]0[.0-9]+",
    ),
]
"""Machines that are unlike one with an H200, and what distinguishes them."""


def moment(minute: int) -> str:
    return f"2026-11-22T12:{minute:02}:00+00:00"


def unit(minute: int, value: float, side: Side = NEW, **more: Any) -> Results:
    """Returns the ledger of one block, measured at a minute."""
    block = synthetic.block_of(0, {LOOP: synthetic.samples_of([value] * 4, terms())})
    block = replace(block, started=moment(minute), number=more.pop("number", 0))
    return synthetic.results_of(
        [block],
        {LOOP: terms()},
        candidates=[side],
        baseline=OLD,
        **{"started": moment(minute), **more},
    )


def values(found: Results) -> list[tuple[int, float]]:
    """Returns number and ratio of each block."""
    return [(block.number, round(_ratio(block), 3)) for block in found.blocks]


def _ratio(block: Block) -> float:
    samples = block.samples[LOOP]
    return samples.candidate.values[0] / samples.baseline.values[0]


def test_blocks_of_several_ledgers_are_one_candidate_in_any_order() -> None:
    """They are numbered by their starts, whatever their own numbers."""
    parts = [unit(3, 0.3, number=7), unit(1, 0.1, number=7), unit(2, 0.2)]
    found = {repr(together(order)) for order in permutations(parts)}
    assert len(found) == 1
    whole = together(parts)
    assert [side.request for side in whole.candidates] == [NEW.request]
    assert values(whole) == [(0, 1.105), (1, 1.221), (2, 1.35)]


def test_a_block_in_two_ledgers_counts_once() -> None:
    """A ledger may have been copied before it was continued."""
    one, two = unit(1, 0.1), unit(2, 0.2)
    both = replace(one, blocks=(*one.blocks, replace(two.blocks[0], number=1)))
    for parts in ([one, both], [both, one], [one, two, both], [both, both]):
        assert values(together(parts)) == [(0, 1.105), (1, 1.221)]


def test_a_repeated_block_keeps_the_number_of_the_disturbed_one() -> None:
    one = unit(1, 0.1)
    disturbed = replace(one.blocks[0], disturbed=("steal",))
    again = replace(one.blocks[0], started=moment(5))
    repeated = replace(one, blocks=(disturbed, again))
    assert [n for n, _ in values(together([repeated, unit(2, 0.2)]))] == [0, 0, 1]
    assert [n for n, _ in values(together([replace(one, blocks=(disturbed,)), repeated]))] == [0, 0]


def test_blocks_of_several_candidates_join_each_their_own() -> None:
    other = replace(NEW, settings={"TF_X": "1"})
    parts = [unit(1, 0.1), unit(2, 0.2, other), unit(3, 0.3), unit(4, 0.4, other)]
    found = together(parts)
    assert [dict(side.settings) for side in found.candidates] == [{}, {"TF_X": "1"}]
    assert [(block.candidate, block.number) for block in found.blocks] == [
        *((0, 0), (1, 0), (0, 1), (1, 1)),
    ]


def test_equal_candidates_of_one_comparison_stay_apart() -> None:
    """A comparison of an environment with itself may have it several times."""
    block = unit(1, 0.1).blocks[0]
    parts = [
        replace(
            unit(minute, 0.1),
            candidates=(NEW, NEW),
            blocks=tuple(replace(block, candidate=c, started=moment(minute)) for c in (0, 1)),
        )
        for minute in (1, 2)
    ]
    found = together(parts)
    assert [(block.candidate, block.number) for block in found.blocks] == [
        *((0, 0), (1, 0), (0, 1), (1, 1)),
    ]


def test_an_environment_that_was_nowhere_built_is_missing_once() -> None:
    gone = Side("tensorflow-cpu==9", "tensorflow-cpu==9", problem="no such version")
    parts = [replace(unit(minute, 0.1), candidates=(gone,), blocks=()) for minute in (1, 2)]
    assert [side.problem for side in together(parts).candidates] == ["no such version"]
    assert len(together([*parts, unit(3, 0.1)]).candidates) == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"machine": {"cpu": "another"}}, "machines"),
        ({"code": "1" * 64}, "code"),
        ({"baseline": NEW}, "baselines"),
        ({"workloads": {LOOP: replace(terms(), version=2)}}, f"versions of {LOOP}"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unlike_blocks_are_refused(change: dict[str, Any], what: str) -> None:
    parts = [unit(1, 0.1), replace(unit(2, 0.2), **change)]
    for order in permutations(parts):
        with pytest.raises(InputError) as caught:
            together(order)
        assert str(caught.value).startswith(f"results of different {what} cannot be combined")


@pytest.mark.parametrize(("other", "what"), UNLIKE)
def test_blocks_of_unlike_devices_are_refused(other: Mapping[str, Any], what: str) -> None:
    parts = [unit(1, 0.1, machine=ON_H200), unit(2, 0.2, machine=other)]
    with pytest.raises(InputError, match=f"^results of different {what} cannot be combined$"):
        together(parts)
    assert len(together([parts[0], unit(2, 0.2, machine=dict(ON_H200))]).blocks) == 2


# Trainings


def trained(
    *seeds: int, minute: int = 0, side: Side = NEW, wrong: int = 150, **more: Any
) -> Trainings:
    return Trainings(
        **{
            "recipe": find_recipe("fast"),
            "engine": "graph",
            "split": "0" * 64,
            "code": "1" * 64,
            "side": side,
            "machine": {"cpu": "a processor"},
            "started": moment(minute),
            "seeds": tuple(
                Trained(seed, wrong + seed, 10_000, train_seconds=minute + 1.0) for seed in seeds
            ),
            **more,
        }
    )


TERMS = Comparison(0.15, paired=True, beside=True)


def test_seeds_of_several_ledgers_become_one_set_in_any_order() -> None:
    parts: list[Any] = [([trained(seed, minute=seed)], None) for seed in (2, 0, 1)]
    assert len({repr(together_trainings(order)) for order in permutations(parts)}) == 1
    sets, comparison = together_trainings(parts)
    assert comparison is None
    assert [[seed.seed for seed in item.seeds] for item in sets] == [[0, 1, 2]]


def test_a_seed_trained_twice_counts_once() -> None:
    """Its result is the same on a like machine; only its time differs."""
    sets, _ = together_trainings([([trained(0, 1)], None), ([trained(1, 2, minute=3)], None)])
    assert [(seed.seed, seed.train_seconds) for seed in sets[0].seeds] == [
        *((0, 1.0), (1, 1.0), (2, 4.0)),
    ]
    with pytest.raises(InputError, match=r"seed 1 of 2\.21\.0 has two results"):
        together_trainings([([trained(0, 1)], None), ([trained(1, wrong=99)], None)])


def test_comparisons_join_their_baselines_and_candidates() -> None:
    parts = [([trained(seed, side=OLD), trained(seed, minute=seed)], TERMS) for seed in (1, 0)]
    sets, comparison = together_trainings(parts)
    assert comparison == TERMS
    assert [item.side.request for item in sets] == [OLD.request, NEW.request]
    assert [[seed.seed for seed in item.seeds] for item in sets] == [[0, 1], [0, 1]]


def test_an_environment_compared_with_itself_keeps_two_sets() -> None:
    parts = [([trained(seed), trained(seed)], TERMS) for seed in (0, 1)]
    sets, _ = together_trainings(parts)
    assert [[seed.seed for seed in item.seeds] for item in sets] == [[0, 1], [0, 1]]


def test_a_reference_is_the_same_in_all_parts() -> None:
    against = replace(TERMS, beside=False)
    reference = trained(*range(20), side=OLD, machine={"cpu": "another"})
    sets, _ = together_trainings([([reference, trained(seed)], against) for seed in (0, 1)])
    assert sets[0] == reference
    assert len(sets[1].seeds) == 2
    other = replace(reference, started=moment(9))
    with pytest.raises(InputError, match="different references"):
        together_trainings([([r, trained(0)], against) for r in (reference, other)])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda item: replace(item, machine={"cpu": "another"}), "machines"),
        (lambda item: replace(item, machine=ON_H200), "devices: .*"),
        (lambda item: replace(item, recipe=find_recipe("best")), "recipes"),
        (lambda item: replace(item, engine="keras"), "engines"),
        (lambda item: replace(item, split="2" * 64), "images"),
        (lambda item: replace(item, code="2" * 64), "code"),
    ],
)
def test_unlike_seeds_are_refused(change: Callable[[Trainings], Trainings], what: str) -> None:
    told = f"^results of different {what} cannot be combined$"
    with pytest.raises(InputError, match=told):
        together_trainings([([trained(0)], None), ([change(trained(1))], None)])
    with pytest.raises(InputError, match=told):  # of other environments too
        together_trainings([([trained(0)], None), ([change(trained(1, side=OLD))], None)])


@pytest.mark.parametrize(("other", "what"), UNLIKE)
def test_seeds_of_unlike_devices_are_refused(other: Mapping[str, Any], what: str) -> None:
    told = f"^results of different {what} cannot be combined$"
    for side in (NEW, OLD):
        parts: list[Any] = [
            ([trained(0, machine=ON_H200)], None),
            ([trained(1, side=side, machine=other)], None),
        ]
        for order in permutations(parts):
            with pytest.raises(InputError, match=told):
                together_trainings(order)


def test_different_terms_and_baselines_are_refused() -> None:
    one = ([trained(0, side=OLD), trained(0)], TERMS)
    with pytest.raises(InputError, match="different terms"):
        together_trainings([one, (one[0], replace(TERMS, margin_points=0.2))])
    with pytest.raises(InputError, match="different terms"):
        together_trainings([one, ([trained(0)], None)])
    with pytest.raises(InputError, match="different baselines cannot be combined: other packages"):
        together_trainings([one, ([trained(1), trained(1, side=OLD)], TERMS)])
