"""A bisection as text and page: the finding, the profile of all levels, checks, how to repeat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.records.sides import Side
from bench.records.stages import PACKAGES, Stage
from bench.report.pages import Picture, render
from bench.report.tables import Table
from bench.report.versions import lock_differences
from bench.verdicts.bisection.posterior import Estimate
from bench.verdicts.bisection.stages import Missing
from bench.verdicts.bisection.walk import COVERAGE, VERIFIED_STEPS, Difference, Walk, ways
from bench.verdicts.outcomes import Exit

_CONFIDENCE = 0.95
_UNDECIDED = "INCONCLUSIVE"
_KINDS = {
    "versions": "Releases",
    "dates": "Days with releases",
    "nightlies": "Nightly builds",
    "given": "Given levels",
    "ends": "Good and bad",
}


@dataclass(frozen=True)
class Quantity:
    """How values of a walk are shown.

    Attributes:
        name: what is compared, such as `fit_call`.
        verb: such as `takes` in "bad takes 1.2 times as long".
        is_ratio: whether values are logarithms of ratios.
        unit: unit of differences.
        worse: word for a value above good's, such as `slower`.
        better: word for a value below good's.
    """

    name: str
    is_ratio: bool
    unit: str
    worse: str
    better: str

    def shown(self, value: float) -> str:
        """Returns a value: `1.023`, or `+3.1 MiB`."""
        if math.isnan(value):
            return ""
        if self.is_ratio:
            return f"{math.exp(value):.3f}"
        return f"{value:+.2f} {self.unit}".strip()

    def interval(self, level: Estimate) -> str:
        """Returns an interval: `1.010-1.035`; empty without one."""
        if not math.isfinite(level.low):
            return ""
        low, high = self.shown(level.low), self.shown(level.high)
        return f"{low}-{high}" if self.is_ratio else f"{low} to {high}"

    def word(self, value: float) -> str:
        """Returns `slower` or its opposite."""
        return self.worse if value > 0 else self.better

    def on_axis(self, value: float) -> float:
        """Returns a value as on a chart: a ratio, or a difference."""
        return math.exp(value) if self.is_ratio else value


@dataclass(frozen=True)
class StageView:
    """A stage with what is known of it.

    Attributes:
        stage: environments and changes.
        walk: values and posterior.
        quantity: how values are shown.
        missing: places that cannot be measured.
        sides: built environments by place.
        closures: gap of log r(good, bad) = log r(good, x) + log r(x, bad), by place x.
        facts: machine and options, label and text.
        ledger: file with the raw values.
        repeat: commands that repeat a step, each with its purpose.
    """

    stage: Stage
    walk: Walk
    quantity: Quantity
    missing: Sequence[Missing]
    sides: Mapping[int, Side]
    closures: Mapping[int, Estimate]
    facts: Sequence[tuple[str, str]]
    ledger: str
    repeat: Sequence[tuple[str, str]] = field(default_factory=tuple)

    @property
    def title(self) -> str:
        """Returns the stage's heading."""
        return stage_title(self.stage)


def stage_title(stage: Stage) -> str:
    """Returns `Releases of keras, 3.5.0 to 3.9.0`."""
    good, bad = (stage.places[place].name for place in (0, stage.bad))
    if stage.kind == PACKAGES:
        return f"Packages that differ between {good} and {bad}"
    what = _KINDS.get(stage.kind, stage.kind)
    return f"{what}{f' of {stage.package}' * bool(stage.package)}, {good} to {bad}"


def stage_status(view: StageView) -> Exit:
    """Returns 0 if the stage has an answer, or the code of INCONCLUSIVE."""
    walk = view.walk
    is_spread = walk.searched is None and walk.is_spread
    has_answer = walk.difference is Difference.NONE or is_spread or walk.is_verified
    return Exit.PASSED if has_answer else Exit.INCONCLUSIVE


def finding(view: StageView) -> str:
    """Returns the stage's result in one sentence."""
    walk, stage, quantity = view.walk, view.stage, view.quantity
    if walk.fit is None:
        return f"{_UNDECIDED}: {quantity.name}: nothing was measured"
    total = walk.fit.contrast(0, stage.bad, _CONFIDENCE)
    ends = f"{stage.places[stage.bad].name} against {stage.places[0].name}"
    told = f"{quantity.name}: {ends} is {quantity.shown(total.mean)} ({quantity.interval(total)})"
    least = quantity.shown(walk.search.least_step)
    if walk.difference is Difference.NONE:
        return f"{told}: no step of {least} or more"
    if walk.searched is None and walk.is_spread:
        return f"{told}: spread over several changes, none of a step of {least} or more"
    steps = "; ".join(_step(view, group) for group in walk.culprits)
    if walk.is_verified:
        has_more = len(walk.culprits) > VERIFIED_STEPS
        agree = f"show the {VERIFIED_STEPS} largest" if has_more else "agree"
        return f"{told}. Found: {steps}; {walk.fresh} fresh blocks {agree}"
    if walk.difference is Difference.OPEN:
        left = "a difference is not shown yet"
    elif not steps:
        left = _likely(view)
    elif walk.fresh:
        left = f"{steps}; {walk.fresh} fresh blocks do not show it"
    else:
        left = f"{steps}; not verified yet"
    return f"{_UNDECIDED}: {told}; {left}"


