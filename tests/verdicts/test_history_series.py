"""Series of a history: what is one series, and on which scale its values stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from bench.records.archive import Omitted, StoredSeeds
from bench.records.blocks import Failure
from bench.records.sides import Side
from bench.records.trainings import (
    Comparison,
    Trained,
    Trainings,
    read_trainings,
    reference_path,
)
from bench.verdicts.history.points import tracks_of
from bench.verdicts.history.repeating import repeating_request
from bench.verdicts.history.series import machine_labels
from bench.verdicts.speed import decide
from tests import histories, synthetic
from tests.histories import BASELINE, MACHINE, NIGHTLY, nightlies, nightly, run, side, with_changes
from tests.synthetic import GROWTH, LOOP

NEW_BASELINE = side(
    "tensorflow==2.21.0", "keras==3.15.1", "numpy==2.4.6", "tensorflow==2.21.0", python="3.11.7"
)


def test_a_track_is_one_series_whatever_its_lock() -> None:
    (series,) = histories.history(nightlies([0.01, 0.02, None, 0.03])).series
    assert series.name == f"{LOOP} of {NIGHTLY} on a processor, 2 cores"
    assert [round(each.value, 6) for each in series.points][:2] == [0.01, 0.02]
    assert math.isnan(series.points[2].value)
    assert series.measured == [0, 1, 3]
    assert len({each.point.environment for each in series.points}) == 4


def test_runs_are_in_order_of_time_not_of_names() -> None:
    runs = nightlies([0.01, 0.02, 0.03])
    (series,) = histories.history(runs[::-1]).series
    assert [round(each.value, 6) for each in series.points] == [0.01, 0.02, 0.03]


def test_a_point_is_the_mean_of_its_blocks_and_the_verdict_that_of_its_run() -> None:
    (stored,) = nightlies([0.05], deviation=0.002)
    (series,) = histories.history([stored]).series
    (placed,) = series.points
    assert placed.point.error == pytest.approx(0.002 / 2)
    assert placed.point.blocks == 4
    assert placed.point.verdict == decide(stored.results)[0].verdict.value == "FAIL"
    assert placed.point.baseline_amount == pytest.approx(0.03 / 4)  # four steps a slice


def test_a_repeated_block_replaces_the_disturbed_one() -> None:
    (stored,) = nightlies([0.0])
    first, *others = stored.results.blocks
    disturbed = replace(
        first,
        disturbed=("other processes",),
        samples={LOOP: synthetic.samples_of([0.5] * 10, synthetic.terms())},
    )
    (series,) = histories.history([with_changes(stored, blocks=(disturbed, first, *others))]).series
    assert series.points[0].value == pytest.approx(0.0, abs=1e-12)


def test_a_missing_environment_is_not_there() -> None:
    failed = [
        synthetic.block_of(number, {}, [Failure("candidate", "", "cannot start")])
        for number in range(2)
    ]
    (stored,) = nightlies([0.0])
    (series,) = histories.history([with_changes(stored, blocks=tuple(failed))]).series
    assert series.points[0].point.verdict == "NOT THERE"
    assert series.found is None


def test_a_wheel_counts_by_its_distribution_and_repeated_requests_are_numbered() -> None:
    wheel = "'./my dist/tensorflow_cpu-2.22.0-cp311-cp311-linux_x86_64.whl' TF_A=1"
    requests = [wheel, "tf-nightly", "tf-nightly", "tf-nightly 'x"]
    assert tracks_of(requests) == [
        "tensorflow_cpu wheel TF_A=1",
        "tf-nightly",
        "tf-nightly (2)",
        "tf-nightly 'x",
    ]


def test_a_linked_change_of_the_baseline_keeps_one_series() -> None:
    """Old points are chained: here the new baseline is 5 % slower than the old one."""
    old = nightlies([0.05] * 3)
    link = run(3, {LOOP: 0.05}, candidate=NEW_BASELINE)
    new = [run(day, {LOOP: 0.0}, baseline=NEW_BASELINE) for day in (4, 5)]
    found = histories.history([*old, link, *new])
    series = {each.track: each for each in found.series}[NIGHTLY]
    assert [each.value for each in series.points] == pytest.approx([0.0] * 5, abs=1e-12)
    assert [each.link for each in series.points] == pytest.approx([0.002] * 3 + [0.0] * 2)


def test_a_package_without_part_in_the_times_leaves_the_baseline_the_same() -> None:
    newer = replace(BASELINE, lock=("certifi==2027.1.1", *BASELINE.lock))
    found = histories.history([*nightlies([0.05] * 3), run(3, {LOOP: 0.05}, baseline=newer)])
    (series,) = found.series
    assert [each.value for each in series.points] == pytest.approx([0.05] * 4)
    assert not any(each.link for each in series.points)


def test_an_unlinked_change_of_the_baseline_splits_the_series() -> None:
    new = [run(day, {LOOP: 0.0}, baseline=NEW_BASELINE) for day in (4, 5)]
    found = histories.history([*nightlies([0.05] * 3), *new])
    plain, older = sorted(found.series, key=lambda series: len(series.name))
    assert [len(each.points) for each in (plain, older)] == [2, 3]
    assert older.name == f"{plain.name}, another baseline until 2026-01-03"


@pytest.mark.parametrize(
    ("changes", "words"), [({"version": 2}, "version 1"), ({"threads": 2}, "1 thread")]
)
def test_other_versions_and_threads_are_other_series(changes: dict[str, Any], words: str) -> None:
    later = run(1, {LOOP: 0.0})
    terms = {LOOP: replace(synthetic.terms(), **changes)}
    found = histories.history([*nightlies([0.0]), with_changes(later, workloads=terms)])
    plain, older = sorted(found.series, key=lambda series: len(series.name))
    assert older.name == f"{plain.name}, {words}"


def test_machines_of_another_cpu_or_size_are_other_series() -> None:
    runs = [
        run(0, {LOOP: 0.0}),
        run(1, {LOOP: 0.0}, machine={**MACHINE, "usable_cores": 4}),
        run(2, {LOOP: 0.0}, machine={**MACHINE, "system": "Darwin arm64"}),
        run(3, {LOOP: 0.0}, machine={**MACHINE, "flags": ["avx2", "avx512f"]}),
    ]
    found = histories.history(runs)
    assert sorted(machine_labels(found.runs).values()) == [
        "a processor, 2 cores, Darwin arm64",
        "a processor, 2 cores, Linux x86_64",
        "a processor, 4 cores",
    ]
    assert sorted(len(series.points) for series in found.series) == [1, 1, 2]


H200 = {"model": "NVIDIA H200", "driver": "550.90.07"}


def test_runs_on_the_cpu_and_on_each_model_of_a_gpu_are_other_series() -> None:
    """A new driver stays within its class; the page marks it."""
    gpus = [None, H200, {**H200, "model": "NVIDIA L4"}, {**H200, "driver": "560.35.03"}]
    machines = [MACHINE if gpu is None else {**MACHINE, "gpu": gpu} for gpu in gpus]
    found = histories.history([run(n, {LOOP: 0.0}, machine=m) for n, m in enumerate(machines)])
    assert sorted(machine_labels(found.runs).values()) == [
        "NVIDIA H200, a processor, 2 cores",
        "NVIDIA L4, a processor, 2 cores",
        "a processor, 2 cores",
    ]
    runs = {each.machine: [p.point.run for p in each.points] for each in found.series}
    assert runs["NVIDIA H200, a processor, 2 cores"] == [1, 3]
    for each in found.series:
        assert each.asked.endswith(" --device gpu") == each.machine.startswith("NVIDIA")


def test_versions_of_all_tracks_make_a_series_in_their_order() -> None:
    sides = {
        version: side(f"tensorflow=={version}", f"tensorflow=={version}")
        for version in ("2.21.0", "2.9.1", "2.15.1")
    }
    runs = [run(day, {LOOP: 0.01 * day}, candidate=each) for day, each in enumerate(sides.values())]
    (series,) = histories.history(runs).versions
    assert [each.point.run for each in series.points] == [1, 2, 0]
    assert series.name == f"{LOOP} by version on a processor, 2 cores"


def test_environments_with_other_settings_are_not_among_the_versions() -> None:
    with_settings = Side("a TF_A=1", "a", {}, ("tensorflow==2.19.0",), {"TF_A": "1"})
    runs = [
        run(0, {LOOP: 0.0}, candidate=side("b", "tensorflow==2.18.0")),
        run(1, {LOOP: 0.0}, candidate=side("c", "tensorflow==2.19.0")),
        run(2, {LOOP: 0.9}, candidate=with_settings),
    ]
    more = run(3, {LOOP: 0.9}, candidate=replace(with_settings, lock=("tensorflow==2.18.0",)))
    plain, other = histories.history([*runs, more]).versions
    assert [each.point.run for each in plain.points] == [0, 1]
    assert other.name == f"{plain.name}, with TF_A=1"


def test_the_band_is_the_noise_of_the_baseline_against_itself() -> None:
    equal = [run(day, {LOOP: value}, candidate=BASELINE) for day, value in enumerate([0.01] * 4)]
    found = histories.history([*equal, run(5, {LOOP: 0.0})])
    for series in found.series:
        assert series.band.runs == 4
        assert series.band.half == pytest.approx(2.776445 * 0.01, rel=1e-6)
    (lonely,) = histories.history(nightlies([0.0])).series
    assert math.isnan(lonely.band.half)


def test_a_series_ends_thirty_days_before_the_newest_run() -> None:
    runs = [run(0, {LOOP: 0.0}), run(31, {LOOP: 0.0}, candidate=side("b", "tensorflow==2.1"))]
    assert {each.track: each.is_current for each in histories.history(runs).series} == {
        NIGHTLY: False,
        "b": True,
    }


def test_differences_stay_differences() -> None:
    terms = {GROWTH: synthetic.growth_terms()}
    (series,) = histories.history([run(0, {GROWTH: 0.02}, workloads=terms)]).series
    assert series.points[0].value == pytest.approx(0.02)
    assert series.terms.is_difference


def seeds(label: str, wrong: Sequence[int], version: str) -> Trainings:
    reference = read_trainings(reference_path("fast", "graph"))[0]
    trained = [Trained(seed=n, wrong=each, images=10_000) for n, each in enumerate(wrong)]
    return replace(
        reference,
        side=side(label, f"tensorflow=={version}"),
        seeds=tuple(trained),
        machine=MACHINE,
    )


@pytest.mark.parametrize("paired", [True, False])
def test_accuracy_is_a_series_of_lost_points(paired: bool) -> None:
    base = seeds("tensorflow==2.20.0", [150, 160] * 5, "2.20.0")
    worse = seeds(NIGHTLY, [170, 180] * 5, "2.21.0")
    terms = Comparison(0.5, paired=paired, beside=paired, seeds=10)
    stored = StoredSeeds("a.jsonl", histories.START, (base, worse), terms)
    (series,) = histories.history([stored]).series
    assert series.name == f"accuracy[fast,graph] of {NIGHTLY} on a processor, 2 cores"
    (placed,) = series.points
    assert placed.value == pytest.approx(0.2)
    # Ten seeds of either side, 0.1 points apart in turns: variance 0.0025 * 10 / 9.
    assert placed.point.error == pytest.approx(0.0 if paired else math.sqrt(2 * 0.025 / 9 / 10))
    assert placed.point.blocks == 10
    assert placed.point.verdict == "PASS"
    sides = "--baseline {baseline} --candidate {candidate}" if paired else "--candidate {candidate}"
    assert series.asked == f"{sides} --seeds 10 --recipe fast --engine graph"
    on_gpu = replace(worse, machine={**MACHINE, "gpu": H200})
    (series,) = histories.history([replace(stored, sets=(base, on_gpu))]).series
    assert series.machine == "NVIDIA H200, a processor, 2 cores"
    assert series.asked == f"{sides} --seeds 10 --recipe fast --engine graph --device gpu"


def test_omitted_files_are_kept() -> None:
    omitted = Omitted("x.jsonl", "is damaged")
    assert histories.history([*nightlies([0.0]), omitted]).omitted == (omitted,)


@pytest.mark.parametrize(
    ("request_text", "repeated"),
    [
        (NIGHTLY, "tf-nightly==2.22.0.dev20260101 keras==3.9.0 numpy==2.1.0"),
        ("tf_nightly>=2 keras", "tf-nightly==2.22.0.dev20260101 keras==3.9.0 numpy==2.1.0"),
        (
            "tf-nightly without:keras TF_A='a b'",
            "tf-nightly==2.22.0.dev20260101 without:keras 'TF_A=a b' numpy==2.1.0",
        ),
        ("python:/opt/python TF_A=1", "python:/opt/python TF_A=1"),
        (".", "."),
        ("an 'open quote", "an 'open quote"),
    ],
)
def test_a_request_is_repeated_with_its_versions(request_text: str, repeated: str) -> None:
    assert repeating_request(replace(nightly(0), request=request_text)) == repeated
