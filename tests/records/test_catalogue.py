"""Selection of workloads by name, in a fixed order, with the project's options."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from subprocess import run
from typing import Any

import pytest

from bench.records.catalogue import (
    FIRST_STEP,
    GROWTH,
    IMPORT,
    MEMORY,
    SLICE,
    WORKLOADS,
    Spec,
    check_margin,
    select,
)
from lenet5.errors import InputError
from tests.commands import of_checkout

GATED = [
    "train_step[loop,b32]",
    "train_step[loop,b128]",
    "fit[b32]",
    "fit_call",
    "predict[b512]",
    "import",
    "first_step",
    "peak_memory",
]
INFORMATIONAL = [
    "train_step[loop,b512]",
    "train_step[xla,b128]",
    "train_step[raw,b128]",
    "fit[b128]",
    "fit[b128,t2]",
    "fit[b128,mirrored2]",
    "original_fit[b32]",
    "predict[b1]",
    "memory_growth",
]


def refusal(names: str, options: Any = None) -> str:
    with pytest.raises(InputError) as caught:
        select(names, options or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_gated_and_all_are_selected_in_catalogue_order() -> None:
    assert list(select("gated", {})) == GATED
    assert list(select("all", {})) == GATED + INFORMATIONAL
    assert select("all", {}) == WORKLOADS


@pytest.mark.parametrize(
    "names",
    ["import fit[b32]", "fit[b32] import", "  fit[b32]\timport\n", "import import fit[b32]"],
)
def test_names_are_selected_in_catalogue_order(names: str) -> None:
    """The order of the names has no influence; a repeated name is selected once."""
    assert list(select(names, {})) == ["fit[b32]", "import"]


@pytest.mark.parametrize("names", ["fit", "import gated", "gated all", "Import", "fit[b32],import"])
def test_an_unknown_workload_is_rejected_with_a_list_of_workloads(names: str) -> None:
    message = refusal(names)
    unknown = next(name for name in names.split() if name not in WORKLOADS)
    assert message.startswith(f"unknown workload {unknown}, choose from train_step[loop,b32] ")
    assert message.endswith(" ".join(GATED + INFORMATIONAL))


@pytest.mark.parametrize("names", ["", "  "])
def test_an_empty_selection_is_rejected(names: str) -> None:
    assert refusal(names) == ("--workloads is empty: give gated, all, or names separated by spaces")


@pytest.mark.parametrize("names", ["gated", "all", "fit_call predict[b1] memory_growth"])
def test_project_options_override_the_catalogue(names: str) -> None:
    """They apply in every selection; other workloads and the catalogue stay unchanged."""
    options: Mapping[str, Mapping[str, Any]] = {
        "fit_call": {"margin": 1.2},
        "predict[b1]": {"gated": True, "margin": 2},
        "memory_growth": {"margin": 0.5, "gated": True},
        "import": {},
    }
    before = dict(WORKLOADS)
    chosen = select(names, options)
    changed = {
        "fit_call": replace(WORKLOADS["fit_call"], margin=1.2),
        "predict[b1]": replace(WORKLOADS["predict[b1]"], gated=True, margin=2),
        "memory_growth": replace(WORKLOADS["memory_growth"], gated=True, margin=0.5),
    }
    assert chosen.items() >= changed.items()
    assert {n: s for n, s in chosen.items() if n not in changed}.items() <= before.items()
    assert before == WORKLOADS
    assert list(chosen) == [name for name in WORKLOADS if name in chosen]


def test_gated_does_not_select_a_workload_ungated_by_the_project() -> None:
    assert list(select("gated", {"fit_call": {"gated": False}})) == [
        name for name in GATED if name != "fit_call"
    ]
    none = {name: {"gated": False} for name in GATED}
    assert refusal("gated", none) == ("no workload is gated: name workloads")
    assert list(select("fit_call", none)) == ["fit_call"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": {"margin": 1.1}}, "unknown workload fit, choose from train_step"),
        ({"import": {"limit": 1.1}}, "option limit = 1.1 of import: margin or gated is expected"),
        ({"import": {"gated": 1}}, "option gated = 1 of import: margin or gated is expected"),
        ({"import": {"gated": "no"}}, "option gated = 'no' of import: margin or gated is"),
        ({"import": {"margin": "1.1"}}, "option margin = '1.1' of import: margin or gated is"),
        ({"memory_growth": {"margin": True}}, "option margin = True of memory_growth: margin or"),
        ({"import": {"margin": 0.9}}, "margin of import is 0.9, expected a ratio from 1.001 to 10"),
        ({"import": {"margin": 25}}, "margin of import is 25, expected a ratio from 1.001 to 10"),
        ({"import": {"margin": math.nan}}, "margin of import is nan, expected a ratio from"),
        ({"memory_growth": {"margin": math.nan}}, "margin of memory_growth is nan, expected MiB"),
        ({"memory_growth": {"margin": math.inf}}, "margin of memory_growth is inf, expected MiB"),
        ({"memory_growth": {"margin": 0}}, "margin of memory_growth is 0, expected MiB per call"),
        ({"memory_growth": {"margin": -1}}, "margin of memory_growth is -1, expected MiB per call"),
        ({"import": 1.1}, "import = 1.1: a table of margin and gated is expected"),
    ],
)
@pytest.mark.parametrize("names", ["all", "fit_call"])
def test_an_invalid_option_is_rejected(
    names: str, options: Mapping[str, Any], message: str
) -> None:
    """The check includes workloads outside the selection."""
    assert refusal(names, options).startswith(message)


@pytest.mark.parametrize("margin", [1.001, 1.03, 10, 10.0])
def test_a_margin_is_a_ratio_above_one(margin: float) -> None:
    check_margin(margin)


@pytest.mark.parametrize("margin", [1.0, 1.0009, 10.01, 3.0e2, 0.03, -1.03, math.nan, math.inf])
def test_a_margin_out_of_range_is_rejected_by_name(margin: float) -> None:
    with pytest.raises(InputError) as caught:
        check_margin(margin)
    assert str(caught.value) == (
        f"--margin is {margin}, expected a ratio from 1.001 to 10, such as 1.03"
    )


@pytest.mark.parametrize("spec", WORKLOADS.values(), ids=WORKLOADS)
def test_each_workload_is_fully_specified(spec: Spec) -> None:
    """Slices have a builder; training steps use `--margin`, other kinds a separate margin."""
    assert WORKLOADS[spec.name] is spec
    assert spec.version >= 1
    assert spec.least_steps % spec.step_multiple == 0
    if spec.kind == SLICE:
        assert spec.builder
        assert spec.margin is None or "train_step" not in spec.name
        assert spec.slice_seconds > 0
    else:
        assert spec.kind in (FIRST_STEP, IMPORT, MEMORY, GROWTH)
        assert not spec.builder
        assert spec.margin is not None
    assert spec.unit == ("MiB" if spec.kind in (MEMORY, GROWTH) else "s")
    assert spec.is_difference == (spec.name == "memory_growth")
    if spec.margin is not None and not spec.is_difference:
        check_margin(spec.margin)


def test_selection_does_not_import_tensorflow() -> None:
    code = "import sys, bench.records.catalogue; print('tensorflow' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = run(command, env=of_checkout(), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
