"""Archives: ledgers at any depth; other files are named and do not stop the reading."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.records import results, trainings
from bench.records.archive import Omitted, Stored, StoredSeeds, read_archive
from bench.records.stages import OPTION
from bench.verdicts.collection import condensed
from lenet5.errors import InputError
from tests import histories
from tests.synthetic import LOOP


def written(folder: Path, number: int = 0) -> Path:
    stored = histories.run(number, {LOOP: 0.01})
    path = folder / stored.path
    path.parent.mkdir(parents=True, exist_ok=True)
    results.write(path, stored.results)
    return path


def test_ledgers_are_found_at_any_depth_and_others_are_named(tmp_path: Path) -> None:
    first, second = written(tmp_path, 1), written(tmp_path, 0)
    (tmp_path / "notes.txt").write_text("no ledger")
    (tmp_path / "foreign.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "binary.jsonl").write_bytes(b"\x00\xff")
    damaged = tmp_path / "x" / "damaged.jsonl"
    damaged.parent.mkdir()
    damaged.write_text(first.read_text().replace('"request"', '"requests"'))
    found = list(read_archive(tmp_path))
    assert {each.path for each in found if isinstance(each, Stored)} == {
        path.relative_to(tmp_path).as_posix() for path in (first, second)
    }
    named = {each.path: each.reason for each in found if isinstance(each, Omitted)}
    assert set(named) == {"foreign.jsonl", "binary.jsonl", "x/damaged.jsonl"}
    assert named["foreign.jsonl"] == "is damaged or not a ledger"
    assert all(str(tmp_path) not in reason and "\n" not in reason for reason in named.values())


def test_comparisons_of_accuracy_are_read_and_references_are_named(tmp_path: Path) -> None:
    reference = trainings.reference_path("fast", "graph")
    (tmp_path / "fast.jsonl").write_bytes(reference.read_bytes())
    sets = trainings.read_trainings(reference) * 2
    terms = trainings.Comparison(0.2, paired=True, beside=True)
    trainings.write_trainings(tmp_path / "x.jsonl", sets, terms)
    (tmp_path / "z.jsonl").write_bytes((tmp_path / "x.jsonl").read_bytes())
    named, compared, copy = read_archive(tmp_path)
    assert named == Omitted("fast.jsonl", "holds seeds without a comparison")
    assert isinstance(compared, StoredSeeds)
    assert (compared.sets, compared.terms) == (tuple(sets), terms)
    assert copy == Omitted("z.jsonl", "the same run as x.jsonl")


def test_a_copy_of_a_run_counts_once_even_condensed(tmp_path: Path) -> None:
    """`python -m bench report` writes a condensed copy of its ledger."""
    path = written(tmp_path)
    results.write(tmp_path / "z.jsonl", condensed(results.read(path)))
    first, second = read_archive(tmp_path)
    assert isinstance(first, Stored)
    assert second == Omitted("z.jsonl", f"the same run as {first.path}")


def test_moments_are_in_utc_whatever_their_offset(tmp_path: Path) -> None:
    path = written(tmp_path)
    one = results.read(path)
    results.write(path, replace(one, started="2026-01-01T05:00:00+02:00"))
    results.write(tmp_path / "z.jsonl", replace(one, started="2026-01-01T03:00:00Z"))
    results.write(tmp_path / "zz.jsonl", replace(one, started="yesterday"))
    *there, last = read_archive(tmp_path)
    assert [each.moment for each in there if isinstance(each, Stored)] == [histories.START] * 2
    assert last == Omitted("zz.jsonl", "has no date of its start: yesterday")


@pytest.mark.parametrize(
    ("name", "problem"), [("absent", "is not a folder"), ("", "holds no ledger (*.jsonl)")]
)
def test_a_folder_without_ledgers_is_an_error(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(InputError, match=re.escape(problem)):
        list(read_archive(tmp_path / name))


def test_a_stage_of_a_bisection_is_no_run(tmp_path: Path) -> None:
    one = results.read(written(tmp_path))
    stage = replace(one, options={**one.options, OPTION: {}})
    results.write(tmp_path / "z.jsonl", stage)
    _, last = read_archive(tmp_path)
    assert isinstance(last, Omitted)
    assert last.reason.startswith("a stage of a bisection")
