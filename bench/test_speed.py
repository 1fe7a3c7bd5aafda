"""Verdicts on training speed: is the candidate slower or bigger than the baseline?

Collected with `--baseline` only. The experiment runs once, before the first of these tests.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.speed_plugin import FOUND, judge
from bench.verdicts.speed import Decision


def test_speed(
    compared: tuple[int, str],
    decisions: dict[tuple[int, str], Decision],
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    """PASS: shown to be within the margin. FAIL: shown to be worse."""
    judge(decisions[compared], pytestconfig.stash[FOUND], record_property)
