"""The self-check counts verdicts of the whole stopping rule on blocks of known truth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from bench.records import results
from bench.records.blocks import BASELINE, CANDIDATE, Results
from bench.verdicts import speed_error_rates
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed_error_rates import EQUAL, GPU_WORKLOAD, SLOWED, WORKLOAD, replay
from lenet5.errors import InputError
from tests.synthetic import simulated


def bank_of(ratio: float, deviation: float, blocks: int = 40) -> Results:
    """Blocks of 20 s each."""
    return simulated(
        ratio=ratio, block_deviation=deviation, pair_deviation=0.0, pairs=10, blocks=blocks
    )


def replayed(found: Results, replays: int = 20) -> list[speed_error_rates.Row]:
    return replay([found], EQUAL, margin=1.03, replays=replays, seed=0)


def test_every_slowed_slice_has_the_same_extra_steps() -> None:
    calls = speed_error_rates.call_steps(SLOWED)[WORKLOAD]
    assert (sum(calls[BASELINE]), sum(calls[CANDIDATE])) == (50, 53)
    assert len(calls[BASELINE]) == len(calls[CANDIDATE])
    assert speed_error_rates.call_steps(EQUAL) == {}


@pytest.mark.parametrize(
    ("ratio", "deviation", "verdict"),
    [
        (1.0, 0.004, Verdict.PASS),
        (1.06, 0.004, Verdict.FAIL),
        (1.03, 0.05, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts_match_the_truth(ratio: float, deviation: float, verdict: Verdict) -> None:
    runs, stretches, draws = replayed(bank_of(ratio, deviation))
    assert min(stretches.counts[verdict], draws.counts[verdict]) >= 18
    assert runs.total == 1


def test_only_complete_runs_count_as_runs() -> None:
    """An interrupted run contributes its blocks only."""
    whole, broken_off = bank_of(1.0, 0.004), replace(bank_of(1.06, 0.004), complete=False)
    runs, stretches, _ = replay([whole, broken_off], EQUAL, margin=1.03, replays=20, seed=0)
    assert runs.counts == {Verdict.PASS: 1, Verdict.FAIL: 0, Verdict.INCONCLUSIVE: 0}
    assert stretches.blocks == 80
    assert stretches.counts[Verdict.FAIL] > 0


def test_a_replay_has_as_many_blocks_as_a_run() -> None:
    """Six blocks of 20 s reach the second look within 120 s; four of 30 s only the first."""
    found = bank_of(1.05, 0.009)
    slow = replace(found, blocks=tuple(replace(block, seconds=30.0) for block in found.blocks))
    _, _, late = replayed(found, replays=200)
    _, _, early = replayed(slow, replays=200)
    assert early.counts[Verdict.FAIL] < late.counts[Verdict.FAIL]


@pytest.mark.parametrize(("blocks", "seconds"), [(6, 20.0), (40, 31.0)])
def test_a_too_small_bank_is_refused(blocks: int, seconds: float) -> None:
    found = bank_of(1.0, 0.01, blocks)
    found = replace(found, blocks=tuple(replace(block, seconds=seconds) for block in found.blocks))
    with pytest.raises(InputError, match="python -m bench calibrate --runs"):
        replayed(found)


def test_clopper_pearson_agrees_with_the_rule_of_three() -> None:
    """None in 20: at most 1 - 0.025 ** (1 / 20), two-sided 95 %."""
    low, high = speed_error_rates.clopper_pearson(0, 20)
    assert (low, high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))


def test_a_bank_depends_on_machine_version_and_threads(tmp_path: Path) -> None:
    found = bank_of(1.0, 0.01)
    terms = found.workloads[WORKLOAD]
    others = [
        replace(found, machine={"cpu": "another"}),
        replace(found, workloads={WORKLOAD: replace(terms, version=2)}),
        replace(found, workloads={WORKLOAD: replace(terms, threads=2)}),
    ]
    folders = {speed_error_rates.bank_folder(tmp_path, EQUAL, item) for item in (found, *others)}
    assert len(folders) == 4
    assert speed_error_rates.bank_folder(tmp_path, SLOWED, found) not in folders


def test_runs_of_different_code_are_refused_as_a_bank(tmp_path: Path) -> None:
    found = bank_of(1.0, 0.01)
    results.write(tmp_path / "1.jsonl", found)
    results.write(tmp_path / "2.jsonl", replace(found, code="1" * 64))
    with pytest.raises(InputError, match=r"different code.*: remove .* to begin a new bank"):
        speed_error_rates.read_bank(tmp_path, found.machine)


def test_a_missing_bank_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was not measured here: python -m bench calibrate"):
        speed_error_rates.read_bank(tmp_path, {})
    found = bank_of(1.0, 0.01)
    assert "not measured here" in speed_error_rates.false_alarms(found, tmp_path)


def test_false_alarms_have_count_bound_and_age(tmp_path: Path) -> None:
    days_ago = datetime.now(timezone.utc) - timedelta(days=3, hours=1)
    found = replace(bank_of(1.0, 0.004), started=days_ago.isoformat())
    folder = speed_error_rates.bank_folder(tmp_path, EQUAL, found)
    folder.mkdir(parents=True)
    for number in range(20):
        results.write(folder / f"{number}.jsonl", replace(found, started=days_ago.isoformat()))
    assert speed_error_rates.false_alarms(found, tmp_path) == (
        f"false alarms on this machine: 0 FAIL in 20 runs of {WORKLOAD} against itself (at most "
        "17 %), 0 in 200 replays of their 800 blocks; measured 3 days ago"
    )


ON_H200 = {"cpu": "a processor", "gpu": {"model": "NVIDIA H200", "driver": "550.90.07"}}


def bank_on_gpu(machine: Mapping[str, Any]) -> Results:
    """Blocks of 20 s each of the workload of GPUs."""
    found = bank_of(1.0, 0.004)
    samples = [{GPU_WORKLOAD: block.samples[WORKLOAD]} for block in found.blocks]
    return replace(
        found,
        machine=machine,
        workloads={GPU_WORKLOAD: found.workloads[WORKLOAD]},
        blocks=tuple(replace(b, samples=s) for b, s in zip(found.blocks, samples, strict=True)),
    )


def test_a_gpu_has_a_bank_of_its_own(tmp_path: Path) -> None:
    """So has each model and each driver; on the CPU the folder is the one of before."""
    driver = {**ON_H200, "gpu": {"model": "NVIDIA H200", "driver": "560.35.03"}}
    model = {**ON_H200, "gpu": {"model": "NVIDIA L4", "driver": "550.90.07"}}
    cpu = replace(bank_of(1.0, 0.01), machine={"cpu": "a processor"})
    there = [cpu, *map(bank_on_gpu, (ON_H200, driver, model))]
    folders = [speed_error_rates.bank_folder(tmp_path, EQUAL, found) for found in there]
    assert len(set(folders)) == 4
    terms = cpu.workloads[WORKLOAD]
    identity = json.dumps([cpu.machine, terms.version, terms.threads], sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    assert folders[0] == tmp_path / "banks" / f"{key}-equal"
    empty = speed_error_rates.empty_like(ON_H200, 1, terms.version)
    assert speed_error_rates.bank_folder(tmp_path, EQUAL, empty) == folders[1]


def test_a_bank_of_a_gpu_has_steps_verdicts_and_false_alarms_of_its_workload(
    tmp_path: Path,
) -> None:
    calls = speed_error_rates.call_steps(SLOWED, GPU_WORKLOAD)
    assert calls == {GPU_WORKLOAD: speed_error_rates.call_steps(SLOWED)[WORKLOAD]}
    now = datetime.now(timezone.utc).isoformat()
    found = replace(bank_on_gpu(ON_H200), started=now)
    runs, _, _ = replayed(found)
    assert runs.counts[Verdict.PASS] == 1
    told = speed_error_rates.false_alarms(found, tmp_path)
    assert told == "false alarms: not measured here (python -m bench calibrate --device gpu)"
    folder = speed_error_rates.bank_folder(tmp_path, EQUAL, found)
    with pytest.raises(InputError, match=r"python -m bench calibrate --device gpu$"):
        speed_error_rates.read_bank(folder, ON_H200)
    folder.mkdir(parents=True)
    results.write(folder / "1.jsonl", found)
    told = speed_error_rates.false_alarms(found, tmp_path)
    assert told.startswith(
        f"false alarms on this machine: 0 FAIL in 1 runs of {GPU_WORKLOAD} against itself"
    )
    on_cpu = replace(found, machine={"cpu": "a processor"})
    assert WORKLOAD in speed_error_rates.false_alarms(on_cpu, tmp_path)


def test_runs_of_unlike_gpus_are_refused_as_a_bank(tmp_path: Path) -> None:
    driver = {**ON_H200, "gpu": {"model": "NVIDIA H200", "driver": "560.35.03"}}
    for number, machine in enumerate((ON_H200, driver)):
        results.write(tmp_path / f"{number}.jsonl", bank_on_gpu(machine))
    told = r"different GPUs: driver 560\.35\.03 and 550\.90\.07 .*: remove .* to begin a new bank"
    with pytest.raises(InputError, match=told):
        speed_error_rates.read_bank(tmp_path, ON_H200)
