"""Worker processes: isolation, commands, timeouts and cleanup."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.measure import endings, processes, worker_files
from bench.measure.processes import Interpreter, Worker, WorkerError, time_import
from bench.measure.worker_files import prepare_folder
from lenet5.data import Dataset
from lenet5.errors import InputError
from tests.commands import of_checkout
from tests.measure.stub_worker import RUBBISH, stub_python
from tests.test_imports import imports_of


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return stub_python(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "private"
    (made / "home").mkdir(parents=True)
    return made


@pytest.fixture
def worker(python: Path, folder: Path) -> Iterator[Worker]:
    with Worker(Interpreter(python, {}), folder) as started:
        yield started


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def assert_ends(pid: int) -> None:
    for _ in range(100):
        if not is_running(pid) or _is_zombie(pid):
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the process outlived its parent")


def with_fault(python: Path, folder: Path, fault: str) -> Worker:
    return Worker(Interpreter(python, {"TF_STUB_FAULT": fault}), folder)


def test_a_worker_answers_despite_printed_output(worker: Worker) -> None:
    answer = worker.ask(10, "slice", workload="w", steps=5)
    assert answer["value"] == pytest.approx(0.05)
    assert worker.output() == "a stray print"


def test_two_commands_can_be_pending(worker: Worker) -> None:
    worker.send("slice", workload="w", steps=1)
    worker.send("slice", workload="w", steps=2)
    assert [worker.receive(10)["value"] for _ in range(2)] == pytest.approx([0.01, 0.02])


def test_a_closed_worker_leaves_no_process(python: Path, folder: Path) -> None:
    with Worker(Interpreter(python, {}), folder) as worker:
        worker.ask(10, "start")
        pid = worker.pid
    assert not is_running(pid)
    assert not list(folder.glob("worker-*"))


@pytest.mark.parametrize(
    ("fault", "reason", "gone"),
    [
        ("slice - crash", "killed by SIGSEGV", True),
        ("slice - hang", "timed out after 0.5 s", True),
        ("slice - raise", "ValueError: no such op", False),
        ("slice - stop", "timed out after 0.5 s, stopped by a signal", True),
        ("slice - slow", "timed out after 0.5 s, still computing", True),
        ("slice - part", "timed out after 0.5 s, after a part of an answer", True),
        ("slice - kill", "killed by SIGKILL", True),
        ("slice - exit", "ended with status 3", True),
        ("slice - memory", "MemoryError", False),
        ("slice - rubbish", "sent an invalid answer: not JSON", True),
        ("slice - binary", "sent an invalid answer: not JSON", True),
        ("slice - list", "sent an invalid answer: a JSON object is expected, not list", True),
        ("slice - null", "sent an invalid answer: a JSON object is expected, not NoneType", True),
        ("slice - negative", "sent an invalid answer: a measurement of -1", True),
        ("slice - endless", "sent an invalid answer: a measurement of inf", True),
    ],
)
def test_a_fault_is_reported_in_one_line(
    python: Path, folder: Path, fault: str, reason: str, gone: bool
) -> None:
    with with_fault(python, folder, fault) as worker:
        worker.ask(10, "start")
        with pytest.raises(WorkerError) as caught:
            worker.ask(0.5, "slice", workload="w", steps=1)
        assert (caught.value.reason, caught.value.gone) == (reason, gone)
        assert "a stray print" in caught.value.output
        assert is_running(worker.pid) is not gone


@pytest.mark.parametrize("do", ["start", "prepare", "slice", "first_step", "memory", "growth"])
@pytest.mark.parametrize("fault", RUBBISH)
def test_an_answer_of_another_form_is_an_error_of_the_worker(
    python: Path, folder: Path, do: str, fault: str
) -> None:
    with with_fault(python, folder, f"{do} - {fault}") as worker:
        with pytest.raises(WorkerError, match=r"^sent an invalid answer: "):
            worker.ask(10, do)
        assert not is_running(worker.pid)


def test_an_endless_answer_is_cut_off(
    python: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_LONGEST_ANSWER", 2**21)
    with with_fault(python, folder, "slice - flood") as worker:
        worker.ask(10, "start")
        with pytest.raises(WorkerError, match="more than 2 MiB without an end of line"):
            worker.ask(10, "slice", workload="w", steps=1)
        assert not is_running(worker.pid)


def test_only_the_end_of_a_large_binary_output_is_read(folder: Path) -> None:
    log = folder / "log"
    log.write_bytes(b"\xff\x00" * 2**20 + b"x" * 10_000 + b"\n\x1b[31mlast\x07\n")
    *before, last = endings.tail(log).split("\n")
    assert last == r"\x1b[31mlast\x07"
    assert sum(map(len, before)) <= 5_000
    assert endings.tail(folder / "none") == ""


def test_a_kill_for_lack_of_memory_is_named(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "vmstat").write_text("nr_free_pages 7\noom_kill 12\n")
    assert endings.kills_for_memory(tmp_path) == 12
    assert endings.kills_for_memory(tmp_path / "none") == 0
    worker.ask(10, "start")
    monkeypatch.setattr(processes, "kills_for_memory", lambda: 10**9)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(
        WorkerError, match=r"^killed by SIGKILL while the system ran out of memory$"
    ):
        worker.ask(10, "slice", workload="w", steps=1)


def test_a_full_disk_is_not_an_error_of_the_worker(python: Path, folder: Path) -> None:
    """Otherwise the candidate would fail for it."""
    for start in (
        lambda: Worker(Interpreter(python, {}), folder / "none"),
        lambda: time_import(Interpreter(python, {}), folder / "none", (), 30),
    ):
        with pytest.raises(InputError, match="cannot be written: No such file"):
            start()


def test_the_last_output_of_a_crashed_worker_is_kept(python: Path, folder: Path) -> None:
    with with_fault(python, folder, "start - crash") as worker:
        with pytest.raises(WorkerError) as caught:
            worker.ask(10, "start")
        assert caught.value.output.endswith("Fatal: the sky has fallen")


def test_a_stopped_worker_times_out_and_is_killed(worker: Worker) -> None:
    worker.ask(10, "start")
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(WorkerError, match="timed out"):
        worker.ask(0.3, "slice", workload="w", steps=1)
    assert not is_running(worker.pid)


def test_a_killed_worker_is_reported_with_its_signal(worker: Worker) -> None:
    worker.ask(10, "start")
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="killed by SIGKILL"):
        worker.ask(10, "slice", workload="w", steps=1)


def test_a_missing_interpreter_is_reported(folder: Path) -> None:
    with pytest.raises(WorkerError, match="cannot be run: No such file"):
        Worker(Interpreter(folder / "python", {}), folder)


@pytest.mark.parametrize("huge_pages", [False, True])
def test_the_parent_environment_does_not_reach_a_worker(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, huge_pages: bool
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("LD_PRELOAD", "")
    spy = tmp_path / "spy"
    spy.write_text(f"#!/bin/sh\nexec /usr/bin/env > {tmp_path / 'seen'}\n")
    spy.chmod(0o755)
    interpreter = Interpreter(spy, {"TF_X": "1"})
    with (
        pytest.raises(WorkerError),
        Worker(interpreter, folder, huge_pages=huge_pages) as worker,
    ):
        worker.ask(10, "start")
    names = {line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()}
    ours = {"PATH", "LANG", "HOME", "TMPDIR", "CUDA_VISIBLE_DEVICES", "KERAS_BACKEND", "TF_X"}
    ours |= {"TF_CPP_MIN_LOG_LEVEL"} | ({"GLIBC_TUNABLES"} if huge_pages else set())
    assert names - {"_", "PWD", "SHLVL"} == ours


def test_only_the_private_folder_is_added_to_the_path(digits: Dataset, folder: Path) -> None:
    """The interpreter is isolated, so that no package of ours can shadow the candidate's."""
    prepare_folder(folder, digits.training)
    code = processes._BOOT.split("from bench")[0] + "import bench; print(bench.__file__, *sys.path)"
    first, *path = _isolated(code, folder)
    assert first == str(folder / "bench" / "__init__.py")
    assert path == [str(folder), *_isolated("import sys; print(*sys.path)")]


