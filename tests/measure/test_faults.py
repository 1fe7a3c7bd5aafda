"""Crashes, hangs, wrong results and missing sides give FAIL or INCONCLUSIVE, never PASS."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bench.records.blocks import BASELINE, CANDIDATE, Failure, Results
from bench.verdicts.faults import is_wrong
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import Decision
from tests.synthetic import LOOP, decided, exactly, results

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
EQUAL = exactly(0.0, 0.002, 4)
SLOWER = exactly(math.log(1.092), 0.005, 4)
CRASH = "killed by signal 9"


def decision(measured: Results, name: str = LOOP) -> Decision:
    return decided(measured)[name]


def crashing(
    measured: Results, numbers: Iterable[int], *sides: str, workload: str = LOOP
) -> Results:
    """Returns results with a workload, or every one for "", failed in the given blocks."""
    failures = tuple(Failure(side, workload, f"{side} killed by signal 9") for side in sides)
    blocks = tuple(
        replace(
            block,
            samples={n: s for n, s in block.samples.items() if workload not in (n, "")},
            failures=(*block.failures, *failures),
        )
        if block.number in numbers
        else block
        for block in measured.blocks
    )
    return replace(measured, blocks=blocks)


def test_a_measurement_unsupported_by_the_system_is_not_a_fault() -> None:
    """Either side may report it, since both run on the same system."""
    reason = "not measured: needs Linux's /proc"
    measured = results({LOOP: EQUAL, "memory_growth": [None] * 4})
    failures = (Failure(BASELINE, "memory_growth", reason),)
    blocks = tuple(replace(block, failures=failures) for block in measured.blocks[:1])
    found = decision(replace(measured, blocks=blocks), "memory_growth")
    assert found.verdict is INCONCLUSIVE
    assert found.finding == f"memory_growth: {reason}"


def computing(
    measured: Results, numbers: Iterable[int], figures: Sequence[float], side: str = CANDIDATE
) -> Results:
    """Returns results with other check figures of one side in the given blocks."""
    changes: dict[str, Any] = {f"{side}_check": tuple(figures)}
    blocks = tuple(
        replace(block, samples={n: replace(s, **changes) for n, s in block.samples.items()})
        if block.number in numbers
        else block
        for block in measured.blocks
    )
    return replace(measured, blocks=blocks)


def test_a_missing_workload_never_passes_and_counts_for_multiplicity() -> None:
    both = decided(results({LOOP: SLOWER, "fit_call": [None] * 4}))
    assert both["fit_call"].verdict is INCONCLUSIVE
    assert both["fit_call"].finding == "fit_call: it was not measured"
    assert math.isnan(both["fit_call"].ratio)
    assert both[LOOP].verdict is FAIL
    assert "(98.8 % interval 1.0" in both[LOOP].finding  # 0.8 % and half of 0.8 %


@pytest.mark.parametrize(
    ("baseline", "candidate", "reason"),
    [
        ("no such version", "", "the baseline is not there: no such version"),
        ("", "no such wheel", "2.21.0 is not there: no such wheel"),
        ("no version", "no wheel", "the baseline is not there: no version"),
    ],
)
@pytest.mark.parametrize("values", [[], EQUAL, SLOWER], ids=["unmeasured", "equal", "slower"])
def test_a_missing_side_is_inconclusive(
    baseline: str, candidate: str, reason: str, values: Sequence[float]
) -> None:
    measured = results({LOOP: values})
    sides: dict[str, Any] = {
        "baseline": replace(measured.baseline, problem=baseline),
        "candidates": (replace(measured.candidates[0], problem=candidate),),
    }
    found = decision(replace(measured, **sides))
    assert found.verdict is INCONCLUSIVE
    assert found.finding.startswith("train_step[loop,b128]: ")
    assert found.finding.endswith(f": {reason}")


@pytest.mark.parametrize("values", [EQUAL[:2], [-0.5] * 6, [None] * 6], ids=["2", "6", "none"])
def test_a_candidate_that_crashes_twice_fails(values: Sequence[float | None]) -> None:
    found = decision(crashing(results({LOOP: values}), [0, 1], CANDIDATE))
    assert found.verdict is FAIL
    assert found.finding == f"train_step[loop,b128]: 2.21.0 candidate {CRASH} (2 blocks)"


def test_a_candidate_that_crashes_once_does_not_fail() -> None:
    only = decision(crashing(results({LOOP: [0.0]}), [0], CANDIDATE))
    assert only.verdict is INCONCLUSIVE
    assert only.finding == f"train_step[loop,b128]: 2.21.0 fails: candidate {CRASH}"
    others = decision(crashing(results({LOOP: [9.0, *EQUAL]}), [0], CANDIDATE))
    assert (others.verdict, others.blocks) == (PASS, 4)


@pytest.mark.parametrize("values", [[0.0] * 2, [*EQUAL, 0.0, 0.0]], ids=["2 blocks", "6"])
def test_a_baseline_that_crashes_twice_is_inconclusive(values: Sequence[float]) -> None:
    """The same applies to both sides; figures of other blocks precede the reason."""
    measured = results({LOOP: values})
    for sides in ([BASELINE], [BASELINE, CANDIDATE], [CANDIDATE, BASELINE]):
        found = decision(crashing(measured, [0, 1], *sides))
        assert found.verdict is INCONCLUSIVE
        assert found.finding.endswith(f": the baseline fails: baseline {CRASH}")
        assert found.more_blocks is None


def test_a_crash_of_both_sides_does_not_count_against_the_candidate() -> None:
    measured = crashing(results({LOOP: [0.0] * 6}), [0], BASELINE, CANDIDATE)
    assert decision(crashing(measured, [3], CANDIDATE)).verdict is PASS
    assert decision(crashing(measured, [3, 4], CANDIDATE)).verdict is FAIL


def test_two_failures_in_one_block_count_as_one_crash() -> None:
    measured = results({LOOP: [0.0] * 5})
    assert decision(crashing(measured, [2], CANDIDATE, CANDIDATE)).verdict is PASS


def test_a_worker_that_does_not_start_fails_every_workload() -> None:
    measured = results({LOOP: [0.0] * 6, "fit_call": [0.0] * 6})
    for found in decided(crashing(measured, [1, 2], CANDIDATE, workload="")).values():
        assert found.verdict is FAIL
        assert found.finding == f"{found.workload}: 2.21.0 candidate {CRASH} (2 blocks)"
    for found in decided(crashing(measured, [1, 2], BASELINE, workload="")).values():
        assert found.verdict is INCONCLUSIVE


def test_a_failed_start_is_ignored_if_the_block_has_other_records() -> None:
    """Other processes of the block ran and recorded failures or samples."""
    measured = results({LOOP: [0.0] * 6, "fit_call": [0.0] * 6, "import": [0.0] * 6})
    measured = crashing(measured, [0, 1], CANDIDATE)
    late = tuple(
        replace(b, failures=(Failure(BASELINE, "", "no core is left"), *b.failures))
        for b in measured.blocks
    )
    found = decided(replace(measured, blocks=late))
    assert (found[LOOP].verdict, found["import"].verdict) == (FAIL, PASS)


def test_a_failed_start_does_not_change_an_earlier_verdict() -> None:
    """Later blocks omit the decided workload; then two starts fail."""
    values = {LOOP: EQUAL, "fit_call": [0.0, 0.05, 0.01, 0.03, 0.0, 0.0, 0.0]}
    measured = results(values)
    for side, verdict in ((CANDIDATE, FAIL), (BASELINE, INCONCLUSIVE)):
        found = decided(crashing(measured, [5, 6], side, workload=""))
        assert (found[LOOP].verdict, found["fit_call"].verdict) == (PASS, verdict)
        assert found[LOOP].settled
        assert found["fit_call"].settled


def test_faults_in_two_blocks_settle_the_decision() -> None:
    measured = results({LOOP: [0.0, 0.05, 0.01, 0.03]})
    assert not decision(measured).settled
    assert not decision(crashing(measured, [0], BASELINE)).settled
    assert decision(crashing(measured, [0, 1], BASELINE)).settled
    assert decision(crashing(measured, [0, 1], CANDIDATE)).settled


def test_a_crash_of_one_workload_does_not_affect_the_others() -> None:
    measured = results({LOOP: [0.0] * 6, "fit_call": [0.0] * 6})
    found = decided(crashing(measured, [0, 1], CANDIDATE))
    assert (found[LOOP].verdict, found["fit_call"].verdict) == (FAIL, PASS)


WRONG: Mapping[str, tuple[Sequence[float], str]] = {
    "wrong": ([2.3, 2.3, 2.0], "computes 2.3 instead of 2.2 (check figure 2)"),
    "NaN": ([2.3, 2.2, math.nan], "computes nan instead of 2 (check figure 3)"),
    "infinite": ([math.inf, 2.2, 2.0], "computes inf instead of 2.3 (check figure 1)"),
    "fewer": ([2.3, 2.2], "gives 2 check figures instead of 3"),
    "none": ([], "gives 0 check figures instead of 3"),
}


@pytest.mark.parametrize(("figures", "reason"), WRONG.values(), ids=WRONG)
def test_a_candidate_with_wrong_check_figures_in_two_blocks_fails(
    figures: Sequence[float], reason: str
) -> None:
    """Speed and correct blocks do not change this; one wrong block is inconclusive."""
    measured = results({LOOP: exactly(-0.5, 0.001, 6)})
    assert decision(measured).verdict is PASS
    twice = decision(computing(measured, [2, 5], figures))
    assert twice.verdict is FAIL
    assert twice.finding == f"train_step[loop,b128]: 2.21.0 {reason} (2 blocks)"
    once = decision(computing(measured, [2], figures))
    assert once.verdict is INCONCLUSIVE
    assert once.finding.endswith(f": 2.21.0 {reason}, in one block")


def test_a_crash_and_a_wrong_figure_are_two_faults() -> None:
    measured = crashing(results({LOOP: EQUAL}), [0], CANDIDATE)
    assert decision(computing(measured, [1], [9.0])).verdict is FAIL


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf])
def test_a_non_finite_baseline_does_not_count_against_the_candidate(
    figure: float,
) -> None:
    measured = computing(results({LOOP: EQUAL}), range(4), [2.3, figure, 2.0], BASELINE)
    for both in (measured, computing(measured, range(4), [2.3, figure, 2.0])):
        found = decision(both)
        assert found.verdict is INCONCLUSIVE
        assert found.finding.endswith(f"the baseline fails: computes {figure} (check figure 2)")


@pytest.mark.parametrize(
    ("figure", "right"), [(2.200021, True), (2.199979, True), (2.200023, False), (2.199977, False)]
)
def test_check_figures_have_a_relative_tolerance_of_1e_5(figure: float, right: bool) -> None:
    samples = results({LOOP: [0.0]}).blocks[0].samples[LOOP]
    assert (is_wrong(replace(samples, candidate_check=(2.3, figure, 2.0))) is None) is right
