"""Verdicts on accuracy: does the candidate get more test images wrong, over many seeds?

Collected with `--seeds` only. All trainings are done before the first of these tests.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.accuracy import AccuracyDecision
from bench.accuracy_plugin import TRAINED, judge_accuracy
from bench.trainings import Trainings


def test_accuracy(
    trained_candidate: int,
    accuracy_decisions: dict[int, tuple[AccuracyDecision, Trainings]],
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    """PASS: shown to lose less than the margin. FAIL: shown to lose more, or diverged."""
    decision, candidate = accuracy_decisions[trained_candidate]
    judge_accuracy(decision, candidate, pytestconfig.stash[TRAINED][0], record_property)
