"""Names of locks, wheels, workers and tests stay text: in terminal, HTML, Markdown, XML and PNG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench.plugin import judge
from bench.records import results as stored
from bench.records.blocks import CANDIDATE, Failure, Results
from bench.records.sides import Side
from bench.report import charts
from bench.report.accuracy import accuracy_html
from bench.report.accuracy_plots import losses_figure, seeds_figure
from bench.report.charts import png_of
from bench.report.comparison import comparison_html, summary_text, table_text
from bench.report.comparison_plots import forest_figure, samples_figure
from bench.report.pages import markdown, message_html, page_html
from bench.report.session import Gated, head_html
from bench.report.tables import Table
from bench.report.throughput import Throughput, throughput_figure
from bench.report.version_plots import versions_figure
from bench.verdicts.accuracy import decide_all
from bench.verdicts.outcomes import Outcome
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import decide
from tests import synthetic
from tests.report.test_accuracy_head import PAIRED, TEST, trainings
from tests.synthetic import LOOP

CONTROLS = "\x1b[2J\x1b]0;title\x07\r\x08\x9b\x00\u202e\ud800"
MARKUP = (
    '</style></title></script><script src="//host.invalid/a.js"></script>'
    '<img src="http://host.invalid/b.png" onerror="run()"><svg onload="run()">'
    "'\" onmouseover='run()' {{ 7 * 7 }} $\\frac{x$ ![c](http://host.invalid/d.png)"
)
HOSTILE = f"{MARKUP} {CONTROLS}"
_EXECUTED = {"script", "iframe", "object", "embed", "svg", "base", "link", "meta", "form"}


def hostile(text: str = HOSTILE) -> Results:
    """Results with hostile text in every name."""
    found = synthetic.results({LOOP: synthetic.exactly(0.0, 0.002, 4)})
    side = Side(text, text, {"tensorflow": text}, (f"{text}==1",), {"TF_X": text})
    failure = Failure(CANDIDATE, LOOP, text, text)
    blocks = [replace(b, failures=(failure,), disturbed=(text,)) for b in found.blocks]
    return replace(
        found,
        baseline=replace(side, problem=text, lock=()),
        candidates=(side, replace(side, note=text)),
        blocks=tuple(replace(b, samples={text: b.samples[LOOP]}) for b in blocks),
        workloads={text: found.workloads[LOOP]},
        machine={text: text},
        options={text: text},
        started=text,
        code=text,
    )


@pytest.fixture
def read(tmp_path: Path) -> Results:
    """The same, from a file."""
    path = tmp_path / "results.jsonl"
    stored.write(path, hostile())
    return stored.read(path)


class Tags(HTMLParser):
    """Start tags of a page with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects the tag."""
        self.tags.append((tag, dict(attrs)))


def check_harmless(html: str) -> None:
    """Nothing in a page of this project runs or is fetched."""
    tags = Tags(html).tags
    assert tags
    for tag, attributes in tags:
        allowed = tag == "meta" and list(attributes) == ["charset"]
        assert tag not in _EXECUTED or allowed, tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in {"src", "href", "srcset", "action", "data", "poster"} & set(attributes):
            assert re.match(r"data:image/png;base64,|#|[\w./-]+$", attributes[name] or ""), name


def check_visible(text: str) -> None:
    """A terminal shows the whole text and obeys none of it."""
    assert all(sign.isprintable() or sign in "\n\t" for sign in text)
    text.encode("utf-8")


def test_nothing_in_a_page_runs_or_is_fetched(
    read: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "png_of", lambda *_, **__: b"png")
    for results in (read, hostile()):
        head = comparison_html(results, decide(results), false_alarms=HOSTILE)
        html = page_html(HOSTILE, head)
        check_harmless(html)
        check_visible(html)
        assert html.count("&lt;script src=") > 20
        assert "{{ 7 * 7 }}" in html
    check_harmless(message_html(HOSTILE))


def test_nothing_in_other_pages_runs_or_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy over seeds, and the head of a session."""
    monkeypatch.setattr(charts, "png_of", lambda *_, **__: b"png")
    sets = [trainings(HOSTILE, 7), trainings(HOSTILE, 9)]
    model = Gated(HOSTILE, None, Path(HOSTILE), (0.5, 1.0), 0.9, HOSTILE, ())
    for html in (
        accuracy_html(sets, decide_all(sets, PAIRED), TEST, paired=True),
        head_html(
            {HOSTILE: HOSTILE},
            [model, model],
            [Throughput(HOSTILE, 32, 1, (1.0,))],
            findings=[HOSTILE, Table((HOSTILE,), [[HOSTILE]])],
            test_counts={HOSTILE: 1},
        ),
    ):
        check_harmless(html)
        check_visible(html)
        assert html.count("&lt;script src=") >= 2


