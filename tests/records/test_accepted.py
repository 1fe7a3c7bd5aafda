"""Accepted steps: a TOML file whose every error is one line."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from bench.records.accepted import Accepted, read_accepted
from lenet5.errors import InputError

ENTRY = 'series = "a of b on c"\ndate = 2026-11-20\nreason = "known"\n'


def test_entries_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "accepted.toml"
    path.write_text(f"[[step]]\n{ENTRY}[[step]]\n{ENTRY.replace('2026-11-20', repr('2026-11-21'))}")
    days = [date(2026, 11, 20), date(2026, 11, 21)]
    assert read_accepted(path) == [Accepted("a of b on c", day, "known") for day in days]


def test_an_empty_file_accepts_nothing(tmp_path: Path) -> None:
    (tmp_path / "accepted.toml").touch()
    assert read_accepted(tmp_path / "accepted.toml") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[step]\n", "is not TOML: "),
        ("[[steps]]\n", "unknown key steps, expected [[step]]"),
        ("step = 3\n", "step is not a list"),
        ("step = [3]\n", "step 1: expected exactly the keys date, reason and series"),
        (f"[[step]]\n{ENTRY}[[step]]\n", "step 2: expected exactly the keys"),
        (f"[[step]]\n{ENTRY}why = 1\n", "step 1: expected exactly the keys"),
        (f"[[step]]\n{ENTRY.replace('known', ' ')}", "step 1: reason is empty or not a text"),
        (f"[[step]]\n{ENTRY.replace('2026-11-20', '7')}", "step 1: date is not a day"),
        (f"[[step]]\n{ENTRY.replace('2026-11-20', '2026-11-20T00:00:00')}", "date is not a day"),
        (f"[[step]]\n{ENTRY.replace('2026-11-20', repr('soon'))}", "date is not a day"),
        ("\udcff", "is not TOML: "),
    ],
)
def test_any_other_form_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "accepted.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as error:
        read_accepted(path)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_accepted(tmp_path / "absent.toml")
