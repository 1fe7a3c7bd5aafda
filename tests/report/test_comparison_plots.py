"""Plots of a comparison show its numbers, at a readable size and without cut labels."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.image import imread
from matplotlib.text import Text

from bench.records.blocks import CANDIDATE, Failure, Results
from bench.records.sides import Side
from bench.report import comparison_plots, version_plots
from bench.report.charts import COLOURS, png_of
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import Decision, decide
from tests import synthetic
from tests.synthetic import GROWTH, LOOP, PEAK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONG = "a workload with a very long name " * 6
TERMS = synthetic.terms()
PROCESS = replace(synthetic.terms(1.25), steps=0)
MEMORY = replace(synthetic.terms(1.1, unit="MiB"), steps=0)


def compared(
    ratios: Sequence[float] = (1.0,), *, blocks: int = 4, workloads: Sequence[str] = (LOOP,)
) -> Results:
    """A comparison with one candidate per ratio and that ratio in all of its workloads."""
    drawn = np.random.RandomState(0)
    versions = [f"2.{place + 1}.0" for place in range(len(ratios))]
    measured = []
    for number in range(blocks):
        for candidate, ratio in enumerate(ratios):
            middle = math.log(ratio) + float(drawn.normal(0, 0.002))
            samples = {
                name: synthetic.samples_of(list(middle + drawn.normal(0, 0.02, 20)), TERMS)
                for name in workloads
            }
            measured.append(synthetic.block_of(number, samples, candidate=candidate))
    return synthetic.results_of(
        measured,
        dict.fromkeys(workloads, TERMS),
        candidates=[Side(f"tensorflow-cpu=={v}", v, {"tensorflow": v}) for v in versions],
    )


def several() -> Results:
    """Gated and informational slices, whole processes and a difference."""
    workloads = {
        LOOP: synthetic.terms(),
        "fit[b128]": synthetic.terms(1.05, gated=False),
        "fit[b32]": synthetic.terms(),
        "import": PROCESS,
        PEAK: MEMORY,
        GROWTH: synthetic.growth_terms(),
    }
    values = {
        LOOP: synthetic.exactly(math.log(1.1), 0.002, 4),
        "fit[b128]": synthetic.exactly(0.0, 0.002, 4),
        "fit[b32]": synthetic.exactly(0.0, 0.002, 4),
        "import": synthetic.exactly(0.2, 0.1, 4),
        PEAK: synthetic.exactly(0.0, 0.01, 4),
        GROWTH: synthetic.exactly(0.01, 0.001, 4),
    }
    return synthetic.results(values, workloads, pair_deviation=0.02)


def forest(results: Results, candidate: int = 0) -> Figure:
    return comparison_plots.forest_figure(decide(results), results, candidate)


def versions(results: Results, workload: str = LOOP) -> Figure:
    return version_plots.versions_figure(decide(results), results, workload)


def words(figure: Figure) -> list[str]:
    texts: list[Any] = figure.findobj(Text)
    return [text.get_text() for text in texts if text.get_text()]


def markers(axes: Axes, marker: str) -> list[Any]:
    return [line for line in axes.lines if line.get_marker() == marker]


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height of a picture, after a check that it is not blank."""
    picture = imread(io.BytesIO(png))
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20
    return picture.shape[1], picture.shape[0]


# All plots


def test_pictures_are_as_wide_as_the_report_and_not_blank() -> None:
    """1050 pixels; the height depends on the content."""
    results = several()
    decisions = decide(results)
    assert size_of(png_of(comparison_plots.forest_figure, decisions, results, 0)) == (1050, 329)
    assert size_of(png_of(comparison_plots.samples_figure, results, LOOP)) == (1050, 265)
    assert size_of(png_of(version_plots.versions_figure, decisions, results, LOOP)) == (1050, 420)


