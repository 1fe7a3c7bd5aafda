"""Every broken variant of the project is caught by its ordinary tests; no unbroken seed is.

Collected with `--mutations` only: each takes as long as the tests up to the third that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.mutations import (
    MUTATIONS,
    SEEDED_CHECKS,
    Caught,
    Mutation,
    apply,
    copy_project,
    run_checks,
    table,
)
from bench.report import FINDINGS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def found(pytestconfig: pytest.Config) -> Iterator[list[Caught]]:
    """What was caught so far; the table of all goes to the findings at the end."""
    caught: list[Caught] = []
    yield caught
    pytestconfig.stash.setdefault(FINDINGS, []).extend(table(caught).splitlines())


@pytest.fixture(scope="module")
def unbroken(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What fails without any mutation: then nothing that fails with one means anything."""
    folder = tmp_path_factory.mktemp("unbroken")
    copy_project(ROOT, folder)
    checks, output = run_checks(folder, mnist_dir=pytestconfig.option.mnist_dir)
    return output if checks else ""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_is_caught(
    pytestconfig: pytest.Config,
    mutation: Mutation,
    found: list[Caught],
    unbroken: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    assert not unbroken, "the unbroken project fails already"
    copy_project(ROOT, tmp_path)
    apply(mutation, tmp_path)
    checks, output = run_checks(tmp_path, mnist_dir=pytestconfig.option.mnist_dir)
    found.append(Caught(mutation, checks))
    record_property("caught_by", ", ".join(checks))
    assert checks, f"nothing noticed: {mutation.name}\n{output}"


def test_the_unbroken_project_passes(unbroken: str) -> None:
    assert not unbroken, unbroken


@pytest.mark.parametrize("seed", range(1, 20))
def test_the_unbroken_project_passes_with_other_seeds(
    pytestconfig: pytest.Config, seed: int, tmp_path: Path
) -> None:
    copy_project(ROOT, tmp_path)
    mnist_dir = pytestconfig.option.mnist_dir
    checks, output = run_checks(tmp_path, SEEDED_CHECKS, seed=seed, mnist_dir=mnist_dir)
    assert not checks, output
