"""Series: the same question asked in many runs, its points on one scale.

A series is a workload of a track (what was asked for as a candidate) on a machine class, against
one baseline. Its values are log-ratios to that baseline, or differences. Where the baseline
changed, earlier points are chained to the newest baseline if measurements link the two
(`bench.verdicts.history.chains`); otherwise they are another series. So are other versions of a
workload's code and other numbers of threads, which are never comparable.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from bench.records.archive import Item, Omitted
from bench.records.blocks import WorkloadTerms
from bench.records.sides import ON_CPU, Side, device_of
from bench.verdicts.history.chains import Edge, Link, links_to, pooled
from bench.verdicts.history.change_points import COVERAGE, Segments, segments
from bench.verdicts.history.points import POINTS, Measured, Point, Run, identity, measured, run_of

CURRENT = timedelta(days=30)  # a series whose newest point is older than that has ended
FLOOR = 1e-3  # least noise of a log-ratio, or of MiB a call
POINTS_FLOOR = 0.01  # of accuracy: one image of 10,000
FEWEST_EQUAL = 4  # equal runs behind a band of noise
# Packages of network and installation: their releases appear every few weeks in a lock that pins
# TensorFlow only, and no workload computes with them. A baseline stays the same without them.
IDLE = (
    *("certifi", "charset-normalizer", "idna", "packaging", "pip", "requests", "setuptools"),
    *("urllib3", "wheel"),
)

Order = Callable[[Side], Any]


class Placed(NamedTuple):
    """A point on the scale of its series.

    Attributes:
        point: the point, with its value against its own baseline.
        value: value against the series' baseline; NaN without a measurement.
        link: standard error of the chain between the two baselines; 0 without a chain.
    """

    point: Point
    value: float
    link: float


@dataclass(frozen=True)
class Band:
    """Noise of equal runs: the baseline as its own candidate.

    Attributes:
        half: half the width of a 95 % band around a level; NaN with too few equal runs.
        runs: number of equal runs.
    """

    half: float
    runs: int


@dataclass(frozen=True)
class Series:
    """A series in the order of time, or of versions.

    Attributes:
        name: unique name; the one of a current series stays the same over time.
        workload: name of the workload.
        track: what was asked for as a candidate; empty for a series of all versions.
        machine: label of the machine class.
        terms: unit, margin and gate of the newest run.
        asked: options that repeat a point, from the newest run (`Measured.asked`).
        baseline: identity of the newest run's baseline; all values are against it.
        anchor: the same without `IDLE` packages.
        points: points; those without a measurement have the value NaN.
        found: levels and steps, by index of `points`; None without a value.
        band: noise of equal runs.
        is_current: whether its newest point is recent.
    """

    name: str
    workload: str
    track: str
    machine: str
    terms: WorkloadTerms
    asked: str
    baseline: str
    anchor: str
    points: tuple[Placed, ...]
    found: Segments | None
    band: Band
    is_current: bool

    @property
    def measured(self) -> list[int]:
        """Indices of the points with a value."""
        return [place for place, each in enumerate(self.points) if math.isfinite(each.value)]


@dataclass(frozen=True)
class History:
    """All runs of an archive as series.

    Attributes:
        runs: runs in the order of time.
        environments: environments by identity.
        series: series in the order of time, sorted by machine, track and workload.
        versions: series over the versions of all tracks, sorted likewise.
        omitted: files that are not part of it.
    """

    runs: tuple[Run, ...]
    environments: Mapping[str, Side]
    series: tuple[Series, ...]
    versions: tuple[Series, ...]
    omitted: tuple[Omitted, ...]


class _Kind(NamedTuple):
    """What points need in common to be comparable, if their baselines are."""

    machine: str
    workload: str
    version: int
    threads: int


def history_of(found: Iterable[Item], order: Order) -> History:
    """Builds the history of an archive.

    Args:
        found: runs and omitted files; a run's samples are dropped before the next one is read.
        order: sort key of an environment among versions.

    Raises:
        InputError: the library of change points is not installed.
    """
    omitted: list[Omitted] = []
    environments: dict[str, Side] = {}
    kept: list[tuple[Run, list[Measured]]] = []
    for item in found:
        if isinstance(item, Omitted):
            omitted.append(item)
            continue
        run = run_of(item)
        baseline = environments.setdefault(identity(run.baseline), run.baseline)
        points = [  # one object for each environment: an archive has thousands of equal locks
            each._replace(side=environments.setdefault(each.point.environment, each.side))
            for each in measured(item)
        ]
        kept.append((replace(run, baseline=baseline), points))
    kept.sort(key=lambda pair: (pair[0].moment, pair[0].path))
    runs = tuple(run for run, _ in kept)
    labels = machine_labels(runs)
    by_kind: dict[_Kind, list[Measured]] = defaultdict(list)
    for place, (run, points) in enumerate(kept):
        for each in points:
            threads = each.terms.threads
            kind = _Kind(labels[_machine_class(run)], each.workload, each.terms.version, threads)
            by_kind[kind].append(each._replace(point=replace(each.point, run=place)))
    build = _Builder(
        runs,
        baselines=[identity(run.baseline) for run in runs],
        anchors={name: identity(side, IDLE) for name, side in environments.items()},
        environments=environments,
        order=order,
    )
    series = [each for kind, points in by_kind.items() for each in build.tracks(kind, points)]
    versions = build.versions(series)
    return History(
        runs,
        environments,
        tuple(sorted(_named(series, runs, environments), key=_by_name)),
        tuple(sorted(_named(versions, runs, environments), key=_by_name)),
        tuple(omitted),
    )


def machine_labels(runs: Sequence[Run]) -> dict[tuple[str, ...], str]:
    """Returns a label of every machine class: GPU, CPU and cores; the system where it differs."""
    classes = sorted({_machine_class(run) for run in runs})
    short = {each: ", ".join(filter(None, each[:3])) or "unknown machine" for each in classes}
    repeated = Counter(short.values())
    return {
        each: f"{label}, {each[3]}" if repeated[label] > 1 else label
        for each, label in short.items()
    }


def _machine_class(run: Run) -> tuple[str, ...]:
    """Returns what distinguishes machines in a history; a GPU by its model, not by its driver."""
    cpu, cores, system = (run.machine.get(name) for name in ("cpu", "usable_cores", "system"))
    counted = f"{cores} core{'' if cores == 1 else 's'}" if cores else ""
    device = device_of(run.machine)
    gpu = "" if device == ON_CPU else device
    return gpu, str(cpu or ""), counted, str(system or "")


@dataclass(frozen=True)
class _Builder:
    """Builds series.

    Attributes:
        runs: runs in the order of time.
        baselines: identity of each run's baseline.
        anchors: identity without `IDLE` packages, of every environment.
        environments: environments by identity.
        order: sort key among versions.
    """

    runs: Sequence[Run]
    baselines: Sequence[str]
    anchors: Mapping[str, str]
    environments: Mapping[str, Side]
    order: Order

    def tracks(self, kind: _Kind, points: Sequence[Measured]) -> list[Series]:
        """Returns the series of a kind: one or more of each track, by linked baselines."""
        edges = [
            Edge(self._anchor(p), self.anchors[p.environment], p.value, p.error)
            for p in (each.point for each in points)
        ]
        band, neighbours = _band(edges), pooled(edges)
        by_track: dict[str, list[Measured]] = defaultdict(list)
        for each in points:
            by_track[each.track].append(each)
        linked: dict[str, dict[str, Link]] = {}
        made = []
        for track, asked in by_track.items():
            rest = asked
            while rest:
                anchor = self._anchor(rest[-1].point)
                if anchor not in linked:
                    linked[anchor] = links_to(anchor, neighbours)
                links = linked[anchor]
                own = [each for each in rest if self._anchor(each.point) in links]
                rest = [each for each in rest if self._anchor(each.point) not in links]
                placed = tuple(self._placed(each.point, links) for each in own)
                newest = own[-1]
                made.append(
                    self._series(kind, track, newest.terms, newest.asked, anchor, placed, band)
                )
        return made

    def versions(self, series: Sequence[Series]) -> list[Series]:
        """Returns series over versions: all tracks with a baseline and settings in common."""
        groups: dict[tuple[Any, ...], list[tuple[Series, Placed]]] = defaultdict(list)
        for each in series:
            for placed in each.points:
                settings = self.environments[placed.point.environment].settings
                key = (
                    *(each.machine, each.workload, each.terms.version, each.terms.threads),
                    *(each.anchor, tuple(sorted(settings.items()))),
                )
                groups[key].append((each, placed))
        made = []
        for members in groups.values():
            if len({placed.point.environment for _, placed in members}) < 2:
                continue
            keys = {
                name: self.order(self.environments[name])
                for name in {placed.point.environment for _, placed in members}
            }
            points = tuple(
                sorted(
                    (placed for _, placed in members),
                    key=lambda placed: (keys[placed.point.environment], placed.point.run),
                )
            )
            one = max((each for each, _ in members), key=lambda each: each.points[-1].point.run)
            kind = _Kind(one.machine, one.workload, one.terms.version, one.terms.threads)
            made.append(self._series(kind, "", one.terms, one.asked, one.anchor, points, one.band))
        return made

    def _anchor(self, point: Point) -> str:
        return self.anchors[self.baselines[point.run]]

    def _placed(self, point: Point, links: Mapping[str, Link]) -> Placed:
        link = links[self._anchor(point)]
        return Placed(point, point.value + link.value, link.error)

    def _series(
        self,
        kind: _Kind,
        track: str,
        terms: WorkloadTerms,
        asked: str,
        anchor: str,
        points: tuple[Placed, ...],
        band: Band,
    ) -> Series:
        newest = max(each.point.run for each in points)
        return Series(
            name="",
            workload=kind.workload,
            track=track,
            machine=kind.machine,
            terms=terms,
            asked=asked,
            baseline=self.baselines[newest],
            anchor=anchor,
            points=points,
            found=_found(points, terms),
            band=band,
            is_current=self.runs[newest].moment >= self.runs[-1].moment - CURRENT,
        )


def _found(points: Sequence[Placed], terms: WorkloadTerms) -> Segments | None:
    """Returns levels and steps by index of all points, with or without a value."""
    places = [place for place, each in enumerate(points) if math.isfinite(each.value)]
    if not places:
        return None
    there = [points[place] for place in places]
    found = segments(
        [each.value for each in there],
        [each.point.error for each in there],
        [each.link for each in there],
        floor=POINTS_FLOOR if terms.unit == POINTS else FLOOR,
    )
    return replace(
        found,
        levels=tuple(
            replace(level, first=places[level.first], last=places[level.last])
            for level in found.levels
        ),
        steps=tuple(
            replace(
                step,
                at=places[step.at],
                earliest=places[step.earliest],
                latest=places[step.latest],
            )
            for step in found.steps
        ),
    )


def _band(edges: Iterable[Edge]) -> Band:
    """Returns the band of equal runs: their true value is 0, so their squares give the noise."""
    equal = [edge.value for edge in edges if edge.base == edge.other and math.isfinite(edge.value)]
    if len(equal) < FEWEST_EQUAL:
        return Band(math.nan, len(equal))
    deviation = max(float(np.sqrt(np.mean(np.square(equal)))), FLOOR)
    return Band(float(special.stdtrit(len(equal), 0.5 + COVERAGE / 2)) * deviation, len(equal))


def _by_name(series: Series) -> tuple[str, str, str]:
    return series.machine, series.track, series.name


def _named(
    series: Sequence[Series], runs: Sequence[Run], environments: Mapping[str, Side]
) -> list[Series]:
    """Names the series: the newest of a track has the plain name, older ones say what differs.

    Among series over versions the plain name belongs to the one without settings.
    """
    groups: dict[str, list[Series]] = defaultdict(list)
    for each in series:
        of = f" of {each.track}" if each.track else " by version"
        groups[f"{each.workload}{of} on {each.machine}"].append(each)
    named = []
    for plain, group in groups.items():
        settings = [_settings(each, environments) for each in group]
        order = sorted(range(len(group)), key=lambda n: (settings[n], -_newest(group[n])))
        taken: set[str] = set()
        for place in order:
            each, first = group[place], group[order[0]]
            words = _what_differs(each, first, runs)
            if settings[place] != settings[order[0]]:
                words.append(f"with {settings[place]}")
            name = full = ", ".join([plain, *words])
            while name in taken:
                name = f"{full} ({1 + sum(other.startswith(full) for other in taken)})"
            taken.add(name)
            named.append(replace(each, name=name))
    return named


def _newest(series: Series) -> int:
    return max(each.point.run for each in series.points)


def _settings(series: Series, environments: Mapping[str, Side]) -> str:
    """Returns the settings that set a series over versions apart; a track names its own."""
    if series.track:
        return ""
    settings = environments[series.points[0].point.environment].settings
    return " ".join(f"{name}={value}" for name, value in sorted(settings.items()))


def _what_differs(series: Series, newest: Series, runs: Sequence[Run]) -> list[str]:
    terms, other = series.terms, newest.terms
    words = []
    if terms.version != other.version:
        words.append(f"version {terms.version}")
    if terms.threads != other.threads:
        words.append(f"{terms.threads} thread{'' if terms.threads == 1 else 's'}")
    if series.anchor != newest.anchor:
        words.append(f"another baseline until {runs[_newest(series)].moment:%Y-%m-%d}")
    return words
