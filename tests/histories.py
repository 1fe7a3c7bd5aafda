"""Synthetic archives: runs of given values, day by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from bench.records.archive import Stored
from bench.records.blocks import Results
from bench.records.sides import Side
from bench.report.versions import version_key
from bench.verdicts.history.series import History, history_of
from tests import synthetic
from tests.synthetic import LOOP

START = datetime(2026, 1, 1, 3, tzinfo=timezone.utc)
NIGHTLY = "tf-nightly"
MACHINE = {"cpu": "a processor", "usable_cores": 2, "system": "Linux x86_64", "flags": ["avx2"]}


def side(request: str, *lock: str, **versions: str) -> Side:
    """Returns an environment; TensorFlow's version stands in its lock."""
    return Side(request, request, {"python": "3.11.7", **versions}, tuple(sorted(lock)))


BASELINE = side("tensorflow==2.20.0", "keras==3.9.0", "numpy==2.1.0", "tensorflow==2.20.0")


def nightly(day: int) -> Side:
    """Returns the nightly build of a day."""
    return side(NIGHTLY, "keras==3.9.0", "numpy==2.1.0", f"tf-nightly==2.22.0.dev{20260101 + day}")


def run(
    number: int,
    values: Mapping[str, float | None],
    *,
    candidate: Side | None = None,
    deviation: float = 0.004,
    days: int = 1,
    **more: Any,
) -> Stored:
    """Returns a run of one candidate with four blocks a workload, around the given log-ratios."""
    moment = START + timedelta(days=days * number)
    blocks = {
        name: [] if value is None else synthetic.exactly(value, deviation, 4)
        for name, value in values.items()
    }
    made = synthetic.results(
        blocks,
        candidates=[candidate or nightly(number)],
        **{
            "baseline": BASELINE,
            "machine": MACHINE,
            "started": moment.isoformat(),
            **more,
        },
    )
    return Stored(f"{moment:%Y/%m/%d}/comparison.jsonl", moment, made)


def noise(count: int, deviation: float = 0.002, seed: int = 0) -> list[float]:
    """Returns normal noise around 0."""
    return [float(x) for x in deviation * np.random.RandomState(seed).standard_normal(count)]


def nightlies(values: Sequence[float | None], name: str = LOOP, **more: Any) -> list[Stored]:
    """Returns one run a day of `tf-nightly` with these log-ratios."""
    return [run(day, {name: value}, **more) for day, value in enumerate(values)]


def history(runs: Sequence[Stored]) -> History:
    """Returns the history of an archive."""
    return history_of(runs, version_key)


def with_changes(stored: Stored, **changes: Any) -> Stored:
    """Returns a run with other terms."""
    found: Results = replace(stored.results, **changes)
    return replace(stored, results=found)


def resampled(found: Results, runs: int, seed: int = 0) -> list[Stored]:
    """Returns runs of six blocks each, drawn from real blocks of every candidate; one a day."""
    random = np.random.RandomState(seed)
    made = []
    for day in range(runs):
        moment = START + timedelta(days=day)
        blocks = []
        for place in range(len(found.candidates)):
            own = [block for block in found.blocks if block.candidate == place]
            for number, at in enumerate(random.permutation(len(own))[:6]):
                blocks.append(replace(own[at], number=number))
        drawn = replace(found, started=moment.isoformat(), blocks=tuple(blocks), complete=True)
        made.append(Stored(f"{moment:%Y/%m/%d}/comparison.jsonl", moment, drawn))
    return made
