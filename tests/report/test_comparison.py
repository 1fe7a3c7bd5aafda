"""Text of a comparison: complete output of a small one, with everything escaped."""

# ruff: noqa: E501 - the expected texts are not wrapped
from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from bench.records.blocks import BASELINE, CANDIDATE, Failure, Results, Samples, SideSamples
from bench.records.sides import Side
from bench.report import charts
from bench.report.charts import png_of
from bench.report.comparison import comparison_html, summary_text, table_text
from bench.report.comparison_plots import samples_figure
from bench.report.versions import lock_differences
from bench.report.words import notes, overview
from bench.verdicts.speed import decide
from tests import synthetic
from tests.synthetic import GROWTH, LOOP, PEAK

HOSTILE = '<script>alert("1")</script> | `x` *y* [z](http://evil) \\ \n\n# next'
TERMS = synthetic.terms()
NOT_MEASURED = "not measured here"
OLD = {"python": "3.11.7", "tensorflow": "2.15.1", "keras": "2.15.0", "onednn": True}
NEW = {"python": "3.11.7", "tensorflow": "2.21.0", "keras": "3.12.0", "onednn": True}
BUILT = Side("tensorflow-cpu==2.21.0", "2.21.0", NEW, ("keras==3.12.0", "numpy==2.4.6"))
ABSENT = Side("tensorflow-cpu==9", "tensorflow-cpu==9", problem="no version of it <is> there")


TABLE = """\
FAIL: 2.21.0 against 2.15.1: 1 FAIL, 2 PASS of 3 gated workloads

workload               verdict         ratio                   interval  margin  blocks  pairs  totals  detects
train_step[loop,b128]  FAIL            1.100       1.092-1.105 (98.9 %)    1.03       4     40   1.100    3.2 %
fit[b32]               PASS            1.000       0.994-1.005 (98.8 %)    1.03       4     40   1.000    3.2 %
peak_memory            PASS, smaller   0.905       0.899-0.909 (98.8 %)     1.1       4     40   0.905   10.2 %
informational:
memory_growth (MiB)    PASS, bigger   +0.010  +0.008 to +0.012 (98.4 %)    0.05       4     40       -    0.051
- train_step[loop,b128]: 2.21.0 takes 1.100x the time of 2.15.1 (98.93 % interval 1.092-1.105, 4 blocks),
  margin 1.03
- memory_growth: 2.21.0 takes +0.010 MiB a call against 2.15.1 (98.4 % interval +0.008 to +0.012, 4 blocks),
  bigger, but within the margin 0.05

disturbed blocks: 1 of 5, 1 of them repeated
- 2.21.0, block 2, repeated: other processes used 12 % of the core"""


def small() -> Results:
    """A FAIL, a PASS, a faster workload, an informational difference, and a disturbed block."""
    workloads = {
        LOOP: synthetic.terms(),
        "fit[b32]": synthetic.terms(),
        PEAK: replace(synthetic.terms(1.1, unit="MiB"), steps=0),
        GROWTH: replace(synthetic.growth_terms(), gated=False, steps=0),
    }
    values = {
        LOOP: synthetic.exactly(math.log(1.1), 0.002, 4),
        "fit[b32]": synthetic.exactly(0.0, 0.002, 4),
        PEAK: synthetic.exactly(-0.1, 0.002, 4),
        GROWTH: synthetic.exactly(0.01, 0.001, 4),
    }
    results = synthetic.results(
        values,
        workloads,
        candidates=[BUILT],
        baseline=Side("tensorflow-cpu==2.15.1", "2.15.1", OLD, ("keras==2.15.0", "numpy==2.4.6")),
        options={"budget_seconds": 600, "threads": 1, "pinned": True, "seed": 0},
    )
    noisy = replace(results.blocks[1], disturbed=("other processes used 12 % of the core",))
    return replace(results, blocks=(results.blocks[0], noisy, *results.blocks[1:]))