def _step(view: StageView, group: frozenset[int]) -> str:
    """Returns a step in words: `3.6.0 to 3.7.0, 1.253 (1.240-1.266), slower`."""
    level = effect(view, group)
    quantity = view.quantity
    name = view.stage.named(group)
    if level is None:
        return name
    shown = f"{quantity.shown(level.mean)} ({quantity.interval(level)})"
    return f"{name}, {shown}, {quantity.word(level.mean)}"


def effect(view: StageView, group: frozenset[int]) -> Estimate | None:
    """Returns the effect of a group of changes, from all blocks, if a pair tells it alone."""
    walk = view.walk
    if walk.fit is None:
        return None
    known = {0, *walk.fit.measured}
    for before, after in ways(walk.search, group):
        if {before, after} <= known:
            return walk.fit.contrast(before, after, _CONFIDENCE)
    return None


def _likely(view: StageView) -> str:
    """Returns the likeliest places of steps in words."""
    found = view.walk.posterior
    if found is None or not found.hypotheses[0].steps:
        return "no step is located"
    best = found.hypotheses[0]
    names = [view.stage.named(found.fit.merged[place]) for place in best.steps]
    return f"most likely {' and '.join(names)} ({100 * best.probability:.0f} %)"


def progress(view: StageView) -> str:
    """Returns a block's line: values so far and the likeliest step."""
    walk = view.walk
    last = walk.blocks[-1]
    values = ", ".join(
        f"{view.stage.places[place].name} {view.quantity.shown(value)}"
        for place, value in sorted(last.items())
    )
    if walk.difference is Difference.NONE:
        told = "no step between the ends"
    elif walk.searched is not None:
        told = f"located, {walk.fresh} fresh blocks; {_likely(view)}"
    else:
        told = f"difference of the ends {walk.difference.value}; {_likely(view)}"
    return f"block {len(walk.blocks)}: {values}; {told}"


def levels_table(view: StageView) -> Table:
    """Returns a row for each place: value against good, interval, blocks, reason if missing."""
    quantity = view.quantity
    rows = []
    for row in rows_of(view):
        level = row.level
        if level is None:
            rows.append((row.name, "", "", "", row.note))
            continue
        own = (quantity.shown(level.mean), quantity.interval(level) * bool(row.place))
        rows.append((row.name, *own, str(level.blocks), row.note))
    value = "ratio to good" if quantity.is_ratio else "minus good"
    return Table(("level", value, "95 % interval", "blocks", "note"), rows, left=1)


@dataclass(frozen=True)
class Row:
    """A place of a table and chart, or neighbouring levels that were not measured.

    Attributes:
        place: the place; the first of several.
        name: its name; the first and the last of several.
        level: mean against good; None if not measured.
        note: reason if not measured, or the closure check.
    """

    place: int
    name: str
    level: Estimate | None
    note: str


def rows_of(view: StageView) -> list[Row]:
    """Returns the rows of a stage; unmeasured neighbours of an ordered axis are one row."""
    reasons = {found.place: found.reason for found in view.missing}
    rows: list[Row] = []
    open_places: list[int] = []
    for place in order(view.stage):
        level = level_of(view, place)
        name = view.stage.places[place].name
        if level is None and place not in reasons and view.stage.is_ordered:
            open_places.append(place)
            if len(open_places) > 1:
                first = view.stage.places[open_places[0]].name
                count = f"{len(open_places)} levels, not measured"
                rows[-1] = Row(open_places[0], f"{first} to {name}", None, count)
                continue
        else:
            open_places = []
        closed = view.closures.get(place)
        note = "" if closed is None else _closed(closed, view.quantity)
        told = reasons.get(place, note if level is not None else "not measured")
        rows.append(Row(place, name, level, told))
    return rows


def _closed(level: Estimate, quantity: Quantity) -> str:
    word = "closes" if level.low <= 0 <= level.high else "does not close"
    return f"{word}: {quantity.shown(level.mean)} ({quantity.interval(level)})"


def changes_table(view: StageView) -> Table:
    """Returns a row for each change that the measured levels tell apart."""
    walk, quantity = view.walk, view.quantity
    if walk.posterior is None:
        return Table((), [])
    rows = []
    sets = {place for each in walk.credible_sets for place in each}
    for group, probability in zip(
        walk.posterior.fit.merged, walk.posterior.step_probabilities(), strict=True
    ):
        level = effect(view, group)
        own = ("", "") if level is None else (quantity.shown(level.mean), quantity.interval(level))
        mark = "step" if group & sets else ""
        rows.append((view.stage.named(group), *own, f"{100 * probability:.1f} %", mark))
    header = ("change", "effect", "95 % interval", "probability of a step", "in a credible set")
    return Table(header, rows, left=1)


