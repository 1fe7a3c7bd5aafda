"""`python -m bench gpu-check` with a stand-in for the GPU: verdicts, limits, files, exit status."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench.__main__ as command
from bench.environments.builds import Built
from bench.environments.request import parse_request
from bench.gpu_check import command as front
from bench.gpu_check import context as contexts
from bench.gpu_check import lines as all_lines
from bench.gpu_check.context import Context
from bench.gpu_check.lines import checks_on, modes_on, training_of_check
from bench.gpu_check.running import Check, run_checks
from bench.measure import machine
from bench.plans.speed import Terms
from bench.records import blocks
from bench.records.numerics import QUANTITIES, Computed, Mode
from bench.report.gpu_check.page import FAIL, NOT_RUN, PASS, Line
from lenet5 import data
from lenet5.devices import CPU, Device
from lenet5.errors import InputError
from tests.fronts.gpu_stand_in import DRIVER, MODEL, TRUTH, stand_in_python

NAMES = [check.name for check in checks_on("gpu:0")]
BLACK = data.Subset(np.zeros((1_600, 28, 28, 1), np.uint8), np.zeros(1_600, np.uint8))

Checked = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Checked:
    """Returns a function that checks a stand-in; it returns the status and the JSON file.

    Arguments are the names of the lines (none: all), the budget of each line, and changes of
    `gpu_stand_in.CONFIG`.
    """
    described = machine.describe()
    mnist = data.Dataset("mnist", BLACK, BLACK, BLACK)
    monkeypatch.setattr(data, "load_dataset", lambda *_, **__: mnist)
    monkeypatch.setattr(machine, "describe", lambda **_: {**described, "gpu": DRIVER})
    monkeypatch.setattr(machine, "witness", lambda *_, **__: blocks.Witness(1e-4, load=0.0))
    monkeypatch.setattr(contexts, "solve", lambda _: dict.fromkeys(QUANTITIES, TRUTH))
    monkeypatch.setattr("bench.measure.capacity.processes", lambda _: 6)
    monkeypatch.setattr(all_lines, "_PAIR_SECONDS", 0.0)
    monkeypatch.setattr(all_lines, "FIT_SECONDS", 0.3)
    monkeypatch.setattr(all_lines, "_LEAST_FIT_SECONDS", 0.1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(
        *names: str, seconds: float = 60, device: str = "gpu", **changes: Any
    ) -> tuple[int, dict[str, Any]]:
        checks = [
            replace(one, budget_seconds=seconds)
            for one in checks_on("gpu:0")
            if not names or one.name in ("device", *names)
        ]
        monkeypatch.setattr(front, "checks_on", lambda _: checks)
        python = stand_in_python(tmp_path, **changes)
        out, figures = tmp_path / "check.html", tmp_path / "check.json"
        options = ("--device", device, "--environment", f"python:{python}")
        capsys.readouterr()
        status = command.main(["gpu-check", *options, "--out", str(out), "--json", str(figures)])
        return status, json.loads(figures.read_text())

    return run


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    """Returns the verdict of each line."""
    return {line["name"]: line["verdict"] for line in found["lines"]}


def finding(found: dict[str, Any], name: str) -> str:
    """Returns the finding of a line."""
    return next(str(line["finding"]) for line in found["lines"] if line["name"] == name)


def test_all_lines_pass_on_a_right_gpu(
    check: Checked, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Terminal, JSON and page have every line; the fit with XLA is not back, which is a result."""
    status, found = check(faults={"first_fit None": "hang"})
    shown = capsys.readouterr().out.splitlines()
    assert verdicts(found) == dict.fromkeys(NAMES, PASS)
    assert status == 0
    assert [line.split(": ")[0].split(" s  ")[1] for line in shown[:-1]] == NAMES
    assert all(line.startswith("PASS ") for line in shown[:-1])
    assert shown[-1].startswith(f"PASS: {len(NAMES)} of {len(NAMES)} lines pass; ")
    figures = {line["name"]: line["figures"] for line in found["lines"]}
    assert figures["device"]["gpu"] == MODEL
    assert figures["device"]["driver"]["driver"] == "550.54.15"
    assert figures["images per second, batch 2048"]["images_per_second"] == pytest.approx(739_117)
    assert figures["numerics, TF32 on"]["deviations"]["logits"] == pytest.approx(9e-4)
    assert figures["accuracy of fast"]["wrong"] == 126
    assert figures["peak device memory"] == {"peak_mib": 312.5}
    assert figures["comparison with itself"]["blocks"] == 4
    assert figures["first fit as Keras decides"]["fit_seconds"] is None
    assert finding(found, "first fit as Keras decides").startswith("not back after ")
    assert found["is_complete"]
    assert found["verdict"] == "PASS"
    page = (tmp_path / "check.html").read_text()
    assert f"GPU check: {MODEL}" in page
    assert all(name in page for name in NAMES)
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("images per second, batch 512", {"faults": {"slice": {"value": "x"}}}, "invalid answer"),
        ("first fit without XLA", {"faults": {"first_fit False": "crash"}}, "SIGSEGV"),
        ("peak device memory", {"faults": {"device_memory": "error: RuntimeError: no"}}, "no"),
        ("numerics, TF32 on", {"deviations": {"on": 6e-3, "off": 0, "deterministic": 0}}, "logits"),
        (
            "numerics, TF32 off",
            {"deviations": {"on": 0, "off": 9e-4, "deterministic": 0}},
            "logits",
        ),
        ("numerics, TF32 off", {"faults": {"numerics": {"tf32": True}}}, "switched off"),
        (
            "numerics, deterministic",
            {"faults": {"numerics": {"deterministic_ops": False}}},
            "TF_DETERMINISTIC_OPS=1 is set",
        ),
        ("accuracy of fast", {"wrong": 260}, "97.40 % (260 wrong of 10,000)"),
        ("accuracy of fast", {"wrong": 20}, "bounds 98 to 99.2 %"),
        ("accuracy of fast", {"faults": {"train": {"wrong": 10_001}}}, "invalid answer"),
        ("first fit as Keras decides", {"faults": {"first_fit None": "crash"}}, "SIGSEGV"),
    ],
)
def test_a_wrong_line_fails(check: Checked, name: str, changes: dict[str, Any], told: str) -> None:
    status, found = check(name, **changes)
    assert verdicts(found) == {"device": PASS, name: FAIL}
    assert told in finding(found, name)
    assert status == 1
    assert found["verdict"] == "FAIL"