def several() -> Results:
    """Two candidates, the newer one first, and one without a build."""
    results = small()
    older = replace(BUILT, label="2.20.0", versions={**NEW, "tensorflow": "2.20.0"})
    blocks = [replace(block, candidate=1) for block in results.blocks]
    candidates = (BUILT, older, ABSENT)
    return replace(results, candidates=candidates, blocks=(*results.blocks, *blocks))


def hostile() -> Results:
    """Results with hostile content in every text from outside."""
    results = small()
    side = Side(HOSTILE, HOSTILE, {"tensorflow": HOSTILE}, (f"{HOSTILE}==1",), {"TF_X": HOSTILE})
    failure = Failure(CANDIDATE, HOSTILE, HOSTILE, HOSTILE)
    blocks = [replace(b, failures=(failure,), disturbed=(HOSTILE,)) for b in results.blocks]
    renamed = {HOSTILE: results.workloads[LOOP]}
    return replace(
        results,
        baseline=replace(side, request=f"not {HOSTILE}", lock=()),
        candidates=(side, replace(side, problem=HOSTILE)),
        blocks=tuple(replace(b, samples={HOSTILE: b.samples[LOOP]}) for b in blocks),
        workloads=renamed,
        machine={HOSTILE: HOSTILE},
        options={HOSTILE: HOSTILE},
        started=HOSTILE,
        code=HOSTILE,
    )


