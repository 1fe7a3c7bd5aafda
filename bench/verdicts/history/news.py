"""What is new in a history: steps that nobody accepted, and whether the gate holds.

The gate looks at the newest level of every gated, current series. It fails where that level was
reached by a proven, unaccepted step for the worse: the last step, or an earlier one that later
steps took back only in part. Accepting a step accepts all earlier ones of its series.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from bench.records.accepted import Accepted
from bench.verdicts.history.change_points import Level, Step
from bench.verdicts.history.points import Run
from bench.verdicts.history.series import FLOOR, History, Series
from bench.verdicts.outcomes import Exit
from lenet5.errors import InputError

_MOST_NAMED = 5


class Standing(str, Enum):
    """State of a series' newest level."""

    WORSE = "worse"
    BETTER = "better"
    ACCEPTED = "accepted"
    STEADY = "steady"
    SHORT = "too short"
    ENDED = "ended"


class Period(NamedTuple):
    """When a step happened: after the start of one run, by the start of another."""

    after: datetime
    by: datetime

    def __str__(self) -> str:
        """Both days, or both times of one day, in UTC."""
        if self.after.date() == self.by.date():
            return f"{self.after:%Y-%m-%d %H:%M} to {self.by:%H:%M} UTC"
        return f"{self.after:%Y-%m-%d} to {self.by:%Y-%m-%d}"


@dataclass(frozen=True)
class News:
    """A series with its standing.

    Attributes:
        series: the series.
        standing: state of its newest level.
        step: index of the step that began the newest level, or that made it worse; None without.
        accepted: accepted steps by index.
    """

    series: Series
    standing: Standing
    step: int | None
    accepted: Mapping[int, Accepted]


def news_of(history: History, accepted: Sequence[Accepted], where: str) -> list[News]:
    """Returns the standing of every series, most important first.

    Args:
        history: the history.
        accepted: entries of the file of accepted steps.
        where: name of that file, for errors.

    Raises:
        InputError: an entry names no series, or no step of it.
    """
    matched = _matched(history, accepted, where)
    news = [_news(series, matched.get(series.name, {})) for series in history.series]
    return sorted(news, key=_rank)


def period(step: Step, series: Series, runs: Sequence[Run]) -> Period:
    """Returns the ends of a step's range: the last run before it, and its last run."""
    before = max(place for place in series.measured if place < step.earliest)
    return Period(*(runs[series.points[at].point.run].moment for at in (before, step.latest)))


def gate(news: Sequence[News]) -> tuple[Exit, str]:
    """Returns the exit status of the gate and its reason in one sentence.

    1: a gated, current series is worse. 6: one has too little data, or none is gated. 0: neither.
    """
    gated = [each for each in news if each.series.terms.gated and each.series.is_current]
    worse = [each for each in gated if each.standing is Standing.WORSE]
    if worse:
        return Exit.FAILED, f"gate: worse: {_listed(worse)}"
    lacking = [
        each for each in gated if each.standing is Standing.SHORT or _lacks_newest(each.series)
    ]
    if lacking:
        return Exit.INCONCLUSIVE, f"gate: too few runs, or no newest value: {_listed(lacking)}"
    if not gated:
        return Exit.INCONCLUSIVE, "gate: no current series is gated"
    return Exit.PASSED, f"gate: none of {len(gated)} series is worse"


def _listed(news: Sequence[News]) -> str:
    names = [each.series.name for each in news]
    more = [f"and {len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    return "; ".join([*names[:_MOST_NAMED], *more])


def _lacks_newest(series: Series) -> bool:
    """Whether the newest run asked for this series and has no value of it."""
    return not math.isfinite(series.points[-1].value)


def _matched(
    history: History, accepted: Sequence[Accepted], where: str
) -> dict[str, dict[int, Accepted]]:
    by_name = {series.name: series for series in history.series}
    found: dict[str, dict[int, Accepted]] = {}
    for entry in accepted:
        series = by_name.get(entry.series)
        if series is None:
            raise InputError(f"{where}: no series is named {entry.series!r}")
        steps = series.found.steps if series.found else ()
        periods = [period(step, series, history.runs) for step in steps]
        days = [(when.after.date(), when.by.date()) for when in periods]
        places = [n for n, (after, by) in enumerate(days) if after <= entry.day <= by]
        if not places:
            told = ", ".join(map(str, periods)) or "none"
            message = f"{where}: {entry.series} has no step on {entry.day}; its steps: {told}"
            raise InputError(message)
        for place in places:
            found.setdefault(series.name, {})[place] = entry
    return found


def _news(series: Series, accepted: Mapping[int, Accepted]) -> News:
    if series.found is None or not series.found.is_tested:
        standing = Standing.SHORT if series.is_current else Standing.ENDED
        return News(series, standing, None, accepted)
    steps, levels = series.found.steps, series.found.levels
    first = 1 + max(accepted, default=-1)
    worse = _worse(steps[first:], levels[first:])
    if not series.is_current:
        return News(series, Standing.ENDED, len(steps) - 1 if steps else None, accepted)
    if worse is not None:
        return News(series, Standing.WORSE, first + worse, accepted)
    if first == len(steps):
        standing = Standing.ACCEPTED if steps else Standing.STEADY
        return News(series, standing, first - 1 if steps else None, accepted)
    is_better = steps[-1].is_proven and steps[-1].change < 0
    standing = Standing.BETTER if is_better else Standing.STEADY
    return News(series, standing, len(steps) - 1, accepted)


def _worse(steps: Sequence[Step], levels: Sequence[Level]) -> int | None:
    """Returns the last proven step for the worse, if the newest level is still worse by it."""
    rises = [place for place, step in enumerate(steps) if step.is_proven and step.change > 0]
    if not rises:
        return None
    if rises[-1] == len(steps) - 1:
        return rises[-1]
    newest, best = levels[-1], min(levels, key=lambda level: level.mean)
    half = math.hypot(newest.high - newest.mean, best.high - best.mean)
    return rises[-1] if newest.mean - best.mean > half else None


_ORDER = (
    *(Standing.WORSE, Standing.BETTER, Standing.ACCEPTED),
    *(Standing.STEADY, Standing.SHORT, Standing.ENDED),
)


def _rank(news: News) -> tuple[int, bool, float]:
    """Standing first, then gated ones, then the size of the step against the margin."""
    terms, found = news.series.terms, news.series.found
    size = 0.0
    if found is not None and news.step is not None:
        margin = terms.margin if terms.is_difference else math.log(terms.margin)
        size = abs(found.steps[news.step].change) / max(abs(margin), FLOOR)
    return _ORDER.index(news.standing), not terms.gated, -size
