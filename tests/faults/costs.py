"""How the cost of measuring grows: seconds by number of versions, and by seeds and processes.

python -m tests.faults.costs TABLE.csv [--versions 1,2,4,8] [--seeds 4,8,16,32] [--processes 1,2]

The versions are this Python's TensorFlow several times. Overhead is
(wall x workers - task seconds) / task seconds; a block or a training with its process is a task.
Builds of environments are not included. The exit status is 1 above 5 % of overhead.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bench import speed
from bench.environments.builds import Built, build, default_cache
from bench.environments.request import parse_request
from bench.measure.processes import interpreter_of, private_folder
from bench.measure.seeds import train_seeds
from bench.measure.worker_files import prepare_training_folder
from bench.plans.speed import Plan, Terms
from bench.records import results
from bench.records.blocks import Block, BlockTask, Results
from bench.records.catalogue import PAIR_SECONDS, select
from bench.records.trainings import SeedTask, keeping
from bench.seeds import begun
from lenet5 import data
from lenet5.folders import default_cache_dir, default_data_dir, default_mnist_dir
from lenet5.recipe import Recipe
from lenet5.recipes import find_recipe

_MOST_OVERHEAD = 0.05


@dataclass(frozen=True)
class Cost:
    """Cost of some tasks.

    Attributes:
        what: `versions` or `seeds`.
        count: number of them.
        workers: number of tasks at a time.
        wall_seconds: time from the first preparation to the last record on the disk.
        task_seconds: sum of the tasks' times.
    """

    what: str
    count: int
    workers: int
    wall_seconds: float
    task_seconds: float

    @property
    def overhead(self) -> float:
        """Share of the workers' time without a task, relative to the tasks' time."""
        return (self.wall_seconds * self.workers - self.task_seconds) / self.task_seconds


def cost_of_versions(
    built: Built,
    count: int,
    images: data.Subset,
    *,
    workloads: str,
    blocks: int,
    pair_seconds: float = PAIR_SECONDS,
) -> Cost:
    """Measures some blocks of an environment against itself, as often as there are versions."""
    specs = select(workloads, {})
    terms = Terms(built.request, (built.request,) * count, specs, pair_seconds=pair_seconds)

    def next_tasks(_: Plan, found: Results, there: Iterable[int]) -> list[BlockTask]:
        number = len(found.blocks) // count
        places = [*there] if number < blocks else []
        steps = {name: item.steps for name, item in found.workloads.items() if item.steps}
        task = BlockTask(
            {place: [*specs.values()] for place in places},
            dict.fromkeys(places, number),
            turn=number,
            steps=steps,
        )
        return [task] if places else []

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.monotonic()
        with results.keeping(folder / "r.jsonl", folder) as keep:

            def on_results(found: Results, _: Block | None) -> None:
                keep(found)

            found = speed.measure(
                *(terms, [built] * (count + 1), [[*specs]] * count, images, on_results),
                next_tasks=next_tasks,
            )
        wall_seconds = time.monotonic() - start
    return Cost("versions", count, 1, wall_seconds, sum(block.seconds for block in found.blocks))


def cost_of_seeds(
    built: Built, count: int, processes: int, dataset: data.Dataset, recipe: Recipe
) -> Cost:
    """Trains some seeds with the engine `graph`."""
    task_seconds = 0.0
    with tempfile.TemporaryDirectory() as name:
        start = time.monotonic()
        with private_folder() as folder, keeping(Path(name) / "r.jsonl", Path(name)) as keep:
            code = prepare_training_folder(folder, dataset)
            (found,) = begun(recipe, "graph", [built.request], [built], dataset, code)
            tasks = [SeedTask(0, seed, recipe, "graph") for seed in range(count)]
            sides = {0: interpreter_of(built)}
            for record in train_seeds(tasks, sides, folder, processes=processes):
                found = found.with_seed(record.trained)
                keep([found])
                task_seconds += record.seconds
        wall_seconds = time.monotonic() - start
    return Cost("seeds", count, processes, wall_seconds, task_seconds)


def write(costs: Sequence[Cost], table: Path) -> None:
    """Writes costs as CSV, with the overhead in percent."""
    names = [*(field.name for field in fields(Cost)), "overhead_percent"]
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for cost in costs:
            numbers = {"wall_seconds": round(cost.wall_seconds, 2)}
            numbers |= {"task_seconds": round(cost.task_seconds, 2)}
            writer.writerow({**asdict(cost), **numbers, names[-1]: f"{100 * cost.overhead:.1f}"})


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints the costs; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("table", type=Path, metavar="TABLE.csv")
    add("--versions", type=_numbers, default=[1, 2, 4, 8], metavar="N,N")
    add("--seeds", type=_numbers, default=[4, 8, 16, 32], metavar="N,N")
    add("--processes", type=_numbers, default=[1, 2], metavar="N,N")
    add("--workloads", default="train_step[loop,b128] fit_call", metavar="NAMES")
    add("--blocks", type=int, default=4, help="blocks of each number of versions; default: 4")
    add("--pair-seconds", type=float, default=PAIR_SECONDS, help="of a workload in a block")
    add("--recipe", default="fast", metavar="NAME")
    add("--epochs", type=int, help="default: the recipe's")
    add("--dataset", choices=data.DATASETS, default="mnist")
    options = parser.parse_args(argv)
    dataset = data.load_dataset(
        options.dataset,
        data_dir=default_data_dir(os.environ),
        mnist_dir=default_mnist_dir(os.environ),
        cache_dir=default_cache_dir(os.environ),
        report=print,
    )
    recipe = find_recipe(options.recipe)
    if options.epochs is not None:
        recipe = recipe.with_overrides({"epochs": options.epochs})
    built = build(parse_request("."), default_cache(os.environ), say=print)
    costs: list[Cost] = []
    for count in options.versions:
        costs.append(
            cost_of_versions(
                *(built, count, dataset.training),
                workloads=options.workloads,
                blocks=options.blocks,
                pair_seconds=options.pair_seconds,
            )
        )
        _tell(costs, options.table)
    for processes in options.processes:
        for count in options.seeds:
            costs.append(cost_of_seeds(built, count, processes, dataset, recipe))
            _tell(costs, options.table)
    return int(any(cost.overhead > _MOST_OVERHEAD for cost in costs))


def _tell(costs: Sequence[Cost], table: Path) -> None:
    write(costs, table)
    cost = costs[-1]
    print(
        f"{cost.count} {cost.what}, {cost.workers} at a time: {cost.wall_seconds:.1f} s, "
        f"overhead {100 * cost.overhead:.1f} %",
        flush=True,
    )


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")] if text else []


if __name__ == "__main__":
    sys.exit(main())