def checks_table(view: StageView) -> Table | None:
    """Returns a row for each check in fresh blocks; None without fresh blocks."""
    rows = [
        (
            f"{view.stage.places[check.before].name} to {view.stage.places[check.after].name}",
            view.quantity.shown(check.step.mean),
            view.quantity.interval(check.step),
            str(check.step.blocks),
            "shown" if check.is_shown else "not shown",
        )
        for check in view.walk.checks
    ]
    if not rows:
        return None
    return Table(("in fresh blocks", "step", "interval of the test", "blocks", ""), rows, left=1)


def order(stage: Stage) -> list[int]:
    """Returns places in the order of a table: good, then by number of changes."""
    return sorted(range(len(stage.places)), key=lambda p: (len(stage.places[p].held), p))


def level_of(view: StageView, place: int) -> Estimate | None:
    """Returns a place's mean against good; None if it was not measured."""
    summary = view.walk.fit
    if summary is None or (place and place not in summary.measured):
        return None
    return summary.contrast(0, place, _CONFIDENCE)


@dataclass(frozen=True)
class Section:
    """A stage as it is shown.

    Attributes:
        title: heading.
        finding: result in one sentence.
        steps: names of the found steps; empty without any.
        picture: chart of all levels; None without one.
        tables: tables with their headings; the first one has none.
        packages: packages that differ across the largest step; None if not known.
        repeat: commands that repeat a step.
        ledger: file with the raw values.
        facts: machine and options, label and text.
        status: exit code of the stage.
    """

    title: str
    finding: str
    steps: str
    picture: Picture | None
    tables: Sequence[tuple[str, Table]]
    packages: Table | None
    repeat: Table
    ledger: str
    facts: Sequence[tuple[str, str]]
    status: Exit


def section_of(view: StageView) -> Section:
    """Returns a stage as it is shown."""
    checks = checks_table(view)
    return Section(
        view.title,
        finding(view),
        " and ".join(view.stage.named(group) for group in view.walk.culprits),
        _profile_picture(view),
        [
            ("", levels_table(view)),
            ("Changes", changes_table(view)),
            *([("Verification in fresh blocks", checks)] if checks else []),
        ],
        _packages(view),
        Table(("to measure", "command"), view.repeat, left=None),
        view.ledger,
        view.facts,
        stage_status(view),
    )


def headline(sections: Sequence[Section]) -> str:
    """Returns the first stage's finding, and the steps of later stages within its largest."""
    within = [section.steps for section in sections[1:] if section.steps]
    told = "; within it: ".join([sections[0].finding, *within])
    # The page begins a headline with a capital, which would change a workload's name.
    return told if told.startswith(_UNDECIDED) else f"Bisection of {told}"


def bisection_text(sections: Sequence[Section]) -> str:
    """Returns all stages as text for a terminal."""
    parts = []
    for section in sections:
        parts += [section.title, section.finding, ""]
        for _, table in section.tables:
            parts += [str(table), ""]
    return "\n".join(parts).rstrip()


def bisection_html(title: str, sections: Sequence[Section]) -> str:
    """Returns the head of a bisection's page."""
    return render("bisection.html", title=title, coverage=f"{100 * COVERAGE:g}", sections=sections)


def _packages(view: StageView) -> Table | None:
    pair = next((ways(view.walk.search, group) for group in view.walk.culprits[:1]), ())
    if not pair or not all(place in view.sides for place in pair[0]):
        return None
    before, after = (view.sides[place] for place in pair[0])
    names = [view.stage.places[place].name for place in pair[0]]
    return Table(("package", *names), lock_differences(before, after), left=None)


def _profile_picture(view: StageView) -> Picture:
    from bench.report.bisection.plots import Bar, profile_figure
    from bench.report.charts import png_of

    quantity = view.quantity
    steps = {change for group in view.walk.culprits for change in group}
    bars = []
    for row in rows_of(view):
        values = (math.nan, math.nan, math.nan)
        if row.level is not None:
            ends = (row.level.mean, row.level.low, row.level.high)
            mean, low, high = (quantity.on_axis(x) if math.isfinite(x) else x for x in ends)
            values = (mean, low, high)
        own = view.stage.places[row.place].held
        # An ordered level's own change is its last; good with a package has that change alone.
        is_own = view.stage.is_ordered or len(own) == 1
        is_step = is_own and bool(own) and own[-1] in steps
        bars.append(Bar(row.name, *values, "" if row.level else row.note, is_step))
    what = "ratio to" if quantity.is_ratio else f"difference ({quantity.unit}) to"
    png = png_of(
        profile_figure,
        bars,
        f"{quantity.name}: {what} {view.stage.places[0].name}",
        is_difference=not quantity.is_ratio,
        is_ordered=view.stage.is_ordered,
    )
    return Picture(png, view.title)
