"""Speed verdicts: is the candidate slower or bigger than the baseline?

Collected with `--baseline`. All measurements precede the first of these tests.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.plugin import judge
from bench.verdicts.outcomes import Outcome


def test_speed(outcome: Outcome, record_property: Callable[[str, object], None]) -> None:
    """PASS: shown to be within the margin. FAIL: shown to be worse."""
    judge(outcome, record_property)
