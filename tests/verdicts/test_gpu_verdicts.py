"""Verdicts on a GPU: wrong results under TF32, and workloads with budgets of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from bench.records.blocks import CANDIDATE, NOT_MEASURED, Failure, Results
from bench.verdicts.sequential import LOOKS, Verdict, detectable_shift
from bench.verdicts.speed import Decision, decide
from tests.synthetic import CHECKS, block_of, exactly, results, results_of, terms

LOOP, FIRST = "train_step[loop,b512]", "first_fit[nojit]"
GPU = {"device": "gpu:0"}


def wrong_by(share: float, options: Mapping[str, str]) -> Decision:
    """Returns the decision on a candidate whose check figures are off by a share."""
    found = results({LOOP: exactly(0.0, 0.002, 4)}, options=options)
    blocks = []
    for block in found.blocks:
        off = replace(block.samples[LOOP], candidate_check=tuple(x * (1 + share) for x in CHECKS))
        blocks.append(replace(block, samples={LOOP: off}))
    (decision,) = decide(replace(found, blocks=tuple(blocks)))
    return decision


@pytest.mark.parametrize(
    ("share", "options", "verdict"),
    [
        (5e-6, {}, Verdict.PASS),
        (1e-4, {}, Verdict.FAIL),
        (1e-4, {"device": "cpu"}, Verdict.FAIL),
        (1e-3, GPU, Verdict.PASS),
        (5e-3, GPU, Verdict.FAIL),
        (math.nan, GPU, Verdict.FAIL),
    ],
)
def test_a_wrong_result_exceeds_the_rounding_of_its_device(
    share: float, options: Mapping[str, str], verdict: Verdict
) -> None:
    """TF32 rounds factors to 10 bits, in some of a GPU's algorithms and not in others."""
    assert wrong_by(share, options).verdict is verdict


def with_failures(*reasons: str) -> Results:
    failures = [Failure(CANDIDATE, FIRST, reason) for reason in reasons]
    return results_of(
        [block_of(number, {}, [failure]) for number, failure in enumerate(failures)],
        {FIRST: replace(terms(1.25), own_budget_seconds=600.0)},
        options=GPU,
    )


def test_a_candidate_that_could_not_be_measured_is_inconclusive() -> None:
    """The limit of the method ended it; more blocks would not help."""
    reason = f"{NOT_MEASURED}timed out after 120 s, the baseline took 110 s"
    (one,) = decide(with_failures(reason))
    assert not one.settled
    (two,) = decide(with_failures(reason, reason))
    assert (two.verdict, two.settled) == (Verdict.INCONCLUSIVE, True)
    assert two.finding == f"{FIRST}: 2.21.0 is {reason}"


def test_a_candidate_that_hangs_fails() -> None:
    (decision,) = decide(with_failures("timed out after 120 s", "timed out after 120 s"))
    assert decision.verdict is Verdict.FAIL


@pytest.mark.parametrize("is_first", [True, False])
def test_one_crash_beside_an_unmeasured_block_is_inconclusive(is_first: bool) -> None:
    """One crash decides nothing, whether it comes before or after the block without a figure."""
    crash, unmeasured = "killed by SIGSEGV", f"{NOT_MEASURED}timed out after 120 s"
    reasons = (crash, unmeasured) if is_first else (unmeasured, crash)
    (decision,) = decide(with_failures(*reasons))
    assert (decision.verdict, decision.settled) == (Verdict.INCONCLUSIVE, True)
    assert decision.finding == f"{FIRST}: 2.21.0 is {unmeasured}"
    (again,) = decide(with_failures(*reasons, crash))
    assert (again.verdict, again.finding) == (Verdict.FAIL, f"{FIRST}: 2.21.0 {crash} (2 blocks)")


@pytest.mark.parametrize(("own_seconds", "looks"), [(10.0, 6), (60.0, 3), (149.0, 1)])
def test_the_detectable_slowdown_uses_a_workloads_own_budget(
    own_seconds: float, looks: int
) -> None:
    """The comparison's budget has no part in it."""
    found = results(
        {FIRST: exactly(0.0, 0.01, 4)},
        {FIRST: replace(terms(1.25), own_budget_seconds=600.0)},
        options={**GPU, "budget_seconds": 1.0},
    )
    blocks = tuple(replace(block, own_seconds={FIRST: own_seconds}) for block in found.blocks)
    (decision,) = decide(replace(found, blocks=blocks))
    shift = detectable_shift(LOOKS[:looks]) * 0.01
    assert decision.detectable == pytest.approx(1.25 * math.exp(shift) - 1)
