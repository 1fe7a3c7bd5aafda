"""Mutations break what they say: each text is there once, so that none goes stale unnoticed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bench import mutations
from bench.mutations import (
    CHECKS,
    MUTATIONS,
    SEEDED_CHECKS,
    Caught,
    Mutation,
    apply,
    run_checks,
    table,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_replaces_one_place_and_leaves_python(
    mutation: Mutation, tmp_path: Path
) -> None:
    (tmp_path / "lenet5").mkdir()
    copy = tmp_path / "lenet5" / mutation.file
    copy.write_text((ROOT / "lenet5" / mutation.file).read_text())
    apply(mutation, tmp_path)
    before = ast.dump(ast.parse((ROOT / "lenet5" / mutation.file).read_text()))
    assert ast.dump(ast.parse(copy.read_text())) != before


def test_a_stale_mutation_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lenet5").mkdir()
    (tmp_path / "lenet5" / "steps.py").write_text("nothing\n")
    with pytest.raises(ValueError, match="it went stale"):
        apply(MUTATIONS[0], tmp_path)


def test_the_checks_are_there() -> None:
    assert all((ROOT / check).is_file() for check in CHECKS)
    assert set(SEEDED_CHECKS) <= set(CHECKS)


def test_the_table_names_what_caught_each() -> None:
    found = [
        Caught(MUTATIONS[0], ("tests/test_gradients.py::test_a", "tests/test_b.py::c")),
        Caught(MUTATIONS[1], ()),
    ]
    assert table(found).splitlines()[2:] == [
        "| learning rate times 10 | `test_gradients.py::test_a`, `test_b.py::c` |",
        "| learning rate divided by 30 | **nothing** |",
    ]


CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--seed", type=int)
"""


def checked(folder: Path, content: str) -> tuple[tuple[str, ...], str]:
    """Runs one test module of that content."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(content)
    return run_checks(folder, ["test_it.py"])


@pytest.mark.parametrize(
    ("content", "failed"),
    [
        ("def test_a(): pass\ndef test_b(): assert 1 == 2", ("test_it.py::test_b",)),
        ("def test_a(): pass", ()),
        ("import no_such_module", ("test_it.py",)),
    ],
)
def test_checks_that_fail_are_named(tmp_path: Path, content: str, failed: tuple[str, ...]) -> None:
    assert checked(tmp_path, content)[0] == failed


def test_checks_without_an_end_catch_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutations, "_LONGEST_SECONDS", 2.0)
    with pytest.raises(RuntimeError, match="did not end in 2 s"):
        checked(tmp_path, "import time; time.sleep(600)")


def test_checks_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="pytest ended with status 4"):
        run_checks(tmp_path, ["test_missing.py"])
