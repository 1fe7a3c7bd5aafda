"""Verdicts on accuracy: does the candidate get more test images wrong, over many seeds?

Collected with `--seeds` only. All trainings are done before the first of these tests.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.accuracy import AccuracyDecision
from bench.accuracy_plugin import TRAINED, judge_accuracy


def test_accuracy(
    trained_candidate: int,
    accuracy_decisions: list[AccuracyDecision],
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    """PASS: shown to lose less than the margin. FAIL: shown to lose more, or diverged."""
    baseline, *candidates = pytestconfig.stash[TRAINED]
    candidate = candidates[trained_candidate]
    judge_accuracy(accuracy_decisions[trained_candidate], candidate, baseline, record_property)
