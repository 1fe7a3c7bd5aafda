"""Verdicts on accuracy: does the candidate get more test images wrong, over many seeds?

Collected with `--seeds` only. All trainings are done before the first of these tests.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.accuracy_plugin import ACCURACY_TERMS, TRAINED, judge_accuracy
from bench.records.trainings import Trainings
from bench.verdicts.accuracy import AccuracyDecision


def test_accuracy(
    trained_candidate: int,
    accuracy_decisions: dict[int, tuple[AccuracyDecision, Trainings]],
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    """PASS: shown to lose less than the margin. FAIL: shown to lose more, or diverged."""
    decision, candidate = accuracy_decisions[trained_candidate]
    baseline = pytestconfig.stash[TRAINED][0]
    paired = pytestconfig.stash[ACCURACY_TERMS].comparison.paired
    judge_accuracy(decision, candidate, baseline, record_property, paired=paired)
