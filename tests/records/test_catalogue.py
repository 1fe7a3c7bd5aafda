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
    DEVICE_MEMORY,
    FIRST_FIT,
    FIRST_STEP,
    GPU_WORKLOADS,
    GROWTH,
    IMPORT,
    MEMORY,
    SLICE,
    WORKLOADS,
    Spec,
    check_margin,
    select,
    workloads_on,
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
    "train_step[loop,b2048]",
    "train_step[xla,b128]",
    "train_step[raw,b128]",
    "fit[b128]",
    "fit[b128,t2]",
    "fit[b128,mirrored2]",
    "original_fit[b32]",
    "predict[b1]",
    "memory_growth",
]
GATED_ON_A_GPU = [
    "train_step[loop,b32]",
    "train_step[loop,b512]",
    "train_step[loop,b2048]",
    "fit[b512,nojit]",
    "fit_call",
    "predict[b512]",
    "import",
    "first_step",
    "first_fit[nojit]",
    "peak_memory",
    "device_memory",
]
INFORMATIONAL_ON_A_GPU = ["train_step[loop,b128]", "fit[b512,auto]", "first_fit[xla]"]
MARGINS_ON_A_GPU = {
    "train_step[loop,b32]": None,
    "train_step[loop,b512]": None,
    "train_step[loop,b2048]": None,
    "train_step[loop,b128]": None,
    "fit[b512,nojit]": 1.1,
    "fit[b512,auto]": 1.1,
    "fit_call": 1.1,
    "predict[b512]": 1.1,
    "import": 1.25,
    "first_step": 1.25,
    "first_fit[nojit]": 1.25,
    "first_fit[xla]": 1.25,
    "peak_memory": 1.1,
    "device_memory": 1.1,
}


def refusal(names: str, options: Any = None, device: str = "cpu") -> str:
    with pytest.raises(InputError) as caught:
        select(names, options or {}, device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_gated_and_all_are_selected_in_catalogue_order() -> None:
    assert list(select("gated", {})) == GATED
    assert list(select("all", {})) == GATED + INFORMATIONAL
    assert select("all", {}) == WORKLOADS


@pytest.mark.parametrize("device", ["gpu:0", "gpu:3"])
def test_a_gpu_has_workloads_gates_and_margins_of_its_own(device: str) -> None:
    """Without a margin of its own, a workload has the default of its device."""
    assert list(select("gated", {}, device)) == GATED_ON_A_GPU
    assert list(select("all", {}, device)) == GATED_ON_A_GPU + INFORMATIONAL_ON_A_GPU
    assert {n: spec.margin for n, spec in workloads_on(device).items()} == MARGINS_ON_A_GPU
    assert list(select("import train_step[loop,b2048]", {}, device)) == [
        *("train_step[loop,b2048]", "import"),
    ]
    changed = select("gated", {"first_fit[xla]": {"gated": True}, "import": {"margin": 2}}, device)
    assert changed["import"].margin == 2
    assert "first_fit[xla]" in changed


def test_the_cpus_workloads_and_margins_are_as_before() -> None:
    margins = {name: spec.margin for name, spec in WORKLOADS.items() if spec.margin is not None}
    assert margins == {
        "fit[b32]": 1.05,
        "fit_call": 1.05,
        "predict[b512]": 1.05,
        "import": 1.25,
        "first_step": 1.25,
        "peak_memory": 1.1,
        "memory_growth": 0.05,
    }
    assert not any(spec.own_budget_seconds for spec in WORKLOADS.values())
    changed = {name: spec.version for name, spec in WORKLOADS.items() if spec.version != 1}
    assert changed == {"first_step": 2, "peak_memory": 2}


@pytest.mark.parametrize(
    ("name", "device"), [("fit[b32]", "gpu:0"), ("device_memory", "cpu"), ("first_fit[xla]", "cpu")]
)
def test_a_workload_of_another_device_is_rejected_with_the_list_of_this_one(
    name: str, device: str
) -> None:
    where = " on a GPU" if device != "cpu" else ""
    for message in (refusal(name, device=device), refusal("gated", {name: {}}, device)):
        assert message == (
            f"unknown workload {name}{where}, choose from {' '.join(workloads_on(device))}"
        )


def test_what_may_compile_with_xla_has_a_budget_of_its_own() -> None:
    """All other workloads on a GPU turn XLA off, which Keras turns on there."""
    own = {name for name, spec in GPU_WORKLOADS.items() if spec.own_budget_seconds}
    assert own == {"first_fit[nojit]", "first_fit[xla]", "fit[b512,auto]"}
    for spec in GPU_WORKLOADS.values():
        if spec.builder in ("fit", "fit_call", "predict") and spec.name not in own:
            assert (spec.arguments or {})["jit_compile"] is False
        assert not spec.in_turns


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


@pytest.mark.parametrize(
    "spec",
    [*WORKLOADS.values(), *GPU_WORKLOADS.values()],
    ids=[*WORKLOADS, *(f"{name}-gpu" for name in GPU_WORKLOADS)],
)
def test_each_workload_is_fully_specified(spec: Spec) -> None:
    """Slices have a builder; training steps use `--margin`, other kinds a separate margin."""
    assert spec in (WORKLOADS.get(spec.name), GPU_WORKLOADS.get(spec.name))
    assert spec.version >= 1
    assert spec.least_steps % spec.step_multiple == 0
    if spec.kind == SLICE:
        assert spec.builder
        assert spec.margin is None or "train_step" not in spec.name
        assert spec.slice_seconds > 0
    else:
        assert spec.kind in (FIRST_STEP, IMPORT, MEMORY, GROWTH, DEVICE_MEMORY, FIRST_FIT)
        assert not spec.builder
        assert spec.margin is not None
    assert spec.unit == ("MiB" if spec.kind in (MEMORY, GROWTH, DEVICE_MEMORY) else "s")
    assert spec.is_difference == (spec.name == "memory_growth")
    if spec.margin is not None and not spec.is_difference:
        check_margin(spec.margin)


def test_selection_does_not_import_tensorflow() -> None:
    code = "import sys, bench.records.catalogue; print('tensorflow' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = run(command, env=of_checkout(), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
