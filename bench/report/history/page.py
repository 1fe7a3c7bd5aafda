"""Page of a history: what is new and all latest levels as HTML, the rest drawn by its script.

Without script the page still names what is new and every latest level. Names come from results,
which are untrusted text: the templates escape them, and the script sets them as text only.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.records.blocks import WorkloadTerms
from bench.report.history.packing import label_of, packed, page_data
from bench.report.pages import render
from bench.report.tables import Table
from bench.verdicts.history.change_points import SMALLEST_SEGMENT, Level
from bench.verdicts.history.news import News, Standing, period
from bench.verdicts.history.penalties import FEWEST, nearest
from bench.verdicts.history.series import History, Series

MOST_SHOWN = 3  # tracks of a cell before all versions (others are folded), rates
NEW = (Standing.WORSE, Standing.BETTER, Standing.ACCEPTED)
_MARKS = {Standing.WORSE: "worse", Standing.BETTER: "better", Standing.ACCEPTED: "accepted"}
_TEMPLATES = Path(__file__).parents[1] / "templates"
_SCRIPTS = ("history_numbers.js", "history.js")
_HEADER = ("series", "latest level", "95 % interval", "runs", "state", "since")


@dataclass(frozen=True)
class Entry:
    """A series in a list of the page.

    Attributes:
        number: index in the page's data; series over versions follow the others.
        name: name of the series.
        short: track, or `by version`.
        level: newest level in words.
        standing: word for the style.
        told: standing in words.
        since: day of the newest level's first run, if its step is new or accepted; else empty.
    """

    number: int
    name: str
    short: str
    level: str
    standing: str
    told: str
    since: str = ""


def history_html(history: History, news: Sequence[News], *, accepted: str) -> str:
    """Returns the page: one file with its style, script and data, which loads nothing.

    Args:
        history: runs and series.
        news: standing of every series, most important first.
        accepted: name of the file of accepted steps.
    """
    script = "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    current = [each for each in news if each.standing is not Standing.ENDED]
    return render(
        "history.html",
        headline=headline(history, news),
        notes=notes(history),
        new=news_table(history, news),
        machines=_machines(current),
        rows=_matrix(history, current),
        versions=versions_table(history),
        levels=levels_table(history, news),
        ended=[each.series.name for each in news if each.standing is Standing.ENDED],
        omitted=history.omitted,
        accepted=accepted,
        fewest=FEWEST,
        smallest=SMALLEST_SEGMENT,
        script=script,
        digest=digest,
        data=packed(page_data(history, news)),
    )


def headline(history: History, news: Sequence[News]) -> str:
    """Returns the most important fact of a history in one line."""
    counts = {word: sum(each.standing is word for each in news) for word in Standing}
    runs, series = len(history.runs), sum(counts.values()) - counts[Standing.ENDED]
    about = f"{series} current series of {runs} run{'' if runs == 1 else 's'}"
    if 0 < counts[Standing.SHORT] < series:
        about += f" ({counts[Standing.SHORT]} too short to tell)"
    if worse := counts[Standing.WORSE]:
        return f"{worse} new level{'' if worse == 1 else 's'} for the worse in {about}"
    if better := counts[Standing.BETTER]:
        return f"Nothing is worse, {better} level{'' if better == 1 else 's'} better, in {about}"
    if counts[Standing.SHORT] == series:
        return f"Too few runs to look for changes: {about}"
    return f"Nothing new in {about}"


def notes(history: History) -> list[str]:
    """Returns the rates of false alarms that hold for this page, and what it rests on."""
    tested = [
        series
        for series in (*history.series, *history.versions)
        if series.found is not None and series.found.is_tested
    ]
    if not tested:
        return [f"A change is looked for from {FEWEST} runs of a series on."]
    rows = [nearest(len(series.measured)) for series in tested]
    kinds = sorted(set(rows))
    if len(kinds) > MOST_SHOWN:  # the lowest, the middle and the highest rate
        kinds.sort(key=lambda row: row.alarms / row.series)
        kinds = [kinds[0], kinds[len(kinds) // 2], kinds[-1]]
    told = ", ".join(
        f"{row.alarms} of {row.series:,} with {row.runs} runs "
        f"({100 * row.alarms / row.series:.1f} %)"
        for row in sorted(kinds)
    )
    expected = sum(row.alarms / row.series for row in rows)
    return [
        "False alarms: of series drawn from measured blocks of equal environments, a change was "
        f"found in {told}. This page tests {len(tested)} series: if nothing had ever changed, "
        f"about {expected:.1f} of them would show a change.",
    ]


def news_text(history: History, news: Sequence[News]) -> str:
    """Returns headline and news for the terminal."""
    table = news_table(history, news)
    lines = [headline(history, news), *([str(table)] if table.rows else []), *notes(history)]
    return "\n\n".join(lines)


def news_table(history: History, news: Sequence[News]) -> Table:
    """Returns new and accepted steps of current series, most important first."""
    rows = []
    for each in news:
        if each.standing not in NEW or each.step is None or each.series.found is None:
            continue
        step = each.series.found.steps[each.step]
        reason = each.accepted[each.step].reason if each.step in each.accepted else ""
        rows.append(
            (
                each.series.name,
                change_text(step.change, each.series.terms),
                _interval(step.low, step.high, each.series.terms),
                str(period(step, each.series, history.runs)),
                level_text(each.series.found.levels[-1].mean, each.series.terms),
                f"accepted: {reason}" if reason else _told(each),
            )
        )
    return Table(("series", "step", "95 % interval", "between", "level now", "state"), rows, left=1)


def versions_table(history: History) -> Table:
    """Returns the proven steps of current series over versions, in the order of the versions."""
    rows = []
    for series in history.versions:
        if series.found is None or not series.is_current:
            continue
        for step in filter(lambda step: step.is_proven, series.found.steps):
            before = max(place for place in series.measured if place < step.earliest)
            ends = [
                label_of(history.environments[series.points[place].point.environment])
                for place in (before, step.latest)
            ]
            rows.append(
                (
                    series.name,
                    change_text(step.change, series.terms),
                    _interval(step.low, step.high, series.terms),
                    " to ".join(ends),
                )
            )
    return Table(("series", "step", "95 % interval", "between"), rows, left=1)


def levels_table(history: History, news: Sequence[News]) -> Table:
    """Returns the newest level of every current series."""
    rows = []
    for each in news:
        if each.standing is Standing.ENDED or each.series.found is None:
            continue
        level, terms = each.series.found.levels[-1], each.series.terms
        rows.append(
            (
                each.series.name,
                level_text(level.mean, terms),
                "" if math.isnan(level.low) else _interval_of(level, terms),
                str(len(each.series.measured)),
                _told(each),
                _since(history, each.series),
            )
        )
    return Table(_HEADER, rows, left=1)


def level_text(value: float, terms: WorkloadTerms) -> str:
    """Returns a level in words: a ratio, or a difference with its unit."""
    return f"{value:+.3f} {terms.unit}" if terms.is_difference else f"{math.exp(value):.3f}"


def change_text(value: float, terms: WorkloadTerms) -> str:
    """Returns a change in words: percent of the old level, or a difference with its unit."""
    if terms.is_difference:
        return f"{value:+.3f} {terms.unit}"
    return f"{100 * math.expm1(value):+.1f} %"


def _interval(low: float, high: float, terms: WorkloadTerms) -> str:
    return f"{change_text(low, terms).removesuffix(' %')} to {change_text(high, terms)}"


def _interval_of(level: Level, terms: WorkloadTerms) -> str:
    return f"{level_text(level.low, terms)} to {level_text(level.high, terms)}"


def _since(history: History, series: Series) -> str:
    """Returns the day of the newest level's first run."""
    if series.found is None:
        return ""
    first = series.points[series.found.levels[-1].first].point.run
    return f"{history.runs[first].moment:%Y-%m-%d}"