def test_nothing_moves_the_terminal(read: Results) -> None:
    check_visible(table_text(read, decide(read)))
    check_visible(str(Table((HOSTILE,), [[HOSTILE, HOSTILE]])))


def test_a_summary_has_no_markup_links_or_controls(read: Results) -> None:
    """GitHub's own Markdown makes links of bare addresses and of names after @."""
    text = summary_text(read, decide(read), false_alarms="x")
    check_visible(text)
    heading = markdown(f"{HOSTILE} https://host.invalid www.host.invalid @name", "").splitlines()[0]
    check_visible(heading)
    assert not re.search(r"(?<!\\)[<>&\[\]`*_!@$]", heading.removeprefix("## "))
    assert not re.search(r"[^\\]://|www[^\\]", heading)


def test_charts_show_dollar_signs_and_controls_as_text(read: Results) -> None:
    """As a formula, the names would raise."""
    decisions = decide(read)
    (workload,) = read.workloads
    sets = [trainings(HOSTILE, 7), trainings(HOSTILE, 9)]
    for png in (
        png_of(forest_figure, decisions, read, 0),
        png_of(samples_figure, read, workload),
        png_of(versions_figure, decisions, read, workload),
        png_of(seeds_figure, sets, paired=True),
        png_of(losses_figure, sets, decide_all(sets, PAIRED)),
        png_of(throughput_figure, [Throughput(HOSTILE, 32, 1, (1.0,))]),
    ):
        assert png.startswith(b"\x89PNG")
    figure: Any = losses_figure(sets, decide_all(sets, PAIRED))
    (label,) = figure.axes[0].get_yticklabels()
    assert label.get_text().startswith("</style></title>")
    (dollars,) = (
        losses_figure([sets[0], trainings("a $b$", 9)], decide_all(sets, PAIRED))
        .axes[0]
        .get_yticklabels()
    )
    assert dollars.get_text() == "a $b$\nPASS"


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_a_finding_in_the_terminal_and_xml_is_visible(
    verdict: Verdict, pytester: pytest.Pytester
) -> None:
    said: dict[str, object] = {}
    with pytest.raises(pytest.fail.Exception) as caught:
        judge(Outcome(verdict, HOSTILE), said.__setitem__)
    check_visible(str(caught.value))
    check_visible(str(said["finding"]))
    pytester.makeini("[pytest]\naddopts =")
    pytester.makepyfile(
        f"""
        from bench.plugin import judge
        from bench.verdicts.outcomes import Outcome
        from bench.verdicts.sequential import Verdict
        def test_x(record_property):
            judge(Outcome(Verdict.{verdict.name}, {HOSTILE!r}), record_property)
        """
    )
    result = pytester.runpytest_inprocess("--junitxml=junit.xml", "-p", "no:benchmark")
    assert result.ret == 1
    check_visible("\n".join(result.outlines))
    properties = ET.parse(pytester.path / "junit.xml").iter("property")  # noqa: S314 - our own file
    assert str({item.get("name"): item.get("value") for item in properties}["finding"]).startswith(
        "</style>"
    )