class Page(HTMLParser):
    """Content of a report.

    Attributes:
        words: text, with single spaces.
        tags: names of the start tags.
        pictures: pictures by alternative text.
        opened: summaries of unfolded sections.
        marked: texts of cells and paragraphs by class.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pictures: dict[str, bytes] = {}
        self.opened: list[str] = []
        self.marked: dict[str, list[str]] = {}
        self._parts: list[str] = []
        self._class = ""
        self._opens = False
        self.feed(html)
        self.words = " ".join(" ".join(self._parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects the tag, its picture and its class."""
        attributes = dict(attrs)
        self.tags.append(tag)
        self._class = attributes.get("class") or ""
        if tag == "img":
            head, _, content = str(attributes["src"]).partition(",")
            assert head == "data:image/png;base64"
            self.pictures[str(attributes["alt"])] = base64.b64decode(content, validate=True)
        if tag == "details":
            self._opens = "open" in attributes

    def handle_data(self, data: str) -> None:
        """Collects text."""
        if self.cdata_elem is not None or not data.strip():
            return
        self._parts.append(data)
        if self._class:
            self.marked.setdefault(self._class, []).append(data)
        if self._opens:
            self.opened.append(data)
            self._opens = False


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Requested figures; none of them is drawn."""
    asked: list[tuple[Any, ...]] = []

    def draw(figure: Callable[..., object], *arguments: object) -> bytes:
        asked.append((figure.__name__.removesuffix("_figure"), arguments[-1]))
        return b"PNG"

    monkeypatch.setattr(charts, "png_of", draw)
    return asked


def page(results: Results, false_alarms: str = NOT_MEASURED) -> Page:
    return Page(comparison_html(results, decide(results), false_alarms=false_alarms))


def summary(results: Results, false_alarms: str = NOT_MEASURED) -> str:
    return summary_text(results, decide(results), false_alarms=false_alarms)


def table(results: Results) -> str:
    return table_text(results, decide(results))


# The terminal


def test_the_whole_table() -> None:
    """Columns are aligned; findings below cover every decision except a plain PASS."""
    assert table(small()) == TABLE


def test_the_overview_has_a_row_per_candidate_and_marks_proven_changes() -> None:
    """Faster, equal, slower beyond the margin, slower within it, and not measured."""
    ratios = (0.9, 1.0, 1.1, 1.02)
    blocks = [
        synthetic.block_of(
            number,
            {LOOP: synthetic.samples_of([math.log(ratio) + 0.002 * (number % 2)] * 4, TERMS)},
            candidate=candidate,
        )
        for number in range(4)
        for candidate, ratio in enumerate(ratios)
    ]
    sides = [Side("", f"2.{place}", {"tensorflow": f"2.{place}"}) for place in range(5)]
    results = synthetic.results_of(blocks, {LOOP: TERMS}, candidates=sides)
    header, rows = overview(results, decide(results))
    assert header == ["", LOOP]
    assert [row[0] for row in rows] == ["2.0", "2.1", "2.2", "2.3", "2.4"]
    assert [row[1].partition(" ")[2] for row in rows] == ["↓", "", "↑ FAIL", "↑", ""]
    assert rows[4][1] == "-"


def test_the_table_of_several_candidates_is_in_order_of_version() -> None:
    """Each has a heading; a missing build is reported once."""
    lines = table(several()).splitlines()
    assert lines[0] == ("FAIL: 3 candidates against 2.15.1: 2 FAIL, 1 NOT THERE of 3 candidates")
    headings = [line for line in lines if line.endswith("gated workloads")]
    assert [line.partition(" against")[0] for line in headings] == [
        "tensorflow-cpu==9",
        "2.20.0",
        "2.21.0",
    ]
    assert sum("no version of it" in line for line in lines) == 1
    assert max(map(len, lines)) <= 111


def test_an_incomplete_comparison_says_so_first() -> None:
    """In the headline and in a note of table and summary."""
    results = replace(small(), complete=False)
    note = "INCOMPLETE: the comparison was interrupted after 5 blocks"
    assert table(results).startswith("INCOMPLETE, FAIL: 2.21.0 against 2.15.1")
    assert note in table(results)
    assert summary(results).startswith("## INCOMPLETE, FAIL: 2.21.0")
    assert f"\n- {note}" in summary(results)


def test_without_gated_workloads_there_is_no_verdict() -> None:
    results = synthetic.results({LOOP: [0.0] * 4}, {LOOP: synthetic.terms(gated=False)})
    assert table(results).startswith("NO VERDICT: 2.21.0 against 2.15.1: no gated workloads\n")


def test_a_missing_baseline_decides_nothing() -> None:
    baseline = replace(ABSENT, label="2.15.1")
    results = replace(small(), baseline=baseline, blocks=())
    assert table(results).splitlines()[:2] == [
        "NOT THERE: 2.21.0 against 2.15.1: 3 NOT THERE of 3 gated workloads",
        "- The baseline 2.15.1 is not there: no version of it <is> there",
    ]


def test_very_long_names_are_cut_in_the_table() -> None:
    results = synthetic.results({"a name " * 20: synthetic.exactly(0.0, 0.002, 4)})
    assert max(map(len, table(results).splitlines())) <= 111


def test_digits_of_an_interval_never_contradict_its_verdict() -> None:
    """Three digits as in the finding, or more if three would round to the margin."""
    results = synthetic.results({LOOP: synthetic.exactly(math.log(1.0296), 0.0001, 4)})
    (decision,) = decide(results)
    assert decision.verdict.value == "PASS"
    row = next(line for line in table(results).splitlines() if line.startswith(LOOP))
    assert float(row.split("-")[1].split()[0]) < 1.03


# The summary for a CI job's page


def test_the_whole_summary() -> None:
    """The headline, then the unchanged terminal table."""
    headline, *_ = TABLE.splitlines()
    rate = "False alarms of this machine: 0 FAIL in 200 replays."
    assert summary(small(), "false alarms on this machine: 0 FAIL in 200 replays") == (
        f"## {headline}\n\n```text\n{TABLE}\n\n{rate}\n```\n"
    )


def test_no_label_ends_the_heading_or_the_block_of_a_summary() -> None:
    """The fence is longer than any run of backticks; the heading has neither links nor markup."""
    results = replace(hostile(), baseline=Side("", f"`````\n````` {HOSTILE}"))
    heading, empty, fence, *lines, end = summary(results, HOSTILE).splitlines()
    assert (fence, empty, end) == ("``````text", "", "``````")
    assert not any(line.startswith(end) for line in lines)
    assert heading.startswith("## ")
    assert "\\<script\\>" in heading
    assert "\\[z\\](http" in heading
    assert "`" not in heading.replace("\\`", "")


def test_terminal_and_summary_contain_the_workers_last_output() -> None:
    """Once, unchanged, with its blocks."""
    failure = Failure(CANDIDATE, LOOP, "killed by signal 11", "Fatal Python error\n\n  <module>")
    blocks = [replace(block, failures=(failure,)) for block in small().blocks]
    results = replace(small(), blocks=tuple(blocks))
    told = (
        f"\n- 2.21.0, {LOOP}: killed by signal 11 (blocks 1, 2, 3, 4)\n"
        "    Fatal Python error\n\n      <module>\n"
    )
    assert told in f"{table(results)}\n"
    assert told in summary(results)


# HTML


def test_html_contains_the_whole_comparison(drawn: Sequence[tuple[Any, ...]]) -> None:
    """Verdict with its figures, terms, machine, environments and pictures."""
    shown = page(small(), "0 FAIL in 200 replays")
    assert shown.marked["headline fail"] == [
        "FAIL: 2.21.0 against 2.15.1: 1 FAIL, 2 PASS of 3 gated workloads"
    ]
    assert shown.marked["fail"] == ["FAIL"]
    assert shown.marked["pass"] == ["PASS", "PASS, smaller", "PASS, bigger"]
    for words in (
        f"{LOOP} FAIL 1.100 1.092-1.105 (98.9 %) 1.03 4 40 1.100",
        "7.5 ms/step",
        "False alarms of this machine: 0 FAIL in 200 replays.",
        "CPUs only: GPUs are hidden from TensorFlow",
        "one, pinned to one core",
        "600 s a candidate",
        "2026-11-22 12:00 UTC: 5 blocks in 1.7 min, complete",
        "1 of 5, 1 of them repeated",
        "2.21.0, block 2, repeated: other processes used 12 % of the core",
        "CPU a processor",
        "Keras 2.15.0 3.12.0",
        "oneDNN True True",
        "keras 2.15.0 3.12.0",
    ):
        assert words in shown.words
    assert drawn == [("forest", 0), *(("samples", name) for name in small().workloads)]
    assert set(shown.opened) == {LOOP, GROWTH}


def test_html_escapes_everything(drawn: Sequence[tuple[Any, ...]]) -> None:
    """Labels, requests, versions, locks, settings, failures, machine, options."""
    plain = page(small())
    shown = page(hostile(), HOSTILE)
    assert "script" not in shown.tags
    assert set(shown.tags) - set(plain.tags) <= {"pre", "b", "wbr"}
    assert shown.words.count('<script>alert("1")</script>') > 20
    assert drawn


def test_html_of_several_candidates_shows_workloads_by_version(
    drawn: Sequence[tuple[Any, ...]],
) -> None:
    """In order of version; with many candidates, passing ones are folded."""
    shown = page(several())
    names = list(small().workloads)
    assert drawn[:4] == [("versions", name) for name in names]
    assert [item for item in drawn if item[0] == "forest"] == [("forest", 1), ("forest", 0)]
    assert "tensorflow-cpu==9 is not there: no version of it <is> there" in shown.marked["note"]
    for words in (
        "tensorflow-cpu==9 against 2.15.1: 3 NOT THERE of 3 gated workloads",
        "2.20.0 against 2.15.1: 1 FAIL, 2 PASS of 3 gated workloads",
        "verdict NOT THERE FAIL FAIL",  # workloads are rows: there are more of them
        f"{LOOP} - 1.100 ↑ FAIL 1.100 ↑ FAIL",
    ):
        assert words in shown.words


def test_the_overview_has_candidates_as_rows_if_they_outnumber_workloads(
    drawn: Sequence[tuple[Any, ...]],
) -> None:
    results = several()
    results = replace(results, candidates=(*results.candidates, *[ABSENT] * 3))
    shown = page(results)
    assert "2.20.0 FAIL 1.100 ↑ FAIL 1.000 0.905 ↓ +0.010 ↑" in shown.words
    assert drawn


def test_failures_are_shown_with_the_workers_last_output(drawn: Sequence[tuple[Any, ...]]) -> None:
    """Once for all their blocks; failures of the baseline are labelled as such."""
    told = Failure(CANDIDATE, LOOP, "killed by signal 11", "Fatal Python error")
    start = Failure(BASELINE, "", "exit status 1", "ImportError")
    blocks = [synthetic.block_of(n, {}, [told]) for n in range(2)]
    blocks.append(synthetic.block_of(2, {}, [start]))
    shown = page(synthetic.results_of(blocks, {LOOP: synthetic.terms()}))
    assert f"2.21.0, {LOOP}: killed by signal 11 (blocks 1, 2) Fatal Python error" in shown.words
    words = "the baseline 2.15.1 (in blocks with 2.21.0), did not start: exit status 1 (block 3) ImportError"
    assert words in shown.words
    assert drawn


def test_a_side_that_computes_while_idle_is_named() -> None:
    """Above 5 % of the other side's time, and not below."""
    values, quiet, busy = (0.03,) * 4, (0.001,) * 4, (0.006,) * 4
    samples = Samples(SideSamples(values, (), quiet), SideSamples(values, (), busy))
    results = synthetic.results_of(
        [synthetic.block_of(0, {LOOP: samples})], {LOOP: synthetic.terms()}
    )
    assert (
        "- CPU used while the other side was timed, as a share of its time: 2.21.0 "
        f"({LOOP} 20 %).\n"
    ) in table(results)