def test_pictures_neither_use_nor_change_a_users_settings() -> None:
    results = several()
    plain = png_of(comparison_plots.samples_figure, results, LOOP)
    with matplotlib.rc_context({"savefig.dpi": 50, "font.size": 20, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        again = png_of(comparison_plots.samples_figure, results, LOOP)
        assert dict(matplotlib.rcParams) == before
    assert again == plain


def test_dollars_in_a_label_are_not_parsed_as_math() -> None:
    """Labels of environments are plain text."""
    results = compared((1.0, 1.1))
    sides = (Side("x", "$\\frac{$"), Side("y", "$x_$"))
    results = replace(results, candidates=sides, baseline=Side("z", "$^$"))
    decisions = decide(results)
    size_of(png_of(comparison_plots.forest_figure, decisions, results, 0))
    size_of(png_of(comparison_plots.samples_figure, results, LOOP))
    size_of(png_of(version_plots.versions_figure, decisions, results, LOOP))


def long_names() -> Results:
    results = compared((1.0, 1.1), workloads=(LONG, LONG[::-1]))
    sides = tuple(replace(side, label=f"{side.label} {LONG}") for side in results.candidates)
    return replace(results, candidates=sides, baseline=Side("x", LONG))


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda: forest(several()), id="forest"),
        pytest.param(lambda: forest(compared(blocks=1)), id="forest-no-look"),
        pytest.param(lambda: forest(compared((8.0,))), id="forest-far"),
        pytest.param(lambda: forest(long_names()), id="forest-long-names"),
        pytest.param(lambda: comparison_plots.samples_figure(several(), LOOP), id="samples"),
        pytest.param(
            lambda: comparison_plots.samples_figure(several(), GROWTH), id="samples-difference"
        ),
        pytest.param(
            lambda: comparison_plots.samples_figure(long_names(), LONG), id="samples-long-names"
        ),
        pytest.param(
            lambda: comparison_plots.samples_figure(compared(blocks=40), LOOP), id="samples-40"
        ),
        pytest.param(lambda: versions(compared((1.0,) * 15)), id="versions"),
        pytest.param(lambda: versions(compared((1.0, 9.0, 0.1, 1.0, 1.0))), id="versions-far"),
        pytest.param(lambda: versions(long_names(), LONG), id="versions-long-names"),
        pytest.param(lambda: versions(several(), GROWTH), id="versions-difference"),
    ],
)
def test_the_figures_edge_cuts_nothing_off(draw: Any) -> None:
    """Labels outside the axes are inside the picture."""
    figure = draw()
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert width == 10.5
    assert -0.01 <= box.x0 < box.x1 <= width + 0.01
    assert -0.01 <= box.y0 < box.y1 <= height + 0.01


# Forest


def test_forest_has_a_panel_for_slices_and_one_for_whole_processes() -> None:
    """Gated workloads are first; a difference is no ratio and is omitted."""
    slices, processes = forest(several()).axes
    names = [[label.get_text() for label in axes.get_yticklabels()] for axes in (slices, processes)]
    assert names == [[LOOP, "fit[b32]", "fit[b128] (informational)"], ["import", PEAK]]
    assert slices.get_xscale() == "log"


def test_forest_draws_each_margin_and_equality() -> None:
    """Margins are dashed and as high as their workload's row."""
    for axes, expected in zip(
        forest(several()).axes, ([1.03, 1.03, 1.05], [1.25, 1.1]), strict=True
    ):
        dashed: list[Any] = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert [line.get_xdata()[0] for line in dashed] == expected
        assert [list(line.get_ydata()) for line in dashed] == [
            [y - 0.5, y + 0.5] for y in range(len(expected))
        ]
        assert any(list(line.get_xdata()) == [1, 1] for line in axes.lines)  # type: ignore[arg-type]


def test_forest_shows_the_verdict_by_colour_marker_and_word() -> None:
    """Colour vision is not required."""
    results = several()
    decisions = {d.workload: d for d in decide(results)}
    slices, processes = forest(results).axes

    (fail,) = markers(slices, "X")
    loop = decisions[LOOP]
    assert (*fail.get_xdata(), *fail.get_ydata()) == (loop.ratio, 0)
    assert same_color(fail.get_color(), COLOURS[Verdict.FAIL])
    assert len(markers(slices, "o")) == 2
    (open_question,) = markers(processes, "D")
    assert open_question.get_ydata() == [0]
    found = [text.get_text() for text in slices.texts]
    assert found[:3] == ["FAIL", f"{loop.ratio:.3f} ({loop.low:.3f}-{loop.high:.3f})", "1.03"]


def test_forest_before_the_first_look_has_a_hollow_marker_and_no_line() -> None:
    """A missing interval is not drawn."""
    (axes,) = forest(compared(blocks=1)).axes
    (marker,) = markers(axes, "D")
    assert marker.get_fillstyle() == "none"
    assert "INCONCLUSIVE" in [text.get_text() for text in axes.texts]
    assert any("none yet" in text.get_text() for text in axes.texts)


def test_forest_labels_an_unmeasured_workload() -> None:
    results = synthetic.results({LOOP: [None], "fit[b32]": [0.0]})
    (axes,) = forest(results).axes
    assert [text.get_text() for text in axes.texts][:2] == ["INCONCLUSIVE", "not measured"]


def test_forest_shows_far_values_as_arrows() -> None:
    """A workload with eight times the duration does not hide the others."""
    values = {name: [0.001, 0.0, -0.001, 0.0] for name in (LOOP, "fit[b32]", "predict[b512]")}
    values["fit_call"] = [math.log(8)] * 4
    (axes,) = forest(synthetic.results(values)).axes
    _, high = axes.get_xlim()
    assert high < 1.1
    assert all(line.get_xdata() == [high] for line in markers(axes, ">"))
    assert "8.000" in " ".join(text.get_text() for text in axes.texts)


