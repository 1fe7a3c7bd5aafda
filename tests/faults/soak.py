"""Comparisons of speed and of accuracy in a loop, and what the parent process holds meanwhile.

python -m tests.faults.soak TABLE.csv [--minutes 60] [--real]

A row a minute: memory, open files, threads, child processes, temporary files and folders, and the
finished comparisons. The exit status is 1 if the end holds more than the time after ten minutes,
or a sixth of the time if that is shorter. `--real` times and trains in this Python's TensorFlow.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import sys
import tempfile
import time
from collections.abc import Container, Generator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import psutil

from bench.accuracy import AccuracyExperiment
from bench.environments.request import parse_request
from bench.plans.seeds import AccuracyTerms
from bench.plans.speed import read_terms
from bench.speed import SpeedExperiment
from lenet5.data import Dataset
from lenet5.recipes import find_recipe
from tests.faults.kills import place_of
from tests.faults.session import LOOP, SEEDS, make_quick, replaced_data

_MOST_MEMORY_GROWTH = 1.05  # ratio; freed memory is not always returned to the system


@dataclass(frozen=True)
class Held:
    """What the process holds between two comparisons.

    Attributes:
        minutes: time since the start.
        comparisons: finished comparisons.
        memory_mib: resident memory.
        files: open file descriptors.
        threads: number of threads.
        processes: child processes, also ended ones that were not waited for.
        temporary: files and folders in the temporary folder.
    """

    minutes: float
    comparisons: int
    memory_mib: float
    files: int
    threads: int
    processes: int
    temporary: int


def held(start: float, comparisons: int, temporary: Path, others: Container[int]) -> Held:
    """Returns what this process holds now; children in `others` are not the soak's."""
    gc.collect()
    process = psutil.Process()
    children = [child for child in process.children() if child.pid not in others]
    return Held(
        minutes=round((time.monotonic() - start) / 60, 2),
        comparisons=comparisons,
        memory_mib=round(process.memory_info().rss / 2**20, 1),
        files=process.num_fds(),
        threads=process.num_threads(),
        processes=sum(1 + len(child.children(recursive=True)) for child in children),
        temporary=sum(1 for _ in temporary.rglob("*")),
    )


def comparisons(folder: Path, dataset: Dataset, *, real: bool) -> Generator[None, None, None]:
    """Runs comparisons of speed and of accuracy in turns, without end."""
    place = place_of("speed", folder, real=real)
    cache = folder / "cache"
    while True:
        ledger = folder / "r.jsonl"
        workloads = f"{LOOP} import" if real else f"{LOOP} peak_memory"
        terms = read_terms(
            place.baseline,
            [place.candidate],
            workloads=workloads,
            budget_seconds=120,
            project=folder / "project",
        )
        speed = SpeedExperiment(terms, ledger)
        speed.run([key for key, _ in speed.tests()], dataset, cache)
        assert speed.outcomes()
        ledger.unlink()
        yield
        requests = [parse_request(text) for text in (place.baseline, place.candidate)]
        seeds = AccuracyTerms(
            requests[0], (requests[1],), find_recipe("fast"), "graph", SEEDS, margin_points=99.0
        )
        accuracy = AccuracyExperiment(seeds, ledger, 2)
        accuracy.run([key for key, _ in accuracy.tests()], dataset, cache)
        assert accuracy.outcomes()
        ledger.unlink()
        yield


def soak(table: Path, minutes: float, *, real: bool) -> list[Held]:
    """Runs comparisons for some minutes, and appends a row a minute to a CSV file."""
    rows: list[Held] = []
    others = {child.pid for child in psutil.Process().children()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = replaced_data("digits" if real else "black")
        make_quick()
        start = time.monotonic()
        work = comparisons(folder, dataset, real=real)
        next(work)  # creates the folders and fills the caches
        tempfile.tempdir = str(folder / "temporary")
        every = 60.0 if minutes > 5 else 10.0
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Held)])
            writer.writeheader()
            count = 1
            while (now := time.monotonic() - start) < 60 * minutes or not rows:
                next(work)
                count += 1
                if now >= every * len(rows):
                    rows.append(held(start, count, folder / "temporary", others))
                    writer.writerow(asdict(rows[-1]))
                    file.flush()
                    os.fsync(file.fileno())
                    print(rows[-1], flush=True)
            rows.append(held(start, count, folder / "temporary", others))
            writer.writerow(asdict(rows[-1]))
        work.close()
        tempfile.tempdir = None
    return rows


def growth(rows: list[Held]) -> list[str]:
    """Returns what the end holds more than the time after ten minutes, or a sixth of the time."""
    early = next(row for row in rows if row.minutes >= min(10, rows[-1].minutes / 6))
    late = replace(rows[-1], memory_mib=rows[-1].memory_mib / _MOST_MEMORY_GROWTH)
    names = ("memory_mib", "files", "threads", "processes", "temporary")
    return [
        f"{name}: {getattr(early, name)} after {early.minutes} min, {getattr(rows[-1], name)} at "
        f"the end ({rows[-1].minutes} min)"
        for name in names
        if getattr(late, name) > getattr(early, name)
    ]


def main() -> int:
    """Runs a soak; prints what has grown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, metavar="TABLE.csv")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--real", action="store_true")
    options = parser.parse_args()
    found = growth(soak(options.table, options.minutes, real=options.real))
    print("\n".join(found) or "nothing has grown")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
