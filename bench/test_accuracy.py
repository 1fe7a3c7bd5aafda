"""Accuracy verdicts: does the candidate get more test images wrong, over many seeds?

Collected with `--seeds`. All training precedes the first of these tests.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.plugin import judge
from bench.verdicts.outcomes import Outcome


def test_accuracy(outcome: Outcome, record_property: Callable[[str, object], None]) -> None:
    """PASS: shown to lose less than the margin. FAIL: shown to lose more, or diverged."""
    judge(outcome, record_property)
