"""`pytest --device gpu`: what it collects, what it tells, and its end without a GPU."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from bench import plugin
from bench.report.session import DEVICE, ENVIRONMENT
from lenet5.devices import CPU, Device
from tests import stand_in_gpu
from tests.commands import ROOT, of_checkout

GPU = Device("gpu:0", "0")
HOOKS = (
    "pytest_addoption",
    "pytest_configure",
    "pytest_report_header",
    "pytest_collection_modifyitems",
)
MODULES = (
    *("tests/test_accuracy_gate.py", "tests/test_model.py", "tests/bench/test_other.py"),
    *("bench/test_throughput.py", "bench/test_numerics.py", "other/test_accuracy_gate.py"),
)
FOR_GPUS = ["test_accuracy_gate", "test_numerics", "test_throughput"]
Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(
    pytester: pytest.Pytester, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a project with modules of the same names, without a start of TensorFlow."""
    conftest = pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    hooks: Any = types.ModuleType("hooks")
    for name in HOOKS:
        setattr(hooks, name, getattr(conftest, name))
    monkeypatch.setattr(plugin, "FOLDER", pytester.path / "bench")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # set by TensorFlow's start
    options = "addopts = --import-mode=importlib\nmarkers =\n    faults\n    mnist"
    pytester.makeini(f"[pytest]\n{options}")
    for place in MODULES:
        # The project's own module of this name, if this session has collected it.
        monkeypatch.delitem(sys.modules, place[:-3].replace("/", "."), raising=False)
        path = pytester.path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"import pytest\ndef {path.stem}(): pass\n@pytest.mark.faults\ndef test_trial(): pass\n"
        )

    def go(*arguments: str, entries: dict[str, object] | None = None) -> pytest.RunResult:
        def pytest_sessionstart(session: pytest.Session) -> None:
            if entries is not None:
                session.config.stash[ENVIRONMENT] = entries

        hooks.pytest_sessionstart = pytest_sessionstart
        return pytester.runpytest_inprocess(
            *("-p", "bench.plugin", "-v", *arguments), plugins=[hooks]
        )

    return go


def passed(done: pytest.RunResult) -> list[str]:
    lines = (line for line in done.outlines if " PASSED" in line)
    return sorted(line.split(" ")[0].rpartition("::")[2] for line in lines)


def test_on_a_gpu_only_gate_throughput_and_numerics_run(run: Run) -> None:
    """All others are counted as deselected."""
    done = run("--device", "gpu")
    assert done.ret == 0
    done.assert_outcomes(passed=3, deselected=9)
    assert passed(done) == FOR_GPUS
    trials = run("--device", "gpu", "-m", "faults")
    trials.assert_outcomes(passed=3, deselected=9)


@pytest.mark.parametrize("device", [(), ("--device", "cpu")])
def test_on_the_cpu_all_tests_run(run: Run, device: tuple[str, ...]) -> None:
    run(*device).assert_outcomes(passed=6, deselected=6)


def test_the_header_names_the_gpu_and_its_modes(run: Run) -> None:
    lines = run("--device", "gpu", entries=stand_in_gpu.ENTRIES).outlines
    (line,) = (line for line in lines if line.startswith("lenet5: threads"))
    assert line.startswith(
        "lenet5: threads 1, GPU Stand-in (gpu:0), TF32 on, deterministic operations off, data "
    )
    assert "lenet5: unit tests are for CPUs: left out" in lines


def test_the_header_of_a_session_on_the_cpu_names_it(run: Run) -> None:
    lines = run().outlines
    (line,) = (line for line in lines if line.startswith("lenet5: "))
    assert line.startswith("lenet5: threads 1, CPU only, data ")


def test_a_comparison_starts_tensorflow_in_its_workers_only(run: Run) -> None:
    """The header knows the GPU's name."""
    lines = run("--device", "gpu:1").outlines  # no hook here starts TensorFlow
    assert any(line.startswith("lenet5: threads 1, GPU (gpu:1), data ") for line in lines)


@pytest.mark.parametrize(("device", "starts"), [(CPU, False), (GPU, True)])
@pytest.mark.parametrize("compares", [False, True])
def test_a_gpu_starts_before_the_header(
    device: Device,
    starts: bool,
    compares: bool,
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conftest: Any = pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    started: list[object] = []
    monkeypatch.setattr(conftest.runtime, "start_tensorflow", lambda *what: started.append(what))
    stand_in_gpu.install(monkeypatch)
    stash = pytest.Stash()
    stash[DEVICE] = device
    if compares:
        stash[plugin.EXPERIMENT] = cast(plugin.Experiment, object())
    config = types.SimpleNamespace(stash=stash, option=types.SimpleNamespace(threads=1))
    conftest.pytest_sessionstart(types.SimpleNamespace(config=config))
    does = starts and not compares
    assert started == ([(1, device)] if does else [])
    assert stash.get(ENVIRONMENT, {}).get("device") == ("gpu:0" if does else None)


def pytest_in_a_fresh_process(
    *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**of_checkout(), **variables}
    for name in ("TF_CPP_MIN_LOG_LEVEL", "PYTEST_ADDOPTS", "TF_DETERMINISTIC_OPS"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("path", ["tests/test_accuracy_gate.py", "bench/test_throughput.py"])
def test_without_a_gpu_the_session_ends_in_one_line(path: str, tmp_path: Path) -> None:
    """No machine has a GPU 99."""
    report = f"--html={tmp_path / 'report.html'}"
    done = pytest_in_a_fresh_process("--device", "gpu", report, path, CUDA_VISIBLE_DEVICES="99")
    assert done.returncode == 4
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("ERROR: --device gpu:0: ")
    assert list(tmp_path.iterdir()) == []


def test_a_session_on_a_stand_in_collects_larger_batches() -> None:
    """In a fresh process, with this project's own modules."""
    done = pytest_in_a_fresh_process(
        *("--device", "gpu", "-p", "tests.stand_in_gpu", "--collect-only", "-v"),
        *("tests/test_accuracy_gate.py", "tests/test_recipe.py", "bench/test_throughput.py"),
        CUDA_VISIBLE_DEVICES="5",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert any(", GPU Stand-in (gpu:0), TF32 on, " in line for line in lines)
    for batch in (32, 512, 2048):
        assert f"<Function test_train_step[loop,b{batch}]>" in lines
    assert "<Function test_train_step[loop,b128]>" not in lines
    assert "<Module test_accuracy_gate.py>" in lines
    assert "<Module test_recipe.py>" not in lines