def test_the_folder_contains_all_imports_of_a_worker() -> None:
    files = {*worker_files._FILES, *worker_files.TRAINING_FILES, *worker_files.NUMERICS_FILES}
    for name in files:
        lazy = name.startswith("bench")  # lenet5's lazy imports serve the digits only
        imported = imports_of(worker_files._ROOT / name, lazy=lazy)
        ours = {dotted for dotted in imported if dotted.split(".")[0] in ("bench", "lenet5")}
        for dotted in ours:
            package, module, *_ = [*dotted.split("."), ""]
            assert {f"{package}/{module}.py", f"{package}/__init__.py"} & files
            if (worker_files._ROOT / package / f"{module}.py").exists():
                assert f"{package}/{module}.py" in files, f"{name} imports {dotted}"


def test_the_identity_changes_with_the_code(
    digits: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    identity = prepare_folder(folder, digits.training)
    assert prepare_folder(folder, digits.training) == identity
    root = tmp_path / "changed"
    for name in worker_files._FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((worker_files._ROOT / name).read_bytes())
    (root / worker_files._FILES[-1]).write_text("CHANGED = True\n")
    monkeypatch.setattr(worker_files, "_ROOT", root)
    assert prepare_folder(folder, digits.training) != identity


def test_an_import_is_timed_in_a_separate_process(python: Path, folder: Path) -> None:
    assert time_import(Interpreter(python, {}), folder, (), 30) > 0


def test_a_failing_or_hanging_import_is_reported(tmp_path: Path, folder: Path) -> None:
    fails = tmp_path / "fails"
    fails.write_text("#!/bin/sh\necho no tensorflow >&2\nexit 3\n")
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    for path in (fails, hangs):
        path.chmod(0o755)
    with pytest.raises(WorkerError, match="ended with status 3") as caught:
        time_import(Interpreter(fails, {}), folder, (), 30)
    assert caught.value.output == "no tensorflow"
    with pytest.raises(WorkerError, match="timed out after"):
        time_import(Interpreter(hangs, {}), folder, (), 0.2)


@pytest.mark.parametrize("is_linux", [sys.platform == "linux", False])
def test_a_process_with_a_lifeline_ends_with_its_parent(is_linux: bool) -> None:
    """Linux kills it; elsewhere it notices the end of a pipe. It computes meanwhile."""
    parent = (
        "import subprocess, sys, time\n"
        "from bench.environments.lifeline import lifeline\n"
        f"code = lifeline(is_linux={is_linux}) + 'print(1, flush=True)\\nwhile True: pass'\n"
        "child = subprocess.Popen([sys.executable, '-I', '-c', code], stdout=subprocess.PIPE,\n"
        f"    stdin={'subprocess.DEVNULL' if is_linux else 'subprocess.PIPE'})\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, cwd=worker_files._ROOT
    ) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        assert is_running(pid)
        started.kill()
    assert_ends(pid)


def test_a_timed_import_has_a_lifeline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_IMPORT", "raise SystemExit(7 if 'prctl' in CODE else 0)")
    monkeypatch.setattr(processes, "lifeline", lambda: "CODE = 'prctl'\n")
    with pytest.raises(WorkerError, match="ended with status 7"):
        time_import(Interpreter(Path(sys.executable), {}), folder, (), 30)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to kill it with its parent")
def test_a_worker_dies_with_its_parent(folder: Path) -> None:
    """This includes a worker in a slice, when it does not read its channel."""
    package = folder / "bench" / "worker"
    package.mkdir(parents=True)
    busy = (worker_files._ROOT / "bench" / "worker" / "main.py").read_text()
    busy = busy.replace('getattr(side, command.pop("do"))(**command)', "time.sleep(600)")
    for path in (package, package.parent):
        (path / "__init__.py").touch()
    (package / "main.py").write_text(busy)
    parent = (
        "import os, sys; from pathlib import Path\n"
        "from bench.measure.processes import Interpreter, Worker\n"
        f"worker = Worker(Interpreter(Path(sys.executable), {{}}), Path({str(folder)!r}))\n"
        "worker.send('start'); print(worker.pid, flush=True); import time; time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=of_checkout()
    ) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        time.sleep(0.3)
        assert is_running(pid)
        started.kill()
    assert_ends(pid)


def _isolated(code: str, *arguments: object) -> list[str]:
    command = [sys.executable, "-I", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.split()


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