def _told(news: News) -> str:
    gated = "" if news.series.terms.gated else ", informational"
    return f"{news.standing.value}{gated}"


def _machines(news: Sequence[News]) -> list[str]:
    return sorted({each.series.machine for each in news})


def _matrix(
    history: History, news: Sequence[News]
) -> list[tuple[str, list[tuple[list[Entry], list[Entry]]]]]:
    """Returns a row per workload: its cells by machine, each as shown and folded entries."""
    numbers = {series.name: place for place, series in enumerate(history.series)}
    entries: dict[tuple[str, str], list[Entry]] = {}
    for each in news:
        series = each.series
        entry = Entry(
            numbers[series.name],
            series.name,
            series.track,
            _level(series),
            _MARKS.get(each.standing, ""),
            _told(each),
            _since(history, series) if each.standing in NEW else "",
        )
        entries.setdefault((series.workload, series.machine), []).append(entry)
    over_versions = list(enumerate(history.versions, start=len(history.series)))
    for place, series in reversed(over_versions):  # the plainest name is inserted last
        held = entries.get((series.workload, series.machine))
        if held is not None and series.is_current:
            short = "by version" + series.name.partition(f" on {series.machine}")[2]
            entry = Entry(place, series.name, short, _level(series), "", "all versions")
            held.insert(min(MOST_SHOWN, len(held)), entry)
    gated_first = sorted(news, key=lambda each: not each.series.terms.gated)
    workloads = list(dict.fromkeys(each.series.workload for each in gated_first))
    machines = _machines(news)
    return [
        (
            workload,
            [
                (held[: MOST_SHOWN + 1], held[MOST_SHOWN + 1 :])
                for held in (entries.get((workload, machine), []) for machine in machines)
            ],
        )
        for workload in workloads
    ]


def _level(series: Series) -> str:
    if series.found is None:
        return "no value"
    return level_text(series.found.levels[-1].mean, series.terms)
