"""The table of costs counts tasks and the time around them; here with scripted workers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bench.environments.builds import build
from bench.environments.request import parse_request
from lenet5.data import Dataset, Subset
from lenet5.recipes import find_recipe
from tests.faults.costs import Cost, cost_of_seeds, cost_of_versions, write
from tests.measure.stub_worker import stub_python

BLACK = Subset(np.zeros((200, 28, 28, 1), np.uint8), np.zeros(200, np.uint8))


def test_overhead_is_the_time_of_workers_without_a_task() -> None:
    assert Cost("seeds", 4, 2, wall_seconds=11.0, task_seconds=20.0).overhead == pytest.approx(0.1)
    assert Cost("versions", 4, 1, wall_seconds=5.0, task_seconds=5.0).overhead == 0


def test_the_tasks_of_blocks_and_seeds_are_counted(tmp_path: Path) -> None:
    request = parse_request(f"python:{stub_python(tmp_path)} TF_STUB_PAUSE=0.05")
    built = build(request, tmp_path / "cache", say=lambda _: None)
    black = Dataset("mnist", BLACK, BLACK, BLACK)
    costs = [
        cost_of_versions(*(built, count, BLACK), workloads="fit_call", blocks=2, pair_seconds=0.0)
        for count in (1, 2)
    ]
    costs.append(cost_of_seeds(built, 4, 2, black, find_recipe("fast")))
    for cost in costs:
        assert cost.task_seconds <= cost.wall_seconds * cost.workers
    assert costs[2].task_seconds >= 4 * 2 * 0.05  # `start` and `train` of each seed
    write(costs, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["what"], row["count"], row["workers"]) for row in rows] == [
        *(("versions", "1", "1"), ("versions", "2", "1"), ("seeds", "4", "2")),
    ]
    assert float(rows[0]["overhead_percent"]) == pytest.approx(100 * costs[0].overhead, abs=0.1)