def test_a_line_after_a_crash_has_a_worker_of_its_own(check: Checked) -> None:
    _, found = check(
        *("images per second, batch 32", "images per second, batch 128"),
        faults={"slice train_step[loop,b32]": "crash"},
    )
    assert list(verdicts(found).values()) == [PASS, FAIL, PASS]
    _, found = check(
        *("first fit without XLA", "peak device memory"), faults={"first_fit False": "crash"}
    )
    assert list(verdicts(found).values()) == [PASS, FAIL, PASS]


def test_other_bits_fail_only_with_deterministic_operations(
    check: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "same bits, deterministic", "same bits, TF32 on"
    _, found = check(*names)
    assert list(verdicts(found).values()) == [PASS] * 3
    assert finding(found, names[0]) == "the same bits in 2 processes"
    assert finding(found, names[1]) == "other bits in 2 processes (informational)"
    with monkeypatch.context() as patch:
        patch.setattr(Context, "computed", _other_bits)
        _, found = check(names[0])
    assert verdicts(found)[names[0]] == FAIL
    assert finding(found, names[0]) == "other bits in 2 processes"


def _other_bits(_: Context, mode: Mode) -> list[Computed]:
    return [Computed(mode, mode, {"bits": bits}) for bits in "ab"]


def test_a_gpu_without_tf32_is_judged_as_such(check: Checked) -> None:
    """A GPU before Ampere, or NVIDIA_TF32_OVERRIDE=0: the mode in force counts, with a word."""
    off = {"on": 2e-7, "off": 2e-7, "deterministic": 2e-7}
    _, found = check("numerics, TF32 on", deviations=off, faults={"numerics": {"tf32": False}})
    assert verdicts(found)["numerics, TF32 on"] == PASS
    assert "TF32 is allowed, but not in force" in finding(found, "numerics, TF32 on")
    assert found["lines"][1]["figures"]["mode"] == "TF32 off"
    wide = {"on": 9e-4, "off": 9e-4, "deterministic": 9e-4}
    _, found = check("numerics, TF32 on", deviations=wide, faults={"numerics": {"tf32": False}})
    assert verdicts(found)["numerics, TF32 on"] == FAIL


def test_a_hanging_worker_fails_its_line_alone(check: Checked) -> None:
    names = "peak device memory", "same bits, deterministic"
    status, found = check(*names, seconds=3, faults={"device_memory": "hang"})
    assert verdicts(found) == {"device": PASS, names[0]: FAIL, names[1]: PASS}
    assert finding(found, names[0]).startswith("timed out after ")
    assert status == 1


def test_without_a_gpu_there_is_one_line_and_status_4(
    check: Checked, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = "error: InputError: --device gpu:0: this machine has no NVIDIA driver"
    status, found = check(device="gpu:1", faults={"start": refusal})
    shown = capsys.readouterr()
    assert status == 4
    assert shown.err == "bench: error: --device gpu:1: this machine has no NVIDIA driver\n"
    assert shown.out == ""
    assert verdicts(found) == {**dict.fromkeys(NAMES, NOT_RUN), "device": FAIL}
    assert not found["is_complete"]


def test_a_driver_that_does_not_answer_is_no_gpu(
    check: Checked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is asked before any environment is built; an earlier check's files are replaced."""

    def refuse(device: Device = CPU) -> None:
        raise InputError(f"--device {device.name}: NVIDIA's driver gives no answer")

    monkeypatch.setattr(machine, "describe", refuse)
    (tmp_path / "check.html").write_text("PASS")
    (tmp_path / "check.json").write_text("PASS")
    status, found = check()
    assert (status, found["verdict"]) == (4, "FAIL")
    assert found["lines"][0]["finding"] == "--device gpu:0: NVIDIA's driver gives no answer"
    assert "NOT RUN" in (tmp_path / "check.html").read_text()


def test_a_device_that_does_not_start_ends_the_check(check: Checked) -> None:
    status, found = check(faults={"start": "crash"})
    assert status == 1
    assert verdicts(found) == {**dict.fromkeys(NAMES, NOT_RUN), "device": FAIL}
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in finding(found, "device")
    assert finding(found, NAMES[-1]) == "needs the line device"


def test_ctrl_c_keeps_what_was_measured(
    check: Checked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: Context) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Context, "trained", interrupt)
    names = "same bits, deterministic", "accuracy of fast", "first fit as Keras decides"
    status, found = check(*names)
    assert status == 2
    assert list(verdicts(found).values()) == [PASS, PASS, NOT_RUN, NOT_RUN]
    assert len(found["lines"][1]["figures"]["sha256"]) == 2
    assert finding(found, names[1]) == "interrupted"
    assert "interrupted" in capsys.readouterr().err


def test_the_file_has_every_line_as_soon_as_it_is_shown(
    check: Checked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[int] = []

    def look(*_: object, **__: object) -> None:
        found = json.loads((tmp_path / "check.json").read_text())
        seen.append(sum(line["verdict"] == PASS for line in found["lines"]))

    monkeypatch.setattr("builtins.print", look)
    check("peak device memory", "accuracy of fast")
    assert seen == [1, 2, 3, 3]


@pytest.mark.usefixtures("check")
def test_an_environment_that_cannot_be_built_is_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = ("--out", str(tmp_path / "a.html"), "--json", str(tmp_path / "a.json"))
    assert command.main(["gpu-check", "--environment", "python:/missing", *out]) == 7
    assert "cannot be run" in capsys.readouterr().err
    assert "cannot be run" in (tmp_path / "a.json").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--device", "cpu"), "gpu-check needs a GPU"),
        (("--device", "tpu"), "expected cpu, gpu or gpu:N"),
        (("--environment", "tensorflow==2.21.0 TF_DETERMINISTIC_OPS=1"), "with and without it"),
        (("--out", "a", "--json", "a"), "are both a"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["gpu-check", *options]) == 4
    assert told in capsys.readouterr().err


def a_context(clock: Callable[[], float], tmp_path: Path, **more: Any) -> Context:
    """Returns a context without processes."""
    built = Built(parse_request("."), tmp_path, (), "3.12")
    return Context(
        *(built, Device("gpu:0", "0"), data.Dataset("mnist", BLACK, BLACK, BLACK), tmp_path),
        modes=modes_on("gpu:0"),
        training=training_of_check(),
        driver={},
        clock=clock,
        **more,
    )


def test_lines_beyond_the_limit_of_the_whole_do_not_run(tmp_path: Path) -> None:
    now = [0.0]

    def take(seconds: float) -> Callable[[Context], Line]:
        def run(context: Context) -> Line:
            assert context.left() <= 200
            now[0] += seconds
            return Line("", PASS, "done")

        return run

    checks = [
        Check(name, 200, take(seconds)) for name, seconds in (("a", 120), ("b", 180), ("c", 1))
    ]
    context = a_context(lambda: now[0], tmp_path)
    lines = list(run_checks(checks, context, 300))
    assert [(line.verdict, line.seconds) for line in lines] == [
        (PASS, 120),
        (PASS, 180),
        (NOT_RUN, 0),
    ]
    assert lines[2].finding == "the limit of 300 s is reached"


def test_a_line_beyond_its_own_limit_fails_wherever_it_is(tmp_path: Path) -> None:
    def hang(_: Context) -> Line:
        signal.pause()
        raise AssertionError

    before = signal.getsignal(signal.SIGALRM)
    checks = [Check("a", 0.05, hang), Check("b", 5, lambda _: Line("", PASS, "done"))]
    first, second = run_checks(checks, a_context(lambda: 0.0, tmp_path), 300)
    assert (first.verdict, first.finding) == (FAIL, "not finished after 0 s")
    assert second.verdict == PASS
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_comparison_has_the_device_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker of the lines before it has ended: no third process holds memory there."""
    asked: list[Terms] = []
    ended: list[str] = []
    monkeypatch.setattr(Context, "end", lambda _, name: ended.append(name))

    def compare(terms: Terms, *_: object, **__: object) -> None:
        assert ended == ["throughput"]
        asked.append(terms)

    line = all_lines.comparison_line(a_context(lambda: 0.0, tmp_path, compare=compare))
    assert asked[0].device == "gpu:0"
    assert asked[0].baseline == asked[0].candidates[0]
    assert line.verdict == FAIL


def test_the_budgets_leave_time_for_the_last_line() -> None:
    """The last one has a limit of its own after its start."""
    *_, last = checks_on("gpu:0")
    assert last.name == "first fit as Keras decides"
    assert last.budget_seconds > all_lines.FIT_SECONDS == 60
    assert all(check.budget_seconds <= all_lines.LIMIT_SECONDS for check in checks_on("gpu:0"))
