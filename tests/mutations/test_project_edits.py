"""Mutations change the code, and the runner of the ordinary tests reports failures correctly."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bench.mutations import checks
from bench.mutations.checks import GATE, HEADER, ORDINARY_CHECKS, Noticed, notice, rows, run_checks
from bench.mutations.framework import BREAKAGES
from bench.mutations.project import MUTATIONS, Mutation, apply

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_changes_one_place_and_stays_valid_python(
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
    with pytest.raises(ValueError, match="it is stale"):
        apply(MUTATIONS[0], tmp_path)


def test_the_checks_exist_and_do_not_import_mutations() -> None:
    for check in (*ORDINARY_CHECKS, GATE):
        assert "bench.mutations" not in (ROOT / check).read_text()


def test_fit_tests_run_first_and_the_gate_is_separate() -> None:
    of_fit = {f"tests/{path.name}" for path in (ROOT / "tests").glob("test_fit_*.py")}
    assert set(ORDINARY_CHECKS[: len(of_fit)]) == of_fit
    assert len(set(ORDINARY_CHECKS)) == len(ORDINARY_CHECKS) > len(of_fit)
    assert GATE not in ORDINARY_CHECKS


def test_the_table_has_the_category_of_the_first_failed_test() -> None:
    found = [
        Noticed("Adam", "optimiser", ("tests/test_fit_adam.py::test_a[1-2]", "tests/test_b.py::c")),
        Noticed("tanh", "layer", ("tests/test_b.py::c", "tests/test_fit_adam.py::test_a")),
        Noticed("L2", "regulariser", (f"{GATE}::test_d",)),
        Noticed("order", "steps.py", ()),
    ]
    assert rows(found) == [
        ("Adam", "optimiser", "a test of fit", "test_fit_adam.py::test_a[1-2]", "2"),
        ("tanh", "layer", "another test", "test_b.py::c", "2"),
        ("L2", "regulariser", "the gate alone", "test_accuracy_gate.py::test_d", "1"),
        ("order", "steps.py", "nothing", "", "0"),
    ]
    assert {len(row) for row in rows(found)} == {len(HEADER)}


CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--seed", type=int)
    parser.addoption("--one-process", action="store_true")
"""


PARAMETRIZED = """
import pytest
@pytest.mark.parametrize("l2", [1, 2], ids=["l2", "no l2"])
def test_c(l2): assert l2 == 1, "a - b"
"""


def checked(folder: Path, content: str, breakage: str | None = None) -> tuple[tuple[str, ...], str]:
    """Runs one test module with that content."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(content)
    return run_checks(folder, ["test_it.py"], breakage=breakage)


@pytest.mark.parametrize(
    ("content", "failed"),
    [
        ("def test_a(): pass\ndef test_b(): assert 1 == 2", ("test_it.py::test_b",)),
        ("def test_a(): pass", ()),
        ("import no_such_module", ("test_it.py",)),
        (PARAMETRIZED, ("test_it.py::test_c[no l2]",)),
    ],
)
def test_failed_checks_are_named(tmp_path: Path, content: str, failed: tuple[str, ...]) -> None:
    assert checked(tmp_path, content)[0] == failed


def test_checks_over_their_time_limit_raise_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_LONGEST_SECONDS", 0.5)
    with pytest.raises(RuntimeError, match=r"did not finish within 0\.5 s"):
        checked(tmp_path, "import time; time.sleep(600)")


def test_missing_checks_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="pytest ended with status 4"):
        run_checks(tmp_path, ["test_missing.py"])


L2_OF_FOUR = """
import pytest
@pytest.mark.parametrize("expected", [2, 4])
def test_l2(expected):
    import tensorflow as tf
    assert float(tf.keras.regularizers.L2(1.0)(tf.constant([2.0]))) == expected
"""


def test_checks_run_under_a_breakage_of_keras(tmp_path: Path) -> None:
    """The process breaks Keras before it imports the first test."""
    for name in ("bench", "lenet5"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert checked(tmp_path, L2_OF_FOUR, "L2 halved")[0] == ("test_it.py::test_l2[4]",)


@pytest.mark.parametrize(
    ("ordinary", "gate_only", "ran"),
    [
        (("tests/test_a.py::b",), False, ["ordinary"]),
        ((), False, ["ordinary", "gate"]),
        (("tests/test_a.py::b",), True, ["gate"]),
    ],
)
def test_the_gate_runs_alone_or_after_passing_ordinary_tests(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ordinary: tuple[str, ...],
    gate_only: bool,
    ran: list[str],
) -> None:
    of_gate, runs = (f"{GATE}::test_c",), []

    def run(folder: Path, modules: list[str], **options: object) -> tuple[tuple[str, ...], str]:
        assert (folder, options) == (tmp_path, {"breakage": "L2 halved", "mnist_dir": None})
        runs.append("gate" if list(modules) == [GATE] else "ordinary")
        return (of_gate if runs[-1] == "gate" else ordinary), "output"

    monkeypatch.setattr(checks, "run_checks", run)
    failed, _ = notice(tmp_path, breakage="L2 halved", gate_only=gate_only, mnist_dir=None)
    assert runs == ran
    assert failed == (of_gate if ran[-1] == "gate" else ordinary)


def test_mutations_and_breakages_have_unique_names() -> None:
    """One table lists both."""
    names = [m.name for m in MUTATIONS] + [b.name for b in BREAKAGES]
    assert len(set(names)) == len(names)
