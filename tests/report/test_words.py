"""Differences between sides follow the imported modules, not the names of distributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench.records.sides import Side, in_one_line
from bench.report.comparison import summary_text, table_text
from bench.report.versions import (
    OTHER_KERAS,
    SAME_KERAS,
    differs_in,
    version_order,
    version_rows,
)
from bench.report.words import notes
from bench.verdicts.speed import decide
from tests import synthetic
from tests.synthetic import LOOP

RELEASE = ("keras==3.15.1", "numpy==2.4.6", "tensorflow-cpu==2.21.0")
CANDIDATE = ("keras-nightly==3.16.0.dev1", "numpy==2.4.6", "tensorflow-cpu==2.22.0rc0")
NIGHTLY = ("keras-nightly==3.16.0.dev1", "numpy==2.4.6", "tf-nightly-cpu==2.23.0.dev20261101")
VENDOR = ("intel-tensorflow==2.14.0", "keras==2.14.0", "numpy==1.26.4")
RELEASED = {"tensorflow": "2.21.0", "keras": "3.15.1", "keras_package": "keras"}
FOR_CPUS = {"is_cuda_build": "False", "is_rocm_build": "False"}
FOR_GPUS = {"is_cuda_build": "True", "is_rocm_build": "False"}


@pytest.mark.parametrize(
    ("lock", "versions", "axis"),
    [
        (RELEASE, RELEASED, SAME_KERAS),
        (RELEASE, {}, SAME_KERAS),
        (CANDIDATE, {}, OTHER_KERAS),
        (NIGHTLY, {}, OTHER_KERAS),
        (VENDOR, {}, OTHER_KERAS),
        (RELEASE, {**RELEASED, "keras": "3.16.0.dev1"}, OTHER_KERAS),
        (CANDIDATE, {**RELEASED, "tensorflow": "2.22.0-rc0"}, SAME_KERAS),
        ((), {}, SAME_KERAS),  # not built: unknown
    ],
)
def test_another_keras_is_another_axis(
    lock: tuple[str, ...], versions: Mapping[str, Any], axis: str
) -> None:
    """The imported modules decide; before any import the lock does."""
    baseline = Side("", "2.21.0", lock=RELEASE)
    assert differs_in(Side("", "", versions, lock), baseline) == axis
    told = replace(baseline, versions=RELEASED)
    assert differs_in(Side("", "", versions, lock), told) == axis


def test_candidates_are_in_order_of_their_modules_versions() -> None:
    """Nightly, release candidate, release; locks for environments without a run."""
    sides = [
        Side("tensorflow-cpu==9.0", "tensorflow-cpu==9.0", problem="no such version"),
        Side("", "", {"tensorflow": "2.22.0"}),
        Side("", "", lock=CANDIDATE),
        Side("", "", {"tensorflow": "2.22.0-dev20261001"}, NIGHTLY),
        Side("", "", lock=VENDOR),
        Side("", "", RELEASED, ("our-build==1.0",)),
    ]
    results = synthetic.results({LOOP: [0.0] * 4})
    order = version_order(replace(results, candidates=tuple(sides)))
    assert order == [4, 5, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("lock", "build", "told"),
    [
        (RELEASE, FOR_CPUS, False),
        (RELEASE, None, False),
        (NIGHTLY, FOR_CPUS, False),
        (NIGHTLY, None, False),
        (VENDOR, FOR_CPUS, False),
        (VENDOR, None, False),
        (("our-build==1", *RELEASE[:2]), FOR_CPUS, False),
        (("our-build==1", *RELEASE[:2]), FOR_GPUS, True),
        (("tensorflow==2.21.0", *RELEASE[:2]), FOR_GPUS, True),
        (("tensorflow==2.21.0", *RELEASE[:2]), None, True),
        (("tensorflow==2.21.0", *RELEASE[:2]), FOR_CPUS, False),  # a custom build
        (RELEASE, FOR_GPUS, True),
    ],
)
def test_one_side_with_gpu_support_is_noted(
    lock: tuple[str, ...], build: Mapping[str, str] | None, told: bool
) -> None:
    """By the build information, or by the package name before a worker has run."""
    results = synthetic.results({LOOP: [0.0] * 4})
    baseline = replace(results.baseline, versions={**RELEASED, "build": FOR_CPUS}, lock=RELEASE)
    candidate = Side("", "other", {"build": build} if build else {}, lock)
    found = notes(replace(results, baseline=baseline, candidates=(candidate,)))
    assert [note for note in found if "GPUs" in note] == [
        "other: one side has TensorFlow for CPUs only, the other the larger one for GPUs too, "
        "which takes more memory."
    ] * told


def test_the_table_of_versions_has_the_imported_versions() -> None:
    candidate = Side("tensorflow-cpu==2.22.0rc0", "", {**RELEASED, "tensorflow": "2.22.0-rc0"})
    baseline = Side("intel-tensorflow", "", {"tensorflow": "2.14.0", "keras": "2.14.0"})
    assert version_rows(baseline, candidate)[2:] == [
        ("TensorFlow", "2.14.0", "2.22.0-rc0"),
        ("Keras", "2.14.0", "3.15.1"),
        ("Keras's package", "not known", "keras"),
    ]


def test_an_earlier_build_in_place_of_todays_is_told() -> None:
    results = synthetic.results({LOOP: [0.0] * 4})
    side = replace(results.candidates[0], note="the index could not be reached; ...")
    told = f"{side.label}: the index could not be reached; ...."
    results = replace(results, candidates=(side,))
    assert told in notes(results)
    assert told in table_text(results, decide(results))


@pytest.mark.parametrize(
    ("versions", "days"),
    [
        ({"tensorflow": "2.23.0-dev20261026"}, "2026-10-26 was 27 days"),
        ({"tensorflow": "2.23.0-dev20261121"}, "2026-11-21 was 1 day"),
        ({"tensorflow": "2.23.0-dev0", "tensorflow_built": "2026-11-22"}, "2026-11-22 was 0 days"),
        ({"tensorflow": "2.22.0-rc0"}, ""),
    ],
)
def test_the_age_of_a_nightly_build_is_told(versions: Mapping[str, str], days: str) -> None:
    results = synthetic.results({LOOP: [0.0] * 4})
    side = replace(results.candidates[0], versions=versions)
    results = replace(results, candidates=(side,))
    told = f"{side.label}: the nightly build of {days} old when it was measured."
    assert [note for note in notes(results) if "nightly" in note] == [told] * bool(days)
    summary = summary_text(results, decide(results), false_alarms="none")
    assert (told in " ".join(summary.split())) == bool(days)


def test_a_problem_of_several_lines_keeps_its_layout() -> None:
    """In notes of the terminal's table; findings have it in one line."""
    said = (
        "tensorflow-cpu==9: cannot be resolved\n  error: No solution found\n    cause: no version"
    )
    missing = Side("tensorflow-cpu==9", "tensorflow-cpu==9", problem=said)
    results = replace(synthetic.results({LOOP: [0.0] * 4}), candidates=(missing,), blocks=())
    decisions = decide(results)
    shown = table_text(results, decisions)
    told = f"- tensorflow-cpu==9 is not there: {said}".splitlines()
    lines = shown.splitlines()
    assert lines[1:4] == [told[0], *(f"  {line}" for line in told[1:])]
    line = in_one_line(said)
    assert line.endswith("cannot be resolved error: No solution found cause: no version")
    assert line in decisions[0].finding
