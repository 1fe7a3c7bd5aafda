"""Change points: false alarms, planted steps and their ranges, on resampled equal blocks."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bench.records import results
from bench.verdicts.history import calibration
from bench.verdicts.history.change_points import (
    credible_range,
    detect,
    noise_of,
    segments,
)
from bench.verdicts.history.penalties import FEWEST, TABLE, nearest, penalty_of
from lenet5.errors import InputError
from tests import synthetic
from tests.histories import noise
from tests.synthetic import LOOP

EQUAL = Path(__file__).parents[2] / "bench" / "results" / "equal.jsonl"
NO_ERRORS = [math.nan] * 200


@pytest.fixture(scope="module")
def banks() -> dict[str, np.ndarray]:
    """Blocks of equal environments, as measured."""
    return calibration.bank_of(results.read(EQUAL))


def stepped(before: int, after: int, height: float = 0.03, seed: int = 0) -> list[float]:
    values = noise(before + after, 0.003, seed)
    return [value + height * (place >= before) for place, value in enumerate(values)]


def test_a_step_splits_a_series_into_two_levels() -> None:
    found = segments(stepped(20, 10), NO_ERRORS, floor=1e-3)
    (step,) = found.steps
    assert step.earliest <= 20 <= step.latest
    assert step.at == 20
    assert step.low < 0.03 < step.high
    assert step.is_proven
    assert [(level.first, level.last) for level in found.levels] == [(0, 19), (20, 29)]
    assert found.levels[1].low < 0.03 < found.levels[1].high


def test_a_step_that_is_taken_back_is_two_steps() -> None:
    values = [value - 0.03 * (place >= 25) for place, value in enumerate(stepped(15, 25))]
    first, second = segments(values, NO_ERRORS, floor=1e-3).steps
    assert (first.at, second.at) == (15, 25)
    assert first.change > 0 > second.change


def test_one_outlier_is_no_level() -> None:
    values = noise(40, 0.003)
    values[25] += 0.02
    assert not segments(values, NO_ERRORS, floor=1e-3).steps


def test_the_unit_of_a_series_does_not_matter() -> None:
    """Milliseconds and seconds give the same change points."""
    values = stepped(20, 10)
    for unit in (1e-3, 1e3):
        scaled = segments([unit * value for value in values], NO_ERRORS, floor=1e-9)
        assert [step.at for step in scaled.steps] == [20]


def test_a_short_series_is_not_tested() -> None:
    found = segments(stepped(4, FEWEST - 5, 0.5), NO_ERRORS, floor=1e-3)
    assert not found.is_tested
    assert len(found.levels) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_very_short_series_have_a_level(count: int) -> None:
    (level,) = segments([0.01] * count, NO_ERRORS, floor=1e-3).levels
    assert level.mean == pytest.approx(0.01)
    assert math.isnan(level.low) == (count == 1)


def test_the_error_of_a_chained_baseline_widens_a_step_at_its_joint() -> None:
    values, links = stepped(20, 10), [0.02] * 20 + [0.0] * 10
    (plain,) = segments(values, NO_ERRORS, floor=1e-3).steps
    (chained,) = segments(values, NO_ERRORS, links, floor=1e-3).steps
    assert plain.is_proven
    assert not chained.is_proven
    (elsewhere,) = segments(values, NO_ERRORS, [0.02] * 30, floor=1e-3).steps
    assert elsewhere == plain


def test_noise_is_robust_and_at_least_what_the_runs_state() -> None:
    values = np.array(stepped(100, 100))
    assert noise_of(values, NO_ERRORS, 1e-6) == pytest.approx(0.003, rel=0.25)
    assert noise_of(values, [0.01] * 200, 1e-6) == 0.01
    assert noise_of(np.zeros(9), NO_ERRORS, 1e-3) == 1e-3


def test_a_range_is_wide_for_a_small_step_and_narrow_for_a_large_one() -> None:
    large = credible_range(np.array(stepped(20, 20, 0.03)) / 0.003)
    small = credible_range(np.array(stepped(20, 20, 0.003)) / 0.003)
    assert (large.earliest, large.latest) == (20, 20)
    assert small.latest - small.earliest >= 3


def test_ranges_hold_the_step_as_often_as_they_say() -> None:
    """95 % of 400 steps of two standard deviations, plus or minus three standard errors."""
    random = np.random.RandomState(0)
    hits = 0
    for _ in range(400):
        at = random.randint(5, 26)
        found = credible_range(random.standard_normal(30) + 2.0 * (np.arange(30) >= at))
        hits += found.earliest <= at <= found.latest
    assert hits / 400 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400)


def test_equal_series_have_a_change_in_at_most_two_percent(banks: dict[str, np.ndarray]) -> None:
    """The promise itself is counted on 4,000 series (`penalties.TABLE`); here on 150 each."""
    for runs in (30, 120):
        row = nearest(runs)
        assert row.runs == runs
        assert row.alarms / row.series <= 0.02
        series = 150 if runs == 30 else 50
        alarms = sum(
            calibration.false_alarms(bank, runs, series=series, seed=5) for bank in banks.values()
        )
        assert alarms <= 0.02 * series * len(banks) + 4


def test_planted_steps_of_three_percent_are_found(banks: dict[str, np.ndarray]) -> None:
    """Within three runs in at least 95 % of series, whatever the workload."""
    for bank in banks.values():
        hits = calibration.planted(bank, 30, 1.03, series=100, seed=6)
        assert hits.found >= 95
        assert hits.within >= 90


def test_a_lower_penalty_alarms_more_often(banks: dict[str, np.ndarray]) -> None:
    """The library's own default, 2 log n, is not enough: calibration is what keeps the rate."""
    random = np.random.RandomState(1)
    alarms = 0
    for _ in range(100):
        drawn = calibration.draw(banks[LOOP], 30, random, blocks=4)
        scale = noise_of(drawn.values, list(drawn.errors), calibration.FLOOR)
        alarms += bool(detect(drawn.values / scale, 2 * math.log(30)))
    assert alarms > 2


def test_a_calibration_repeats_and_keeps_its_rate(banks: dict[str, np.ndarray]) -> None:
    def made(seed: int) -> object:
        return calibration.calibrate(banks, 10, series=100, rate=0.05, seed=seed)

    one = calibration.calibrate(banks, 10, series=100, rate=0.05, seed=3)
    assert one == made(3)
    assert one != made(4)
    assert one.series == 100
    assert one.alarms <= 0.05 * 100 + 3 * math.sqrt(0.05 * 100)


def test_the_table_of_penalties_is_whole() -> None:
    lengths = [row.runs for row in TABLE]
    assert lengths == sorted(lengths)
    assert {30, 120} <= set(lengths)
    assert all(row.alarms <= 0.02 * row.series for row in TABLE)
    for one, other in pairwise(TABLE):
        between = penalty_of((one.runs + other.runs) // 2)
        assert between == max(one.penalty, other.penalty)
        assert penalty_of(one.runs) == one.penalty
    assert penalty_of(2 * lengths[-1]) == TABLE[-1].penalty + 2 * math.log(2)
    with pytest.raises(ValueError, match="too few"):
        penalty_of(FEWEST - 1)


def test_a_bank_of_unlike_environments_is_refused() -> None:
    with pytest.raises(InputError, match="is not the baseline"):
        calibration.bank_of(synthetic.simulated())


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skchange.detectors", None)
    with pytest.raises(InputError, match=r"pip install 'lenet5-bench\[history\]'"):
        detect(np.zeros(9), 10.0)
