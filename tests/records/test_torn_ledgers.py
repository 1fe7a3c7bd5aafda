"""Ledgers after a kill at any byte: nothing finished is lost, and the next process continues."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.records import ledger, results, trainings
from bench.records.trainings import Comparison
from lenet5.errors import InputError
from tests.records.test_results import comparison
from tests.records.test_trainings import SOME

TERMS = Comparison(0.3, paired=True, beside=True)
SETS = [SOME, replace(SOME, seeds=SOME.seeds[:1])]


def write_speed(path: Path, cache: Path) -> None:
    """Writes or continues a comparison of speed, as `pytest bench --baseline` does."""
    before = results.unfinished(path)
    with results.keeping(path, cache, before) as keep:
        keep(comparison() if before is None else replace(comparison(), complete=True))


def write_accuracy(path: Path, cache: Path) -> None:
    """Writes or continues a comparison of accuracy, as `pytest bench --seeds` does."""
    before = trainings.unfinished(path)
    if before is None:
        results.check_new(path, trainings.KIND)
    with trainings.keeping(path, cache, TERMS, None if before is None else before[0]) as keep:
        keep(SETS, complete=True)


def write_reference(path: Path, cache: Path) -> None:
    """Writes or continues a reference, as `python -m bench reference` does."""
    with trainings.keeping(path, cache) as keep:
        keep([SOME])


WRITERS: dict[str, tuple[Callable[[Path, Path], None], Callable[[Path], object]]] = {
    "speed": (write_speed, results.read),
    "accuracy": (write_accuracy, trainings.read_comparison),
    "reference": (write_reference, trainings.read_trainings),
}


def lines(path: Path) -> list[str]:
    """Returns the kinds of a ledger's lines, with the place or number of each record."""
    found = []
    for line in path.read_text().splitlines():
        ((name, content),) = json.loads(line).items()
        number = content.get("number", content.get("seed"))
        found.append(f"{name} {content.get('candidate', content.get('set'))} {number}")
    return found


@pytest.mark.parametrize("kind", WRITERS)
def test_a_ledger_cut_at_any_byte_is_continued(tmp_path: Path, kind: str) -> None:
    """Every record is there once; a whole last line that lacks only its end is kept."""
    write, read = WRITERS[kind]
    path, cache = tmp_path / "whole.jsonl", tmp_path / "cache"
    write(path, cache)
    whole, content, expected = path.read_bytes(), read(path), lines(path)
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    near = [end + step for end in ends for step in (-1, 0, 1, 2)]
    cuts = {*range(0, len(whole), max(len(whole) // 40, 1)), *range(60), *near}
    for cut in sorted(cut for cut in cuts if 0 <= cut < len(whole) - 1):
        torn = tmp_path / f"{cut}.jsonl"
        torn.write_bytes(whole[:cut])
        write(torn, cache)
        assert read(torn) == content
        records = [line for line in lines(torn) if not line.startswith(("header", "end"))]
        assert records == [line for line in expected if not line.startswith(("header", "end"))]


@pytest.mark.parametrize("kind", ["speed", "accuracy"])
def test_a_complete_or_foreign_file_is_never_continued(tmp_path: Path, kind: str) -> None:
    write, _ = WRITERS[kind]
    path = tmp_path / "r.jsonl"
    write(path, tmp_path / "cache")
    for content in (path.read_bytes(), b"notes without an end of line", b"\n", b'{"ledger":7}'):
        path.write_bytes(content)
        with pytest.raises(InputError, match="exists, results are never overwritten"):
            write(path, tmp_path / "cache")
        assert path.read_bytes() == content


def test_a_file_that_appeared_meanwhile_is_not_appended_to(tmp_path: Path) -> None:
    """Two comparisons may begin with the same new path."""
    path, cache = tmp_path / "r.jsonl", tmp_path / "cache"
    assert results.unfinished(path) is None
    write_speed(path, cache)
    before = path.read_bytes()
    with (
        pytest.raises(InputError, match="has changed since it was read"),
        results.keeping(path, cache),
    ):
        pass
    assert path.read_bytes() == before


def test_two_processes_with_other_caches_cannot_append_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with (
        ledger.appending(path, "speed", tmp_path / "one"),
        pytest.raises(InputError, match="another process appends to it"),
        ledger.appending(path, "speed", tmp_path / "other"),
    ):
        pass


@pytest.mark.parametrize("other", [None, b"notes of a user\n"])
def test_a_ledger_that_is_removed_or_replaced_ends_the_measurement(
    tmp_path: Path, other: bytes | None
) -> None:
    """Otherwise every later record would be lost; the other file is left alone."""
    path = tmp_path / "r.jsonl"
    with ledger.appending(path, "speed", tmp_path / "cache") as file:
        path.unlink()
        if other is not None:
            path.write_bytes(other)
        with pytest.raises(InputError, match="was removed or replaced while it was written"):
            file.append(ledger.HEADER, {})
    assert (path.read_bytes() if path.exists() else None) == other


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MOST_BYTES", 1000, "is larger than 0 MiB, the limit of a ledger"),
        ("LONGEST_LINE", 1000, "is damaged: line 2 is not a record"),
        ("DEEPEST", 2, "is damaged: line 2 is not a record"),
    ],
)
def test_size_and_depth_of_a_ledger_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, message: str
) -> None:
    path = tmp_path / "r.jsonl"
    results.write(path, comparison())
    monkeypatch.setattr(ledger, limit, value)
    with pytest.raises(InputError, match=message):
        results.read(path)


def test_deeply_nested_json_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    results.write(path, comparison())
    first, *others = path.read_bytes().splitlines(keepends=True)
    for levels in (100, 1_000):
        path.write_bytes(first + b'{"note":' + b"[" * levels + b"]" * levels + b"}\n" + others[0])
        with pytest.raises(InputError, match="is damaged: line 2 is not a record"):
            results.read(path)


def test_a_seed_that_would_count_twice_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_accuracy(path, tmp_path / "cache")
    *others, end = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*others, others[-1], end]))
    with pytest.raises(InputError, match="is damaged: it has a seed twice"):
        trainings.read_comparison(path)


def change_wrong(path: Path, **changes: Any) -> None:
    """Changes the first seed of a ledger."""
    opening, header, first, *others = path.read_text().splitlines()
    seed = json.loads(first)
    seed["seed"].update(changes)
    path.write_text("\n".join([opening, header, json.dumps(seed), *others, ""]))


@pytest.mark.parametrize("changes", [{"train_seconds": 1e999}, {"digits": "7x"}])
def test_impossible_seeds_are_damage(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "r.jsonl"
    write_reference(path, tmp_path / "cache")
    change_wrong(path, **changes)
    with pytest.raises(InputError, match="is damaged"):
        trainings.read_trainings(path)
