"""Comparisons with `--device gpu`: from the options to ledger and verdicts, with a fake GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench.measure import machine
from bench.measure.processes import Interpreter, Worker
from bench.records import results
from bench.records.blocks import Results
from bench.records.catalogue import GPU_WORKLOADS
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import decide
from lenet5.devices import CPU, Device
from lenet5.errors import InputError
from tests.measure.stub_worker import FOR_CPUS

LOOP, NO_XLA, XLA = "train_step[loop,b512]", "first_fit[nojit]", "first_fit[xla]"
GPU = {"model": "Stand-in", "driver": "1.2"}
NO_GPU = "--device gpu:0: this machine has no NVIDIA driver"

Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.usefixtures("black_images", "short_blocks")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives this machine a GPU; an import takes a second times the stub's factor."""
    real = machine.describe

    def time_import(interpreter: Interpreter, *_: object) -> float:
        return float(interpreter.settings.get("TF_STUB_RATIO", 1))

    def describe(device: Device = CPU) -> dict[str, Any]:
        return {**real(), "gpu": GPU} if device.is_gpu else real()

    monkeypatch.setattr(machine, "describe", describe)
    monkeypatch.setattr("bench.measure.blocks.time_import", time_import)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes every GPU from this machine."""

    def describe(device: Device = CPU) -> dict[str, Any]:
        if device.is_gpu:
            raise InputError(NO_GPU)
        return {}

    monkeypatch.setattr(machine, "describe", describe)


@pytest.fixture
def never_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a measurement that stops a process: its kernels would go on."""

    def stop(self: Worker) -> None:
        raise AssertionError(f"process {self.pid} was stopped")

    monkeypatch.setattr(Worker, "stop", stop)


def compared(run: Run, *terms: str, status: int = 0) -> tuple[str, Results]:
    done = run(*terms, "--results", "r.jsonl", "--junitxml=r.xml")
    assert done.ret == status, done.stdout.str() + done.stderr.str()
    return done.stdout.str(), results.read(Path("r.jsonl"))


@pytest.mark.usefixtures("gpu", "never_stopped")
def test_every_workload_of_a_gpu_is_measured_there(run: Run, stub: str) -> None:
    terms = ("--baseline", stub, "--candidate", stub, "--device", "gpu:1", "--workloads", "all")
    said, found = compared(run, *terms)
    assert set(found.workloads) == set(GPU_WORKLOADS)
    assert (found.device, found.options["pinned"], found.machine["gpu"]) == ("gpu:1", False, GPU)
    for name, spec in GPU_WORKLOADS.items():
        terms_of = found.workloads[name]
        assert (terms_of.gated, terms_of.margin) == (spec.gated, spec.margin or 1.05)
        assert terms_of.own_budget_seconds == spec.own_budget_seconds
    for block in found.blocks:
        assert set(block.samples) == set(GPU_WORKLOADS)
        assert set(block.own_seconds) == {NO_XLA, XLA, "fit[b512,auto]"}
    for side in (found.baseline, *found.candidates):
        assert side.versions["shown"] == "1"
        assert side.versions["device"] == "gpu:1"
        assert side.versions["gpu"] == "Stand-in"
    assert f"{stub} against {stub} on gpu:1, margin 1.05" in said
    assert "PASS: 9.9.0" in said
    assert "11 PASS of 11 gated workloads" in said
    assert "- Measured on gpu:1 (Stand-in), TF32 on." in said
    assert Path("r.xml").read_text().count("<failure") == 0


@pytest.mark.usefixtures("gpu")
def test_gated_workloads_are_those_of_a_gpu(run: Run, stub: str) -> None:
    slow = f"{stub} TF_STUB_RATIO=1.2"
    _, found = compared(run, "--baseline", stub, "--candidate", slow, "--device", "gpu", status=1)
    assert set(found.workloads) == {name for name, spec in GPU_WORKLOADS.items() if spec.gated}
    assert found.device == "gpu:0"
    failed = {d.workload for d in decide(found) if d.verdict is Verdict.FAIL}
    assert failed == {n for n in found.workloads if GPU_WORKLOADS[n].margin in (None, 1.1)}


@pytest.mark.usefixtures("gpu")
def test_a_given_margin_replaces_the_default_of_a_gpu(run: Run, stub: str) -> None:
    both = ("--baseline", stub, "--candidate", stub, "--workloads", f"{LOOP} fit_call")
    _, found = compared(run, *both, "--device", "gpu", "--margin", "1.02")
    assert {name: terms.margin for name, terms in found.workloads.items()} == {
        LOOP: 1.02,
        "fit_call": 1.1,
    }


