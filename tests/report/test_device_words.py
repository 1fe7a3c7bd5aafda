"""Device and mode of a comparison in its notes and in its facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.records.blocks import Results
from bench.report import words
from tests.synthetic import simulated

H200 = {"cpu": "a processor", "gpu": {"model": "NVIDIA H200", "driver": "550.90"}}
TF32, FLOAT32 = ({"tf32": on, "deterministic_ops": False} for on in (True, False))


def on_gpu(**more: Any) -> Results:
    """Returns a comparison on a GPU."""
    found = simulated()
    return replace(found, options={**found.options, "device": "gpu:1"}, **more)


@pytest.mark.parametrize(
    ("machine", "baseline", "candidate", "device"),
    [
        ({}, {}, {}, "gpu:1"),
        (H200, {}, {}, "gpu:1 (NVIDIA H200)"),
        ({"gpu": "rubbish"}, {}, {}, "gpu:1"),
        (H200, TF32, TF32, "gpu:1 (NVIDIA H200), TF32 on"),
        (H200, TF32, {}, "gpu:1 (NVIDIA H200), TF32 on"),
        (
            *(H200, FLOAT32, {**FLOAT32, "deterministic_ops": True}),
            "gpu:1 (NVIDIA H200); 2.15.1: TF32 off; 2.21.0: TF32 off, deterministic",
        ),
    ],
)
def test_a_comparison_on_a_gpu_names_the_device_and_its_mode(
    machine: dict[str, Any], baseline: dict[str, Any], candidate: dict[str, Any], device: str
) -> None:
    found = on_gpu(machine=machine)
    found = replace(
        found,
        baseline=replace(found.baseline, versions=baseline),
        candidates=(replace(found.candidates[0], versions=candidate),),
    )
    rows = dict(words.how_measured(found))
    assert rows["Devices"] == device
    assert "Device" not in rows
    assert words.notes(found)[0] == f"Measured on {device}."


@pytest.mark.parametrize("options", [{}, {"device": "cpu"}])
def test_a_comparison_on_the_cpu_reads_as_before(options: dict[str, Any]) -> None:
    found = replace(simulated(), options=options)
    rows = dict(words.how_measured(found))
    assert rows["Devices"] == "CPUs only: GPUs are hidden from TensorFlow"
    assert "Device" not in rows
    assert rows["Measured"].endswith("6 blocks in 2.0 min, complete")
    assert not words.notes(found)


def test_time_beside_the_budget_is_named() -> None:
    found = on_gpu()
    blocks = [replace(b, own_seconds={"first_fit[xla]": 30.0, "b": 10.0}) for b in found.blocks]
    rows = dict(words.how_measured(replace(found, blocks=tuple(blocks))))
    told = "6 blocks in 2.0 min and 4.0 min beside the budget, complete"
    assert rows["Measured"].endswith(told)
