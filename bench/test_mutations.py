"""The ordinary tests notice every mutation and breakage, and accept the unbroken project.

Collected with `--mutations` only. Each test takes as long as the ordinary tests up to the third
failure, plus the accuracy gate if none fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.mutations.checks import (
    GATE,
    HEADER,
    ORDINARY_CHECKS,
    Noticed,
    notice,
    rows,
    run_checks,
)
from bench.mutations.framework import BREAKAGES
from bench.mutations.framework.breakage import Breakage
from bench.mutations.project import MUTATIONS, Mutation, apply, copy_project
from bench.report.session import FINDINGS
from bench.report.tables import Table

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def found(pytestconfig: pytest.Config) -> Iterator[list[Noticed]]:
    """Results so far; their table goes to the findings at the end."""
    noticed: list[Noticed] = []
    yield noticed
    pytestconfig.stash.setdefault(FINDINGS, []).append(Table(HEADER, rows(noticed), left=4))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unchanged copy of the project."""
    folder = tmp_path_factory.mktemp("copy")
    copy_project(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(pytestconfig: pytest.Config, copy: Path) -> str:
    """Output of failures without any breakage; such failures make all other results meaningless."""
    checks = [*ORDINARY_CHECKS, GATE]
    failed, output = run_checks(copy, checks, mnist_dir=pytestconfig.option.mnist_dir)
    return output if failed else ""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_of_the_project_is_noticed(
    pytestconfig: pytest.Config,
    mutation: Mutation,
    found: list[Noticed],
    unbroken: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    assert not unbroken, "the unbroken project fails already"
    copy_project(ROOT, tmp_path)
    apply(mutation, tmp_path)
    failed, output = notice(tmp_path, mnist_dir=pytestconfig.option.mnist_dir)
    found.append(Noticed(mutation.name, mutation.file, failed))
    record_property("noticed_by", ", ".join(failed))
    assert failed, f"no test noticed: {mutation.name}\n{output}"


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.name)
def test_a_breakage_of_the_framework_is_noticed(
    pytestconfig: pytest.Config,
    breakage: Breakage,
    found: list[Noticed],
    unbroken: str,
    copy: Path,
    record_property: Callable[[str, object], None],
) -> None:
    assert not unbroken, "the unbroken project fails already"
    mnist_dir = pytestconfig.option.mnist_dir
    failed, output = notice(copy, breakage=breakage.name, mnist_dir=mnist_dir)
    found.append(Noticed(breakage.name, breakage.kind, failed))
    record_property("noticed_by", ", ".join(failed))
    assert failed, f"no test noticed: {breakage.name}\n{output}"


def test_the_unbroken_project_passes(unbroken: str) -> None:
    assert not unbroken, unbroken


@pytest.mark.parametrize("seed", range(1, 20))
def test_the_unbroken_project_passes_with_other_seeds(
    pytestconfig: pytest.Config, seed: int, copy: Path
) -> None:
    mnist_dir = pytestconfig.option.mnist_dir
    failed, output = run_checks(copy, [GATE], seed=seed, mnist_dir=mnist_dir)
    assert not failed, output
