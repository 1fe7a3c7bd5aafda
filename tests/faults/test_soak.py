"""The soak's table, and its sentence about growth."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench import speed
from bench.measure import machine
from lenet5 import data
from tests.faults.soak import Held, growth, soak


def test_a_soak_writes_a_row_between_comparisons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((speed, "bench_of"), (machine, "witness"), (data, "load_dataset")):
        monkeypatch.setattr(module, name, getattr(module, name))  # the soak replaces them
    table = tmp_path / "table.csv"
    rows = soak(table, 0.0, real=False)
    with table.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(row["memory_mib"]) for row in written] == [row.memory_mib for row in rows]
    assert [row.processes for row in rows] == [0, 0]
    assert [row.temporary for row in rows] == [0, 0]


def test_growth_after_ten_minutes_is_named() -> None:
    early, ten, late = (
        Held(minutes, 1, memory, files, 4, 0, 0)
        for minutes, memory, files in ((1, 90, 7), (10.2, 100, 7), (60, 104, 8))
    )
    assert growth([early, ten, late]) == ["files: 7 after 10.2 min, 8 at the end (60 min)"]
    assert growth([early, ten, ten]) == []
