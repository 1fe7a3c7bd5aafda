"""Head of an accuracy report: verdict, seeds, flipped images; everything escaped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.records.sides import Side
from bench.records.trainings import Comparison, Trained, Trainings
from bench.report.accuracy import accuracy_html, accuracy_table, how_measured, notes
from bench.report.accuracy_plots import losses_figure
from bench.verdicts.accuracy import decide_all
from lenet5.data import Subset
from lenet5.recipes import find_recipe

TEST = Subset(
    np.random.RandomState(0).randint(0, 256, (200, 28, 28, 1)).astype(np.uint8),
    (np.arange(200) % 10).astype(np.uint8),
)
RECIPE = find_recipe("fast").with_overrides({"min_accuracy": 0.5})
PAIRED = Comparison(0.15, paired=True, beside=True)


def trainings(label: str, wrong_image: int) -> Trainings:
    """Ten seeds that each get one individual image and one common image wrong."""
    seeds = []
    for seed in range(10):
        digits = TEST.labels.copy()
        digits[[seed + 100, wrong_image]] += 1
        text = "".join(str(digit % 10) for digit in digits)
        seeds.append(Trained(seed, 2, 200, text, train_seconds=8.5, best_epoch=6, epochs=6))
    return Trainings(
        RECIPE, "graph", "", "", Side("", label), {"cpu": "a processor"}, "", tuple(seeds)
    )


@pytest.fixture
def sets() -> list[Trainings]:
    return [trainings("2.15.1", 7), trainings("<b>mine</b>", 9)]


@pytest.mark.parametrize("paired", [True, False])
def test_the_page_has_verdict_seeds_and_flips(sets: list[Trainings], paired: bool) -> None:
    decisions = decide_all(sets, replace(PAIRED, paired=paired))
    page = accuracy_html(sets, decisions, TEST, paired=paired)
    assert "PASS: accuracy[fast]: &lt;b&gt;mine&lt;/b&gt; loses 0.000 points" in page
    assert f"10 seeds, {'paired' if paired else 'unpaired'}, engine graph" in page
    assert "<b>mine" not in page
    assert "1 images lost and 1 gained in at least 8 of 10 seeds" in page
    assert page.count('src="data:image/png;base64,') == 3
    assert "PASS: accuracy[fast] of &lt;b&gt;mine&lt;/b&gt; against 2.15.1" in page
    assert "<tr><th>Engine</th><td>graph</td></tr>" in page
    assert "<tr><th>CPU</th><td>a processor</td></tr>" in page


def test_each_candidate_has_a_table_of_environments(sets: list[Trainings]) -> None:
    """The table has the baseline's environment and the differing packages."""
    other = Side("tensorflow-cpu==2.20.0", "2.20.0", {"keras": "3.11.2"}, ("keras==3.11.2",))
    sets = [sets[0], replace(sets[1], side=other), sets[1]]
    page = accuracy_html(sets, decide_all(sets, PAIRED), TEST, paired=True)
    assert "PASS: accuracy[fast] of 2 candidates against 2.15.1: 2 PASS of 2 candidates" in page
    assert '<th>Request</th><td class=""></td><td class="">tensorflow-cpu==2.20.0</td>' in page
    assert '<th>keras</th><td class=""></td><td class="">3.11.2</td>' in page


def test_the_table_has_one_row_per_side(sets: list[Trainings]) -> None:
    baseline, candidate = accuracy_table(sets, decide_all(sets, PAIRED)).rows
    assert baseline == ("2.15.1", "baseline", "99.000 ± 0.000", "", "", "10", "", "8.5")
    assert candidate[1:] == (
        *("PASS", "99.000 ± 0.000", "+0.000", "+0.000 to +0.000", "10", "0.150", "8.5"),
    )


def test_losses_are_drawn_with_their_intervals_and_the_margin(sets: list[Trainings]) -> None:
    worse = replace(sets[1], seeds=tuple(replace(t, wrong=3 + t.seed % 2) for t in sets[1].seeds))
    (decision,) = decide_all([sets[0], worse], PAIRED)
    axes: Any = losses_figure([sets[0], worse], [decision]).axes[0]
    interval, point = axes.lines[:2]
    assert list(interval.get_xdata()) == [decision.low, decision.high]
    assert list(point.get_xdata()) == [decision.difference]
    assert axes.patches[0].get_x() == 0.15
    assert axes.get_xlim()[1] > decision.high


def test_a_report_without_seeds_has_an_empty_row(sets: list[Trainings]) -> None:
    nothing = [replace(item, seeds=()) for item in sets]
    decisions = decide_all(nothing, PAIRED)
    assert "INCONCLUSIVE" in accuracy_html(nothing, decisions, TEST, paired=True)


def test_an_earlier_build_in_place_of_todays_is_told() -> None:
    sets = [trainings("one", 3), trainings("other", 4)]
    side = replace(sets[1].side, note="the index could not be reached")
    sets[1] = replace(sets[1], side=side)
    assert notes(sets) == ["other: the index could not be reached."]
    page = accuracy_html(sets, decide_all(sets, PAIRED), TEST, paired=True)
    assert "other: the index could not be reached." in page


def test_the_age_of_a_nightly_build_is_told(sets: list[Trainings]) -> None:
    side = Side("tf-nightly", "2.23.0.dev20261026", {"tensorflow": "2.23.0-dev20261026"})
    sets[1] = replace(sets[1], side=side, started="2026-11-27T12:00:00+00:00")
    told = (
        "2.23.0.dev20261026: the nightly build of 2026-10-26 was 32 days old when it was measured."
    )
    assert notes(sets) == [told]
    assert told in accuracy_html(sets, decide_all(sets, PAIRED), TEST, paired=True)


H200 = {"cpu": "a processor", "gpu": {"model": "NVIDIA H200", "driver": "550.90.07"}}


def test_the_page_names_the_devices_and_the_gpu(sets: list[Trainings]) -> None:
    """A reference of CPUs may stand beside seeds of a GPU."""
    baseline, candidate = sets
    on_gpu = replace(candidate, machine=H200)
    for both, told in (
        ([baseline, candidate], "CPUs only: GPUs are hidden from TensorFlow"),
        ([baseline, on_gpu], "the CPU (reference), NVIDIA H200 (candidates)"),
        ([replace(baseline, machine=H200), on_gpu], "NVIDIA H200"),
    ):
        rows = dict(how_measured(both, paired=True))
        assert rows["Devices"] == told
        assert rows.get("GPU") == (
            None if both[1] is candidate else "model=NVIDIA H200, driver=550.90.07"
        )
