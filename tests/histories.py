"""Synthetic archives: runs of given values, day by day."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from bench.records import results
from bench.records.archive import Item, Stored
from bench.records.blocks import Results
from bench.records.sides import Side
from bench.report.versions import version_key
from bench.verdicts.collection import condensed
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


def history(runs: Sequence[Item]) -> History:
    """Returns the history of an archive."""
    return history_of(runs, version_key)


def with_changes(stored: Stored, **changes: Any) -> Stored:
    """Returns a run with other terms."""
    found: Results = replace(stored.results, **changes)
    return replace(stored, results=found)


def resampled(
    found: Results, runs: int, *, environments: int, copies: int, seed: int = 0
) -> Iterator[Stored]:
    """Yields one run a day of six blocks, drawn from real blocks of equal environments.

    Args:
        found: a comparison of an environment with itself.
        runs: number of runs.
        environments: candidates of a run.
        copies: copies of each workload under another name.
        seed: seed of the draws.
    """
    random = np.random.RandomState(seed)
    found = condensed(found)
    names = {f"{name} {copy}": name for name in found.workloads for copy in range(copies)}
    by_candidate = [
        [block for block in found.blocks if block.candidate == place]
        for place in range(len(found.candidates))
    ]
    for day in range(runs):
        moment = START + timedelta(days=day)
        blocks = []
        for place in range(environments):
            own = by_candidate[place % len(by_candidate)]
            for number, at in enumerate(random.permutation(len(own))[:6]):
                samples = {copy: own[at].samples[name] for copy, name in names.items()}
                blocks.append(replace(own[at], candidate=place, number=number, samples=samples))
        sides = [
            replace(
                found.candidates[0],
                request=f"tensorflow==2.{place}.0",
                versions={"tensorflow": f"2.{place}.0", "python": "3.11.7"},
                lock=(*found.baseline.lock, f"urllib4=={place}.{day}"),
            )
            for place in range(environments)
        ]
        drawn = replace(
            found,
            started=moment.isoformat(),
            candidates=tuple(sides),
            workloads={copy: found.workloads[name] for copy, name in names.items()},
            blocks=tuple(blocks),
            complete=True,
        )
        yield Stored(f"{moment:%Y/%m/%d}/comparison.jsonl", moment, drawn)


def main() -> None:
    """Writes a resampled archive: `python -m tests.histories EQUAL.jsonl DIR RUNS ENVS COPIES`."""
    equal, folder, *counts = sys.argv[1:]
    runs, environments, copies = map(int, counts)
    found = results.read(Path(equal))
    for stored in resampled(found, runs, environments=environments, copies=copies):
        path = Path(folder) / stored.path
        path.parent.mkdir(parents=True, exist_ok=True)
        results.write(path, stored.results)


if __name__ == "__main__":
    main()
