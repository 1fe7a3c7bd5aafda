"""Sessions killed with SIGKILL at any moment: nothing finished is lost, nothing is left over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kills import KINDS, kill_once, place_of, trials

KILLS = 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_session_continues_by_the_same_command(kind: str, tmp_path: Path) -> None:
    """The kill comes after the third finished record."""
    trial = kill_once(place_of(kind, tmp_path), (), 60.0, 0, after_records=3)
    assert trial.finished >= 3
    assert trial.is_whole, f"{trial}\n{(tmp_path / 'output.txt').read_text()}"


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_sessions_killed_at_random_moments_lose_nothing(kind: str, tmp_path: Path) -> None:
    found = [*trials(place_of(kind, tmp_path), KILLS)]
    assert [trial for trial in found if not trial.is_whole] == []


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["speed", "accuracy"])
def test_sessions_with_tensorflow_killed_at_random_moments_lose_nothing(
    kind: str, tmp_path: Path
) -> None:
    """Workers of this Python's TensorFlow, on scikit-learn's digits."""
    found = [*trials(place_of(kind, tmp_path, real=True), 5)]
    assert [trial for trial in found if not trial.is_whole] == []
