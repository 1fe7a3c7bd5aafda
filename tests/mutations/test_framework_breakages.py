"""Each breakage of Keras and TensorFlow has the effect in its name, with the installed Keras."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from bench.mutations.framework import BREAKAGES, find_breakage
from bench.mutations.framework.breakage import (
    Breakage,
    around,
    around_gradient,
    everywhere,
    keras_module,
    with_attributes,
)
from tests.commands import of_checkout
from tests.mutations.probes import PROBES

KINDS = (
    *("optimiser", "schedule", "gradient", "layer", "dropout", "initialiser", "loss", "metric"),
    *("regulariser", "shuffling", "data", "evaluation", "callback", "saving"),
)


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.name)
def test_a_breakage_has_its_named_effect_until_undone(breakage: Breakage) -> None:
    is_broken = PROBES[breakage.name]
    with pytest.MonkeyPatch.context() as patch:
        breakage.install(patch)
        assert is_broken()
    assert not is_broken()


def test_each_breakage_has_a_unique_name_and_a_probe() -> None:
    names = [breakage.name for breakage in BREAKAGES]
    assert len(set(names)) == len(names)
    assert set(PROBES) == set(names)


def test_every_user_visible_part_has_breakages() -> None:
    assert {breakage.kind for breakage in BREAKAGES} == set(KINDS)


def test_a_breakage_is_found_by_its_name() -> None:
    assert find_breakage(BREAKAGES[3].name) is BREAKAGES[3]
    with pytest.raises(KeyError, match="no such"):
        find_breakage("no such")


def test_a_missing_attribute_cannot_be_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Keras with renamed attributes raises an error instead of counting as broken."""
    with pytest.raises(AttributeError, match="update_step"):
        around(monkeypatch, SimpleNamespace(), "update_step", lambda original: original)
    with pytest.raises(LookupError, match="no module holds"):
        everywhere(monkeypatch, lambda: None, lambda original: original)
    with pytest.raises(KeyError, match="NoSuchOperation"):
        around_gradient(monkeypatch, "NoSuchOperation", lambda original: original)
    with pytest.raises(LookupError, match="has no module no_such"):
        keras_module("no_such")
    with pytest.raises(KeyError, match="epsilon"):
        with_attributes(SimpleNamespace(), {"epsilon": 1.0}, lambda: None)


def test_replaced_attributes_are_restored_even_after_an_error() -> None:
    thing = SimpleNamespace(rate=1.0)
    assert with_attributes(thing, {"rate": 2.0}, lambda: thing.rate) == 2.0
    with pytest.raises(ZeroDivisionError):
        with_attributes(thing, {"rate": 0.0}, lambda: 1 / thing.rate)
    assert thing.rate == 1.0


@pytest.mark.parametrize("module", ["framework", "checks", "project"])
def test_the_catalogue_is_importable_without_tensorflow(module: str) -> None:
    code = f"import sys, bench.mutations.{module}; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=of_checkout(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