def test_pictures_are_embedded_unchanged() -> None:
    """With the real plots, and without external resources."""
    results = small()
    html = comparison_html(results, decide(results), false_alarms=NOT_MEASURED)
    shown = Page(html)
    assert set(shown.pictures) == {
        "2.21.0: ratios and intervals",
        *(f"{name} over time" for name in results.workloads),
    }
    assert all(png.startswith(b"\x89PNG") for png in shown.pictures.values())
    assert shown.pictures[f"{LOOP} over time"] == png_of(samples_figure, results, LOOP)
    assert "http" not in html
    assert "link" not in shown.tags


# Locks


def test_identical_sides_are_reported_as_such(drawn: Sequence[tuple[Any, ...]]) -> None:
    """An environment against itself has no empty table."""
    results = small()
    same = replace(results, baseline=replace(results.candidates[0], label="2.21.0 again"))
    assert "Packages that differ: none" in page(same).words
    assert drawn


def test_lock_differences_are_by_name_with_blanks_for_absent() -> None:
    """Equal packages are omitted; a local wheel is identified by its hash."""
    baseline = ("keras==3.11.0", "ml-dtypes==0.5.1", "numpy==2.4.6", f"x==1.0 @ sha256:{64 * 'a'}")
    candidate = ("keras==3.12.0", "numpy==2.4.6", "protobuf==6.31.1", f"x==1.0 @ sha256:{64 * 'b'}")
    base, other = Side("", "", lock=baseline), Side("", "", lock=candidate)
    assert lock_differences(base, other) == [
        ("keras", "3.11.0", "3.12.0"),
        ("ml-dtypes", "0.5.1", ""),
        ("protobuf", "", "6.31.1"),
        ("x", "1.0 (wheel aaaaaaa)", "1.0 (wheel bbbbbbb)"),
    ]
    assert lock_differences(base, base) == []


CPU_ONLY = ("keras==3.15.1", "numpy==2.4.6", "tensorflow-cpu==2.21.0")
BOTH = ("keras==3.15.1", "numpy==2.4.6", "tensorflow==2.21.0")


@pytest.mark.parametrize(
    ("lock", "told"),
    [
        (CPU_ONLY, ""),
        (("keras==3.15.1", "numpy==2.4.6", "tf-nightly-cpu==2.22.0"), ""),
        (BOTH, "one side has TensorFlow for CPUs only, the other the larger one for GPUs too"),
        ((*CPU_ONLY, *(f"package{number}==1" for number in range(41))), "41 packages are on one"),
        ((), ""),
    ],
)
def test_environments_that_differ_in_more_than_the_version_are_named(
    lock: tuple[str, ...], told: str
) -> None:
    results = synthetic.results({LOOP: [0.0] * 4})
    baseline = replace(results.baseline, lock=CPU_ONLY)
    candidate = replace(results.candidates[0], lock=lock)
    found = notes(replace(results, baseline=baseline, candidates=(candidate,)))
    assert [told in note for note in found] == [True] * bool(told)
