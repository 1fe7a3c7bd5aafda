"""Points of a history: a workload of a candidate in one run, reduced to a mean and its error."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from bench.records import ledger
from bench.records.archive import Stored, StoredSeeds
from bench.records.blocks import Block, WorkloadTerms
from bench.records.sides import ON_CPU, Side, device_of
from bench.records.trainings import Trained
from bench.verdicts.accuracy import decide_all
from bench.verdicts.faults import missing
from bench.verdicts.outcomes import NOT_THERE
from bench.verdicts.speed import decide, value

POINTS = "points"  # percentage points of accuracy
_BOTH = "--baseline {baseline} --candidate {candidate}"


@dataclass(frozen=True)
class Run:
    """What is kept of a run, without its samples.

    Attributes:
        path: ledger below the archive.
        moment: start in UTC.
        machine: properties of the machine.
        code: SHA-256 of the workers' files.
        baseline: environment of the baseline.
    """

    path: str
    moment: datetime
    machine: Mapping[str, Any]
    code: str
    baseline: Side


@dataclass(frozen=True)
class Point:
    """A workload of a candidate in a run.

    Attributes:
        run: index among the runs in order of time.
        environment: identity of the candidate's environment.
        value: mean of the blocks' log-ratios to the baseline, or of their differences; points of
            accuracy lost, as the mean over seeds; NaN without a measurement.
        error: standard error of the mean; NaN below two blocks.
        blocks: number of blocks or seeds.
        verdict: PASS, FAIL, INCONCLUSIVE or NOT THERE, from the run alone.
        baseline_amount: median seconds (of one step for slices) or MiB of the baseline; NaN
            without a measurement.
    """

    run: int
    environment: str
    value: float
    error: float
    blocks: int
    verdict: str
    baseline_amount: float


class Measured(NamedTuple):
    """A point with the names under which it belongs to a series.

    Attributes:
        track: what was asked for as a candidate, the same on every day.
        workload: name of the workload.
        terms: version, unit, margin, gate.
        asked: options of `pytest bench` that repeat it, with `{baseline}` and `{candidate}` in
            place of requests.
        side: environment of the candidate.
        point: the point; its run is 0 as long as the order of the runs is unknown.
    """

    track: str
    workload: str
    terms: WorkloadTerms
    asked: str
    side: Side
    point: Point


def run_of(stored: Stored | StoredSeeds) -> Run:
    """Returns what is kept of a run."""
    if isinstance(stored, Stored):
        found = stored.results
        return Run(stored.path, stored.moment, found.machine, found.code, found.baseline)
    first, *_, last = stored.sets
    return Run(stored.path, stored.moment, last.machine, last.code, first.side)


def measured(stored: Stored | StoredSeeds) -> list[Measured]:
    """Reduces a run to points: every workload of every candidate, also without a measurement.

    Accuracy is a workload too: its value is the loss in percentage points, its blocks are seeds.
    """
    if isinstance(stored, StoredSeeds):
        return _trained(stored)
    found = stored.results
    verdicts = {(d.candidate, d.workload): d.verdict.value for d in decide(found)}
    tracks = tracks_of([side.request for side in found.candidates])
    points = []
    for place, side in enumerate(found.candidates):
        blocks = [block for block in found.blocks if block.candidate == place]
        is_there = not missing(found, place)
        environment = identity(side)
        for name, terms in found.workloads.items():
            if name in side.unwanted:
                continue
            verdict = verdicts[place, name] if is_there else NOT_THERE
            point = _point(environment, name, terms, blocks, verdict)
            threads = "" if terms.threads == 1 else f" --threads {terms.threads}"
            asked = f"{_BOTH} --workloads {shlex.quote(name)}{threads}{_device(found.machine)}"
            points.append(Measured(tracks[place], name, terms, asked, side, point))
    return points


def _trained(stored: StoredSeeds) -> list[Measured]:
    base, *candidates = stored.sets
    tracks = tracks_of([each.side.request for each in candidates])
    points = []
    for track, each, decision in zip(
        tracks, candidates, decide_all(stored.sets, stored.terms), strict=True
    ):
        name = f"accuracy[{each.recipe.name},{each.engine}]"
        terms = WorkloadTerms(1, POINTS, stored.terms.margin_points, True, is_difference=True)
        sides = _BOTH if stored.terms.beside else "--candidate {candidate}"
        asked = (
            f"{sides} --seeds {stored.terms.seeds} --recipe {each.recipe.name} "
            f"--engine {each.engine}{_device(each.machine)}"
        )
        losses, error = _losses(base.seeds, each.seeds, paired=stored.terms.paired)
        point = Point(
            0,
            identity(each.side),
            float(np.mean(losses)) if len(losses) else math.nan,
            error,
            len(losses),
            NOT_THERE if each.problem or base.problem else decision.verdict.value,
            math.nan,
        )
        points.append(Measured(track, name, terms, asked, each.side, point))
    return points


def _device(machine: Mapping[str, Any]) -> str:
    """Returns the option that repeats a measurement on a GPU; empty for the CPU."""
    return "" if device_of(machine) == ON_CPU else " --device gpu"


def _losses(
    base: Sequence[Trained], other: Sequence[Trained], *, paired: bool
) -> tuple[np.ndarray, float]:
    """Returns the points that each seed loses, and the standard error of their mean."""
    before = {each.seed: 100 * each.accuracy for each in base if each.wrong is not None}
    after = {each.seed: 100 * each.accuracy for each in other if each.wrong is not None}
    if paired:
        common = [seed for seed in after if seed in before]
        losses = np.array([before[seed] - after[seed] for seed in common])
        variance = _variance(losses)
    else:
        reference = np.array(list(before.values()))
        seeds = np.array(list(after.values()))
        losses = reference.mean() - seeds if len(reference) else seeds[:0]
        variance = _variance(seeds) + _variance(reference)
    return losses, math.sqrt(variance)


def _variance(values: np.ndarray) -> float:
    """Returns the variance of a mean; NaN below two values."""
    return float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else math.nan


def _point(
    environment: str,
    name: str,
    terms: WorkloadTerms,
    blocks: Sequence[Block],
    verdict: str,
) -> Point:
    # As in a verdict: the repeat of a disturbed block replaces it.
    samples = {block.number: block.samples[name] for block in blocks if name in block.samples}
    values = [value(each, terms) for each in samples.values()]
    steps = terms.steps if terms.unit == "s" and terms.steps else 1
    amounts = [median(each.baseline.values) / steps for each in samples.values()]
    count = len(values)
    return Point(
        0,
        environment,
        float(np.mean(values)) if values else math.nan,
        float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan,
        count,
        verdict,
        median(amounts) if amounts else math.nan,
    )


def tracks_of(requests: Sequence[str]) -> list[str]:
    """Returns the candidates' tracks: their requests, numbered if one is repeated.

    A wheel counts by its distribution, since each build has another file name.
    """
    tracks: list[str] = []
    for request in requests:
        track = _track(request)
        count = 1 + sum(other == track or other.startswith(f"{track} (") for other in tracks)
        tracks.append(f"{track} ({count})" if count > 1 else track)
    return tracks


def _track(request: str) -> str:
    try:
        words = shlex.split(request)
    except ValueError:  # a ledger of others may hold any text
        return request
    return " ".join(
        f"{word.rpartition('/')[2].partition('-')[0]} wheel" if word.endswith(".whl") else word
        for word in words
    )


def identity(side: Side, without: Collection[str] = ()) -> str:
    """Returns a digest of what decides an environment's times: lock, settings, Python, oneDNN.

    Args:
        side: the environment.
        without: packages that do not count.
    """
    facts = [str(side.versions.get(name, "")) for name in ("python", "onednn")]
    lock = [entry for entry in side.lock if entry.partition("==")[0] not in without]
    content = [lock, dict(side.settings), facts]
    text = json.dumps(ledger.plain(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
