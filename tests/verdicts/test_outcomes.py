"""One exit status for all outcomes: the most severe."""

from __future__ import annotations

import pytest

from bench.verdicts.outcomes import Outcome, exit_code
from bench.verdicts.sequential import Verdict

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


def outcome(verdict: Verdict, *, gated: bool = True, there: bool = True) -> Outcome:
    return Outcome(verdict, "", gated, there)


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([], 5),
        ([outcome(PASS)], 0),
        ([outcome(PASS), outcome(FAIL, gated=False)], 0),
        ([outcome(PASS), outcome(OPEN, gated=False)], 0),
        ([outcome(PASS), outcome(OPEN)], 6),
        ([outcome(OPEN), outcome(PASS, there=False)], 7),
        ([outcome(OPEN, gated=False, there=False)], 7),
        ([outcome(FAIL, there=False)], 7),
        ([outcome(OPEN), outcome(OPEN, there=False), outcome(FAIL)], 1),
    ],
)
def test_the_status_is_the_most_severe(outcomes: list[Outcome], status: int) -> None:
    assert exit_code(iter(outcomes)) == status


@pytest.mark.parametrize(
    ("one", "word", "fails"),
    [
        (outcome(PASS), "PASS", False),
        (outcome(FAIL), "FAIL", True),
        (outcome(FAIL, gated=False), "FAIL", False),
        (outcome(OPEN), "INCONCLUSIVE", True),
        (outcome(OPEN, gated=False, there=False), "NOT THERE", True),
    ],
)
def test_an_informational_verdict_is_reported_and_passes(
    one: Outcome, word: str, fails: bool
) -> None:
    assert (one.word, one.is_failed_report) == (word, fails)
