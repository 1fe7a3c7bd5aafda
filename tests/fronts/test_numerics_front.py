"""`python -m bench numerics --device gpu` with a stand-in: the mode in force is judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench.__main__ as command
from bench.measure import machine
from bench.records.numerics import QUANTITIES
from bench.verdicts import numerics
from lenet5 import data
from lenet5.devices import CPU, Device
from lenet5.errors import InputError
from tests.fronts.gpu_stand_in import DRIVER, TRUTH, stand_in_python
from tests.measure.stub_worker import stub_python

BLACK = data.Subset(np.zeros((1_600, 28, 28, 1), np.uint8), np.zeros(1_600, np.uint8))
ON, OFF, DETERMINISTIC = "gpu:0, TF32 on", "gpu:0, TF32 off", "gpu:0, TF32 off, deterministic"

Numerics = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Numerics:
    """Returns a function that compares stand-ins on a GPU; it returns status, stdout and stderr."""
    mnist = data.Dataset("mnist", BLACK, BLACK, BLACK)
    monkeypatch.setattr(data, "load_dataset", lambda *_, **__: mnist)
    monkeypatch.setattr(machine, "describe", lambda **_: {"gpu": DRIVER})
    monkeypatch.setattr(numerics, "solve", lambda _: dict.fromkeys(QUANTITIES, TRUTH))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*settings: str, device: str = "gpu", **changes: Any) -> tuple[int, str, str]:
        python = stand_in_python(tmp_path, **changes)
        requests = [f"python:{python} {more}".strip() for more in settings or ("",)]
        options = [word for request in requests for word in ("--environment", request)]
        status = command.main(["numerics", "--device", device, *options])
        shown = capsys.readouterr()
        return status, shown.out.replace(str(python), "PYTHON").rstrip("\n"), shown.err

    return run


def test_every_row_has_its_device_and_mode(compare: Numerics) -> None:
    """By default: TF32 on, off, and off with deterministic operations, with own tolerances."""
    status, shown, _ = compare(deviations={"on": 9e-4, "off": 2e-7, "deterministic": 2e-7})
    header, *rows = shown.splitlines()
    assert status == 0
    assert header.split()[:2] == ["environment", "mode"]
    assert [row.split("  ")[1].strip() for row in rows] == [ON, OFF, DETERMINISTIC]
    assert ["9.0e-04" in row for row in rows] == [True, False, False]
    assert ["2.0e-07" in row for row in rows] == [False, True, True]


def test_a_deviation_as_with_tf32_fails_with_tf32_off(compare: Numerics) -> None:
    status, shown, _ = compare(deviations={"on": 9e-4, "off": 9e-4, "deterministic": 2e-7})
    assert status == 1
    assert "beyond the tolerance" in shown.splitlines()[2]
    assert f"FAIL: python:PYTHON, {OFF}: logits deviates by 0.0009" in shown


def test_tf32_off_but_in_force_fails_whatever_the_deviations(compare: Numerics) -> None:
    status, shown, _ = compare(faults={"numerics": {"tf32": True}})
    assert status == 1
    assert f"{ON} (asked for: TF32 off)" in shown.splitlines()[2]
    assert "not the mode asked for" in shown.splitlines()[2]
    assert f"FAIL: python:PYTHON, {OFF}: TF32 is switched off, but in force" in shown


def test_tf32_on_but_not_in_force_is_judged_as_off(compare: Numerics) -> None:
    """A GPU before Ampere, or NVIDIA_TF32_OVERRIDE=0."""
    ignored = {"faults": {"numerics": {"tf32": False}}}
    right = {"on": 2e-7, "off": 2e-7, "deterministic": 2e-7}
    status, shown, _ = compare(deviations=right, **ignored)
    assert status == 0
    assert f"{OFF} (asked for: TF32 on)" in shown.splitlines()[1]
    status, shown, _ = compare(deviations={**right, "on": 9e-4}, **ignored)
    assert status == 1
    assert "judged as TF32 off" in shown


def test_operations_that_stay_nondeterministic_fail(compare: Numerics) -> None:
    status, shown, _ = compare(faults={"numerics": {"deterministic_ops": False}})
    assert status == 1
    assert f"{DETERMINISTIC}: TF_DETERMINISTIC_OPS=1 is set, but operations are not" in shown


def test_a_setting_holds_for_all_modes_and_bits_are_compared_where_they_repeat(
    compare: Numerics,
) -> None:
    deterministic = "TF_DETERMINISTIC_OPS=1"
    status, shown, _ = compare(deterministic, f"{deterministic} TF_X=1")
    rows = shown.splitlines()[1:]
    assert status == 0
    assert ["TF32 on, deterministic" in row for row in rows] == [True, False, True, False]
    assert [row.endswith("the same") for row in rows] == [False, False, True, True]
    _, shown, _ = compare("TF_X=1", "TF_X=2")
    ends = [row.endswith("the same") for row in shown.splitlines()[1:]]
    assert ends == [False] * 5 + [True]


def test_an_answer_without_the_mode_is_invalid(compare: Numerics) -> None:
    status, shown, _ = compare(faults={"numerics": {"tf32": None}})
    assert status == 1
    assert "sent an invalid answer: its mode on the GPU is missing" in shown


def test_without_a_gpu_there_is_one_line_and_status_4(compare: Numerics) -> None:
    refusal = "error: InputError: --device gpu:0: this machine has no NVIDIA driver"
    status, shown, told = compare(device="gpu:3", faults={"start": refusal})
    assert (status, shown) == (4, "")
    assert told == "bench: error: --device gpu:3: this machine has no NVIDIA driver\n"


def test_a_driver_that_does_not_answer_is_one_line(
    compare: Numerics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked before any environment is built."""

    def refuse(device: Device = CPU) -> None:
        raise InputError(f"--device {device.name}: NVIDIA's driver gives no answer")

    monkeypatch.setattr(machine, "describe", refuse)
    told = "bench: error: --device gpu:2: NVIDIA's driver gives no answer\n"
    assert compare(device="gpu:2") == (4, "", told)


@pytest.mark.usefixtures("compare")
def test_one_environment_that_does_not_start_is_not_there(tmp_path: Path) -> None:
    """The others still have their results."""
    other = tmp_path / "other"
    other.mkdir()
    python = stub_python(other)
    refused = f"python:{python} TF_STUB_FAULT=start_-_raise"
    right = f"python:{stand_in_python(tmp_path)}"
    options = ["--device", "gpu", "--environment", refused, "--environment", right]
    assert command.main(["numerics", *options]) == 7


@pytest.mark.parametrize("device", ["tpu", "gpu:x", "gpu:-1"])
def test_an_unknown_device_is_one_line(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["numerics", "--device", device]) == 4
    told = f"bench: error: --device is {device!r}, expected cpu, gpu or gpu:N\n"
    assert capsys.readouterr().err == told