def test_forest_without_ratios_says_so() -> None:
    results = synthetic.results({GROWTH: [0.01] * 4}, {GROWTH: synthetic.growth_terms()})
    assert words(forest(results)) == ["No workload was compared by its ratio"]


# Samples


def test_samples_are_dots_in_their_blocks_and_blocks_are_markers() -> None:
    """Every pair is drawn; the marker is the value used by the verdict."""
    results = synthetic.results({LOOP: [0.1, 0.2, 0.15, 0.1]}, pair_deviation=0.01, pairs=20)
    (axes,) = comparison_plots.samples_figure(results, LOOP).axes

    dots = [(x, y) for line in markers(axes, ".") for x, y in zip(*line.get_data(), strict=True)]
    assert len(dots) == 80
    assert all(0 < x < 4 for x, _ in dots)
    blocks = [line.get_data() for line in markers(axes, "D")]
    assert [x for (x,), _ in blocks] == [0.5, 1.5, 2.5, 3.5]
    expected = [math.exp(x) for x in (0.1, 0.2, 0.15, 0.1)]
    assert [y for _, (y,) in blocks] == pytest.approx(expected, rel=0.01)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["1\n12:00", "2\n12:00", "3\n12:00", "4\n12:00"]


def test_a_stall_is_a_triangle_at_the_edge() -> None:
    """A slice of ten times the length does not squeeze the others."""
    results = synthetic.results({LOOP: [0.0] * 4}, pair_deviation=0.01, pairs=30)
    stalled = list(results.blocks)
    stalled[2] = synthetic.block_of(
        2, {LOOP: synthetic.samples_of([0.01, -0.01] * 14 + [2.3, 0], TERMS)}
    )
    (axes,) = comparison_plots.samples_figure(replace(results, blocks=tuple(stalled)), LOOP).axes
    _, high = axes.get_ylim()
    assert high < 1.2
    assert [x for line in markers(axes, "^") for x in line.get_ydata()] == [high]


