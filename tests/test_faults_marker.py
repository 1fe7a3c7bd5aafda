"""The long trials of faults run only on request."""

from __future__ import annotations

import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("arguments", "passed", "deselected"),
    [
        ((), 1, 1),
        (("-m", "not mnist"), 1, 1),
        (("-m", "faults"), 1, 1),
        (("-m", "faults", "-k", "short"), 0, 2),
    ],
)
def test_only_a_marker_expression_with_faults_selects_them(
    pytester: pytest.Pytester,
    pytestconfig: pytest.Config,
    arguments: tuple[str, ...],
    passed: int,
    deselected: int,
) -> None:
    conftest = pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    assert conftest is not None
    hooks = types.ModuleType("hooks")
    name = "pytest_collection_modifyitems"
    setattr(hooks, name, getattr(conftest, name))
    pytester.makeini("[pytest]\naddopts =\nmarkers =\n    faults\n    mnist")
    pytester.makepyfile(
        """
        import pytest
        def test_short(): pass
        @pytest.mark.faults
        def test_long(): pass
        """
    )
    done = pytester.runpytest_inprocess(*arguments, plugins=[hooks])
    done.assert_outcomes(passed=passed, deselected=deselected)