@pytest.mark.usefixtures("gpu")
def test_the_reports_name_the_device(
    run: Run, stub: str, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ("--baseline", stub, "--candidate", stub, "--workloads", f"{LOOP} {NO_XLA}")
    compared(run, *both, "--device", "gpu")
    assert command.main(["show", "r.jsonl"]) == 0
    assert "Measured on gpu:0 (Stand-in), TF32 on." in capsys.readouterr().out
    assert command.main(["report", "r.jsonl", "--out", "out"]) == 0
    page = Path("out/report.html").read_text()
    assert "gpu:0 (Stand-in), TF32 on" in page
    assert "GPUs are hidden" not in page
    assert "min beside the budget" in page
    assert "Measured on gpu:0" in Path("out/summary.md").read_text()


@pytest.mark.usefixtures("gpu")
def test_a_comparison_resumes_on_its_device(run: Run, stub: str) -> None:
    terms = ("--baseline", stub, "--candidate", stub, "--workloads", LOOP)
    _, whole = compared(run, *terms, "--device", "gpu:1")
    results.write(Path("r.jsonl"), replace(whole, blocks=whole.blocks[:2], complete=False))
    done = run("--resume", "r.jsonl", "--device", "gpu:1")
    assert done.ret == 4
    done.stderr.fnmatch_lines(["ERROR: --resume takes --device from its file: remove it"])
    for device in ((), ("--device", "gpu")):
        done = run(*terms, *device, "--results", "r.jsonl")
        assert done.ret == 4
        told = "*r.jsonl: holds an unfinished comparison with another device: choose another *"
        done.stderr.fnmatch_lines([told])
    assert run("--resume", "r.jsonl").ret == 0
    after = results.read(Path("r.jsonl"))
    assert (after.device, len(after.blocks), after.complete) == ("gpu:1", 4, True)
    assert after.baseline.versions["shown"] == "1"


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_the_session_ends_at_once_in_one_line(
    run: Run, stub: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sides = ("--baseline", stub, "--candidate", stub)
    done = run(*sides, "--device", "gpu")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: {NO_GPU}"])
    capsys.readouterr()
    task = ("measure", "--block", "0", *sides, "--results", str(tmp_path / "0.jsonl"))
    assert command.main([*task, "--device", "gpu"]) == 4
    assert capsys.readouterr().err == f"bench: error: {NO_GPU}\n"
    assert not (tmp_path / "0.jsonl").exists()


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("fault", "told"), [("cpus", FOR_CPUS), ("silent", "computes on cpu, not on gpu:0")]
)
def test_a_side_on_the_cpu_is_not_there_with_the_reason(
    run: Run, stub: str, fault: str, told: str
) -> None:
    sides = ("--baseline", stub, "--candidate", f"{stub} TF_STUB_FAULT=start_-_{fault}")
    said, found = compared(run, *sides, "--device", "gpu", "--workloads", LOOP, status=7)
    assert told in " ".join(said.split())
    assert "NOT THERE" in said
    assert not any(block.samples for block in found.blocks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "tpu"), "--device is 'tpu', expected cpu, gpu or gpu:N"),
        (("--device", "gpu", "--workloads", "fit[b32]"), "unknown workload fit[b32] on a GPU, *"),
        (("--workloads", "device_memory"), "unknown workload device_memory, choose from train_*"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_an_invalid_option_of_a_device_is_rejected_in_one_line(
    run: Run, stub: str, arguments: tuple[str, ...], message: str
) -> None:
    done = run("--baseline", stub, *arguments)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    escaped = message.replace("[", "[[]")
    done.stderr.fnmatch_lines([f"ERROR: {escaped}"])


@pytest.mark.usefixtures("gpu")
def test_project_options_of_a_gpu_have_a_table_of_their_own(
    run: Run, stub: str, pytester: pytest.Pytester
) -> None:
    """A margin that was chosen on CPUs says nothing about a GPU."""
    pytester.makepyprojecttoml(
        f'[tool.lenet5-bench.workloads]\n"fit[b32]" = {{margin = 1.5}}\n"{LOOP}" = {{margin = 2}}\n'
        f'[tool.lenet5-bench.gpu-workloads]\n"{NO_XLA}" = {{gated = false}}\n'
    )
    both = ("--baseline", stub, "--candidate", stub, "--workloads", f"{LOOP} {NO_XLA}")
    _, found = compared(run, *both, "--device", "gpu")
    assert (found.workloads[LOOP].margin, found.workloads[NO_XLA].gated) == (1.05, False)


@pytest.mark.usefixtures("gpu")
def test_a_block_is_measured_on_a_gpu(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its ledger is not that of the same block on the CPU, and cannot be joined with one."""
    paths = [tmp_path / name for name in ("gpu.jsonl", "cpu.jsonl")]
    sides = ("--baseline", stub, "--candidate", stub, "--workloads", "fit_call")
    task = ("measure", "--block", "2", *sides)
    for path, device in zip(paths, ("gpu", "cpu"), strict=True):
        assert command.main([*task, "--results", str(path), "--device", device]) == 0
    assert [results.read(path).device for path in paths] == ["gpu:0", "cpu"]
    capsys.readouterr()
    assert command.main([*task, "--results", str(paths[0])]) == 4
    told = f"{paths[0]}: holds a block with another device: choose another --results"
    assert capsys.readouterr().err == f"bench: error: {told}\n"
    assert command.main(["show", *map(str, paths)]) == 4
    assert "results of different" in capsys.readouterr().err


def test_a_ledger_without_a_device_is_of_the_cpu(run: Run, stub: str) -> None:
    both = ("--baseline", stub, "--candidate", stub, "--workloads", LOOP)
    _, whole = compared(run, *both)
    older = {name: value for name, value in whole.options.items() if name != "device"}
    old = replace(whole, options=older, blocks=whole.blocks[:2], complete=False)
    assert old.device == "cpu"
    results.write(Path("r.jsonl"), old)
    assert run("--resume", "r.jsonl").ret == 0
