"""Several candidates in one comparison: a common correction and permanent verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bench.records.blocks import Block, Results
from bench.records.sides import Side
from bench.verdicts.sequential import (
    LOOKS,
    Change,
    Look,
    Outcome,
    Series,
    Verdict,
    assess,
    proven_changes,
)
from bench.verdicts.speed import Decision, decide
from tests.synthetic import LOOP, block_of, exactly, results, results_of, samples_of, terms

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
NONE, WORSE, BETTER = Change.NONE, Change.WORSE, Change.BETTER
EQUAL = exactly(0.0, 0.002, 4)
SLOWER = exactly(math.log(1.092), 0.005, 4)


def with_p_value(p: float, blocks: int = 4) -> list[float]:
    """Blocks with this p-value in a one-sided t test against 0."""
    return exactly(stats.t.isf(p, blocks - 1) / math.sqrt(blocks), 1.0, blocks)


def several(
    *candidates: Mapping[str, Sequence[float]], gated: bool = True, in_turns: bool = True
) -> Results:
    """Candidates with these values, measured alternately or one after the other."""
    on = {name: terms(gated=gated) for values in candidates for name in values}
    blocks = [
        replace(block, candidate=place)
        for place, values in enumerate(candidates)
        for block in results(values, on, pairs=1).blocks
    ]
    if in_turns:
        blocks.sort(key=lambda block: (block.number, block.candidate))
    sides = [Side("", f"2.{place}") for place in range(len(candidates))]
    return results_of(blocks, on, candidates=sides)


# Common correction


def test_decisions_are_ordered_by_candidate_and_use_its_own_blocks() -> None:
    found = decide(several({LOOP: EQUAL, "fit_call": SLOWER}, {LOOP: SLOWER, "fit_call": EQUAL}))
    assert [(d.candidate, d.workload, d.verdict) for d in found] == [
        (0, LOOP, PASS),
        (0, "fit_call", FAIL),
        (1, LOOP, FAIL),
        (1, "fit_call", PASS),
    ]
    assert [f"2.{d.candidate} takes" in d.finding for d in found] == [True] * 4


def test_fail_is_corrected_over_the_workloads_of_all_candidates() -> None:
    """A p-value sufficient for a single candidate is insufficient for one of four."""
    values = [math.log(1.03) + 1e-3 * x for x in with_p_value(0.003)]
    (alone,) = decide(several({LOOP: values}))
    among = decide(several({LOOP: values}, *3 * [{LOOP: EQUAL}]))
    assert (alone.verdict, among[0].verdict) == (FAIL, INCONCLUSIVE)
    assert among[0].confidence == pytest.approx(1 - 0.008 - 0.008 / 4)
    informational = decide(several({LOOP: values}, *3 * [{LOOP: EQUAL}], gated=False))
    assert informational[0].verdict is FAIL


def test_an_unwanted_workload_is_not_a_hypothesis() -> None:
    both = several({LOOP: EQUAL}, {LOOP: EQUAL})
    sides = (both.candidates[0], replace(both.candidates[1], unwanted=(LOOP,)))
    (found,) = decide(replace(both, candidates=sides))
    assert found.confidence == pytest.approx(1 - 2 * 0.008)


def test_candidates_at_the_margin_have_a_false_fail_in_two_and_a_half_percent() -> None:
    """Three candidates of two workloads, alternating or in sequence, one of them truly slower."""
    families = 1500
    table = np.random.RandomState(3).standard_normal((families, 3, 2, 12))
    table[:, 0] += 6
    for in_turns in (True, False):
        wrong = 0
        for family in table:
            outcomes = assess(
                {
                    (place, name): Series(
                        family[place, name],
                        0.0,
                        1e-7,
                        moments=[3 * n + place if in_turns else 12 * place + n for n in range(12)],
                    )
                    for place in range(3)
                    for name in range(2)
                }
            )
            wrong += any(o.verdict is FAIL for (place, _), o in outcomes.items() if place)
        assert 0 < wrong <= stats.binom.isf(0.001, families, 0.025)


# Permanent verdicts


def test_a_fail_gives_its_share_to_undecided_series_at_any_look() -> None:
    """The late series fails at six blocks of the early one; the early FAIL belongs to look 1."""
    early = Series([*with_p_value(0.006), 0.0, 0.0], 0.0, 1e-7, moments=[0, 1, 2, 3, 4, 6])
    late = with_p_value(1e-6)
    before = assess({"early": early, "late": Series(late, 0.0, 1e-7, moments=[1, 2, 3, 9])})
    assert before["early"].verdict is INCONCLUSIVE  # its second look was earlier
    assert before["early"].blocks == 6
    after = assess({"early": early, "late": Series(late, 0.0, 1e-7, moments=[1, 2, 3, 5])})
    assert (after["early"].verdict, after["early"].blocks) == (FAIL, 4)
    assert after["early"].alpha_fail == 0.008


def random_comparison(seed: int) -> Results:
    """Three candidates near the margin with blocks in random order."""
    random = np.random.RandomState(seed)
    names = (LOOP, "fit_call")
    on = {name: terms(gated=name == LOOP or seed % 2 == 0) for name in names}
    ratios = math.log(1.03) + 0.02 * random.uniform(-1, 1.5, (3, 2))
    numbers = [0, 0, 0]
    blocks: list[Block] = []
    for candidate in random.randint(0, 3, 36):
        samples = {
            name: samples_of([value], on[name])
            for name, value in zip(
                names, ratios[candidate] + 0.009 * random.standard_normal(2), strict=True
            )
        }
        blocks.append(block_of(numbers[candidate], samples, candidate=int(candidate)))
        numbers[candidate] += 1
    return results_of(blocks, on, candidates=[Side("", str(place)) for place in range(3)])


def test_a_verdict_during_the_run_equals_that_of_all_blocks() -> None:
    """Ratio, interval, blocks and verdict stay, regardless of later blocks of others."""
    kept: list[Verdict] = []
    for seed in range(40):
        found = random_comparison(seed)
        before: list[Decision] = []
        for count in range(len(found.blocks) + 1):
            now = decide(replace(found, blocks=found.blocks[:count]))
            for then, later in zip(before, now, strict=bool(before)):
                if then.settled:
                    assert (later.verdict, later.blocks) == (then.verdict, then.blocks)
                    assert (later.ratio, later.low, later.high) == (then.ratio, then.low, then.high)
                    kept.append(then.verdict)
            before = now
    assert min(kept.count(PASS), kept.count(FAIL)) > 200


def test_later_blocks_do_not_change_an_earlier_decision() -> None:
    """PASS at the second look stays, although a later FAIL would have made the first look FAIL."""
    first = exactly(1.0, 0.61, 4)  # p = 0.023: below all of 0.025, above a half
    looks = [Look(4, 0.025), Look(6, 0.4)]
    values = [*first, -9.0, -9.0]
    late = Series(exactly(9.0, 1.0, 4), 0.0, 1e-7, moments=range(10, 14))
    found = assess({"early": Series(values, 0.0, 1e-7), "late": late}, looks)
    assert (found["early"].verdict, found["early"].blocks) == (PASS, 6)
    assert found["late"].verdict is FAIL
    assert assess({"early": Series(values, 0.0, 1e-7)}, looks)["early"].verdict is FAIL


# Changes independent of the verdict


def outcome_of(values: Sequence[float], look: Look = LOOKS[0]) -> Outcome:
    """Outcome of a test against a far margin: always PASS, with any change."""
    return assess({"": Series(values, 99.0, 1e-7)}, [look])[""]


# Holm's worked example, as in test_sequential.py, with two-sided p-values and level.
HOLM_P_VALUES = {"H1": 0.01, "H2": 0.04, "H3": 0.03, "H4": 0.005}
HOLM_REJECTED = {"H1", "H4"}


@pytest.mark.parametrize(("sign", "change"), [(1, WORSE), (-1, BETTER)])
def test_changes_match_a_published_example_in_both_directions(sign: int, change: Change) -> None:
    outcomes = {
        name: outcome_of([sign * x for x in with_p_value(p / 2)], Look(4, 0.025))
        for name, p in HOLM_P_VALUES.items()
    }
    found = proven_changes(outcomes)
    assert {name for name, c in found.items() if c is change} == HOLM_REJECTED
    assert {c for c in found.values() if c is not change} == {NONE}


def test_a_series_before_its_first_look_counts_as_a_hypothesis() -> None:
    values = with_p_value(0.005)
    nothing = assess({"": Series([], 0.0, 1e-7)})[""]
    assert proven_changes({"a": outcome_of(values)}) == {"a": WORSE}
    assert proven_changes({"a": outcome_of(values), "b": nothing}) == {"a": NONE, "b": NONE}


def test_no_change_contradicts_the_interval() -> None:
    """The interval's correction is stronger here, since it is FAIL's: 0.008 / 3."""
    cells = {str(n): Series(with_p_value(0.004), 99.0, 1e-7) for n in range(3)}
    cells["0"] = replace(cells["0"], values=with_p_value(1e-6))
    cells["1"] = replace(cells["1"], values=with_p_value(1e-6))
    outcomes = assess(cells, LOOKS[:1])
    assert [outcomes[n].low > 0 for n in "012"] == [True, True, False]
    assert list(proven_changes(outcomes).values()) == [WORSE, WORSE, NONE]


def test_a_table_of_equal_candidates_has_an_arrow_in_five_percent() -> None:
    """Intervals alone exclude 1 in most tables: 24 cells, each stopped at its verdict."""
    tables = 400
    random = np.random.RandomState(5)
    arrows = excluded = 0
    for table in 0.009 * random.standard_normal((tables, 24, 24)):
        outcomes = assess(
            {n: Series(row, math.log(1.03), 1e-7) for n, row in enumerate(table)}, LOOKS
        )
        arrows += any(proven_changes(outcomes).values())
        excluded += any(not o.low <= 0 <= o.high for o in outcomes.values())
    assert 0 < arrows <= stats.binom.isf(0.001, tables, 0.05)
    assert excluded > 2 * arrows


def test_a_change_is_in_the_finding_and_corrected_over_candidates() -> None:
    """Proven alone but not among eight, although its interval excludes 1 in both cases."""
    values = [-1e-3 * x for x in with_p_value(0.004)]
    (alone,) = decide(several({LOOP: values}))
    among = decide(several({LOOP: values}, *7 * [{LOOP: [*EQUAL]}]))
    assert (alone.change, among[0].change) == (BETTER, NONE)
    assert alone.high == among[0].high < 1
    assert alone.finding.endswith(", faster")
    assert among[0].finding.endswith(", within the margin 1.03")


def test_a_fault_or_a_flipped_verdict_has_no_change() -> None:
    found = several({LOOP: exactly(-0.05, 0.001, 4)})
    assert decide(found)[0].change is BETTER
    disturbed = block_of(0, {LOOP: samples_of([0.5], terms())}, disturbed=("steal 20 %",))
    flipped = decide(replace(found, blocks=(disturbed, *found.blocks)))[0]
    assert (flipped.verdict, flipped.change) == (INCONCLUSIVE, NONE)
    samples = found.blocks[0].samples[LOOP]
    wrong = {LOOP: replace(samples, candidate_check=(9.0, 2.2, 2.0))}
    broken = decide(
        replace(found, blocks=(replace(found.blocks[0], samples=wrong), *found.blocks[1:]))
    )[0]
    assert (broken.verdict, broken.change) == (INCONCLUSIVE, NONE)
    assert broken.high < 1