def test_disturbed_and_failed_blocks_are_named() -> None:
    """A disturbed block has a hollow marker, a failed one none."""
    samples = {LOOP: synthetic.samples_of([0.0] * 10, TERMS)}
    blocks = [
        synthetic.block_of(0, samples),
        synthetic.block_of(1, samples, disturbed=("noise",)),
        synthetic.block_of(2, {}, [Failure(CANDIDATE, LOOP, "killed by signal 9")]),
        synthetic.block_of(3, {}, [Failure(CANDIDATE, "fit[b32]", "killed by signal 9")]),
    ]
    results = synthetic.results_of(blocks, {LOOP: synthetic.terms()})
    (axes,) = comparison_plots.samples_figure(results, LOOP).axes
    notes = {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert (notes["disturbed"], notes["failed"]) == (1.5, 2.5)
    assert axes.get_xlim() == (0, 3)
    assert [line.get_fillstyle() for line in markers(axes, "D")][:2] == ["full", "none"]


def test_each_candidate_has_a_panel_even_without_samples() -> None:
    results = compared((1.0, 1.1))
    lone = replace(results, blocks=tuple(b for b in results.blocks if b.candidate == 0))
    first, second = comparison_plots.samples_figure(lone, LOOP).axes
    assert first.get_title(loc="left") == f"{LOOP}: 2.1.0 against 2.15.1"
    assert [text.get_text() for text in second.texts] == ["nothing was measured"]


def test_a_workload_without_samples_says_so() -> None:
    results = synthetic.results({LOOP: [0.0], "fit[b32]": [None]})
    assert words(comparison_plots.samples_figure(results, "fit[b32]")) == [
        "fit[b32]: nothing was measured"
    ]


# Versions


def test_versions_are_in_order_and_include_the_baseline() -> None:
    """2.9 is before 2.15, rc before its release; the baseline is at 1."""
    results = compared((1.15, 1.1, 1.0, 0.9, 0.95))
    names = ("2.21.0", "2.9.1", "2.21.0rc1", "2.15.1", "2.21.0+mine")
    sides = tuple(Side(name, name, {"tensorflow": name}) for name in names)
    results = replace(results, candidates=sides)
    (axes,) = versions(results).axes

    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["2.9.1", "2.15.1", "2.15.1", "2.21.0rc1", "2.21.0", "2.21.0+mine"]
    weights = [label.get_fontweight() for label in axes.get_xticklabels()]
    assert weights.count("bold") == 1
    (baseline,) = markers(axes, "s")
    assert baseline.get_data() == ([weights.index("bold")], [1.0])
    shown = {
        line.get_xdata()[0]: line.get_ydata()[0]
        for marker in "oXD"
        for line in markers(axes, marker)
    }
    assert shown[0] == pytest.approx(1.1, abs=0.01)
    assert shown[4] == pytest.approx(1.15, abs=0.01)


def test_an_environment_without_a_build_has_a_position() -> None:
    """Its request determines the position, with the note "no result"."""
    results = compared((1.0, 1.0))
    absent = Side("tensorflow-cpu==2.1.5", "tensorflow-cpu==2.1.5", problem="no such version")
    results = replace(results, candidates=(*results.candidates, absent))
    (axes,) = versions(results).axes
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["2.1.0", "tensorflow-cpu==2.1.5", "2.2.0", "2.15.1"]
    (note,) = [text for text in axes.texts if text.get_text() == "no result"]
    assert note.get_position()[0] == 1


def test_versions_have_a_legend_of_verdicts_and_ratios_at_the_points() -> None:
    (axes,) = versions(compared((1.0, 1.2))).axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["PASS", "FAIL"]
    numbers = [text.get_text() for text in axes.texts]
    assert {"margin 1.03", "equal"} < set(numbers)
    assert sum(text.startswith("1.2") for text in numbers) == 1


def test_names_of_many_versions_do_not_overlap() -> None:
    """They are slanted, so that the upper ends of their boxes are apart."""
    figure = versions(compared((1.0,) * 15))
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    assert {label.get_rotation() for label in labels} == {30.0}
    ends = [label.get_window_extent().x1 for label in labels]
    assert min(np.diff(ends)) > 20


def test_names_of_many_versions_with_their_keras_do_not_overlap() -> None:
    """TensorFlow, Keras's package and its version have a line each."""
    results = compared((1.0,) * 8)
    sides = [
        Side("", f"2.{minor}.1 + tf-keras 2.{minor}.1", {"tensorflow": f"2.{minor}.1"})
        for minor in range(10, 18)
    ]
    legacy = [replace(side, settings={"TF_USE_LEGACY_KERAS": "1"}) for side in sides[:4]]
    figure = versions(replace(results, candidates=(*legacy, *sides[4:])))
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert len(boxes) >= 4
        assert all(one.x1 < next_.x0 for one, next_ in pairwise(boxes))


def test_axes_of_versions_have_separate_panels() -> None:
    """TensorFlow with the baseline's Keras, other Kerases, settings: in common columns."""
    results = compared((1.1, 1.2, 0.9, 1.3))
    new, old = "2.21.0", "2.20.0"
    sides = (
        Side("", old, {"tensorflow": old, "keras": "3.15.1"}),
        Side("", f"{new} + Keras 3.9", {"tensorflow": new, "keras": "3.9"}),
        Side("", f"{old} + Keras 3.9", {"tensorflow": old, "keras": "3.9"}),
        Side("", f"{old} + tf-keras", {"tensorflow": old}, settings={"TF_A": "1"}),
    )
    baseline = Side("", new, {"tensorflow": new, "keras": "3.15.1"})
    same, other, setting = versions(replace(results, baseline=baseline, candidates=sides)).axes
    assert [axes.get_title(loc="left") for axes in (same, other, setting)] == [
        f"{LOOP}: the baseline's Keras",
        f"{LOOP}: other versions of Keras",
        f"{LOOP}: with TF_A=1",
    ]
    assert [[label.get_text() for label in axes.get_xticklabels()] for axes in (same, other)] == [
        [old, new],
        [f"{old}\n+ Keras 3.9", f"{new}\n+ Keras 3.9"],
    ]
    assert [len(markers(axes, "s")) for axes in (same, other, setting)] == [1, 0, 0]
    (faster,) = markers(other, "o")
    assert faster.get_xdata()[0] == 0  # 2.20.0's column
    assert {axes.get_ylim() for axes in (same, other, setting)} == {same.get_ylim()}


def test_environments_of_one_axis_and_version_are_side_by_side() -> None:
    results = compared((1.0, 1.0, 1.0))
    held = {"tensorflow": "2.21.0", "keras": "3.9"}
    sides = tuple(Side("", f"{kind}", held) for kind in "abc")
    baseline = Side("", "2.21.0", {"tensorflow": "2.21.0", "keras": "3.15.1"})
    (axes,) = versions(replace(results, baseline=baseline, candidates=sides)).axes
    assert len(axes.get_xticklabels()) == 4


def test_versions_without_a_result_say_so() -> None:
    results = synthetic.results({LOOP: [None], "fit[b32]": [0.0]})
    decisions: list[Decision] = decide(results)
    assert words(version_plots.versions_figure(decisions, results, LOOP)) == [
        f"{LOOP}: nothing was measured"
    ]
