"""The self-check counts verdicts of the whole stopping rule on blocks of known truth."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from bench import calibration, results
from bench.calibration import EQUAL, SLOWED, WORKLOAD, replay
from bench.results import BASELINE, CANDIDATE, Results
from bench.statistics import Verdict
from lenet5.errors import InputError
from tests.bench.synthetic import simulated


def bank_of(ratio: float, deviation: float, blocks: int = 40) -> Results:
    """Blocks of 20 s each."""
    return simulated(
        ratio=ratio, block_deviation=deviation, pair_deviation=0.0, pairs=10, blocks=blocks
    )


def replayed(found: Results, budget_seconds: float = 120) -> list[calibration.Replays]:
    return replay(found, EQUAL, margin=1.03, budget_seconds=budget_seconds, replays=20, seed=0)


def test_a_slowed_slice_has_the_same_extra_steps_each_time() -> None:
    calls = calibration.call_steps(SLOWED)[WORKLOAD]
    assert (sum(calls[BASELINE]), sum(calls[CANDIDATE])) == (50, 53)
    assert len(calls[BASELINE]) == len(calls[CANDIDATE])
    assert calibration.call_steps(EQUAL) == {}


@pytest.mark.parametrize(
    ("ratio", "deviation", "verdict"),
    [
        (1.0, 0.004, Verdict.PASS),
        (1.06, 0.004, Verdict.FAIL),
        (1.03, 0.05, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts_are_those_of_the_truth(ratio: float, deviation: float, verdict: Verdict) -> None:
    stretches, draws, disjoint = replayed(bank_of(ratio, deviation))
    assert min(stretches.counts[verdict], draws.counts[verdict]) >= 18
    assert sum(disjoint.counts.values()) == 6  # 40 blocks hold 6 times 6


def test_a_replay_has_the_blocks_that_the_budget_allows() -> None:
    """Four blocks of 20 s reach the first look, which a wide spread leaves open."""
    found = bank_of(1.05, 0.009)
    early, _, _ = replayed(found, budget_seconds=80)
    late, _, _ = replayed(found, budget_seconds=480)
    assert early.counts[Verdict.FAIL] < late.counts[Verdict.FAIL]


@pytest.mark.parametrize("budget_seconds", [60, 10_000])
def test_a_bank_that_is_too_small_is_refused(budget_seconds: float) -> None:
    with pytest.raises(InputError, match="python -m bench calibrate --blocks"):
        replayed(bank_of(1.0, 0.01, blocks=20), budget_seconds)


def test_table_says_how_often_each_verdict_came_out() -> None:
    row = calibration.Replays(
        EQUAL, "draws", 60, {Verdict.PASS: 985, Verdict.FAIL: 5, Verdict.INCONCLUSIVE: 10}
    )
    assert calibration.table([row]) == (
        "bank     blocks  manner          PASS     FAIL  INCONCLUSIVE\n"
        "equal        60  draws         98.5 %    0.5 %         1.0 %"
    )


def test_clopper_pearson_against_the_rule_of_three() -> None:
    """None in 20: at most 1 - 0.025 ** (1 / 20), two-sided 95 %."""
    low, high = calibration.clopper_pearson(0, 20)
    assert (low, high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))


def test_a_bank_belongs_to_a_machine_a_version_and_threads(tmp_path: Path) -> None:
    found = bank_of(1.0, 0.01)
    terms = found.workloads[WORKLOAD]
    others = [
        replace(found, machine={"cpu": "another"}),
        replace(found, workloads={WORKLOAD: replace(terms, version=2)}),
        replace(found, workloads={WORKLOAD: replace(terms, threads=2)}),
    ]
    files = {calibration.bank_file(tmp_path, EQUAL, item) for item in (found, *others)}
    assert len(files) == 4
    assert calibration.bank_file(tmp_path, SLOWED, found) not in files


def test_what_was_not_measured_here_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bank of equal blocks was measured here"):
        calibration.read_bank(tmp_path, EQUAL, threads=1, version=1)
    found = replace(bank_of(1.0, 0.01), options={"budget_seconds": 120})
    assert "not measured here" in calibration.false_alarms(found, tmp_path)


def test_false_alarms_have_count_bound_and_age(tmp_path: Path) -> None:
    found = replace(bank_of(1.0, 0.004), options={"budget_seconds": 120})
    old = (datetime.now(timezone.utc) - timedelta(days=3, hours=1)).isoformat()
    last = replace(found.blocks[-1], started=old)
    path = calibration.bank_file(tmp_path, EQUAL, found)
    path.parent.mkdir(parents=True)
    results.write(path, replace(found, blocks=(*found.blocks[:-1], last)))
    assert calibration.false_alarms(found, tmp_path) == (
        f"false alarms on this machine: 0 FAIL in 200 replays of 40 blocks of {WORKLOAD} against "
        "itself, at most 46 % by its 6 independent stretches; measured 3 days ago"
    )
