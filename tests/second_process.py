"""Runs the unit tests in two processes: this one, and a second pytest that shares modules.

Gate trainings and tests in `bench/` stay in this process. Benchmarks run last, after the end of the
second process. With pytest-xdist, pytest-benchmark would measure nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from lenet5.environment import usable_cores

ROOT = Path(__file__).parents[1]
FEWEST_SHARED = 200  # fewer tests take less time than a second start of TensorFlow
_USUAL = {  # other values: a user debugs or selects tests
    **dict.fromkeys(("usepdb", "trace", "setupshow", "setuponly", "setupplan"), False),
    **dict.fromkeys(("lf", "failedfirst", "newfirst", "stepwise", "one_process"), False),
    "collectonly": False,
    "capture": "fd",
    "numprocesses": None,
    "dist": "no",
}

Module = Sequence[pytest.Item]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option for a single process."""
    group = parser.getgroup("lenet5")
    group.addoption("--one-process", action="store_true", help="run all tests in one process")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Runs shared modules in both processes, others here, and benchmarks alone at the end."""
    modules: list[Module] = [list(m) for _, m in groupby(session.items, lambda item: item.path)]
    tests = session.config.rootpath / "tests"
    shared = [module for module in modules if _may_be_shared(module, tests)]
    is_second = hasattr(session.config, "workerinput")
    if is_second or session.testsfailed or not _is_usual(session.config, sum(map(len, shared))):
        return None  # pytest's own loop runs the tests
    alone = [module for module in modules if _uses(module, {"benchmark"})]
    own = [module for module in modules if module not in shared and module not in alone]
    queue = deque(shared)
    with _Sharing(session, queue) as sharing:
        _run(session, _drawn(own, queue), sharing.log)
        sharing.wait()
        _run(session, iter(sharing.left_over()), sharing.log)
    _run(session, iter(alone), lambda: None)
    return True


def _is_usual(config: pytest.Config, shared: int) -> bool:
    usual = all(getattr(config.option, name, value) == value for name, value in _USUAL.items())
    return usual and shared >= FEWEST_SHARED and usable_cores() > 1


def _may_be_shared(module: Module, tests: Path) -> bool:
    return module[0].path.is_relative_to(tests) and not _uses(module, {"benchmark", "gated"})


def _uses(module: Module, fixtures: set[str]) -> bool:
    return any(fixtures & set(getattr(item, "fixturenames", ())) for item in module)


def _drawn(own: Sequence[Module], queue: deque[Module]) -> Iterator[Module]:
    """Yields the modules of this process, then shared modules until none are left."""
    yield from own
    while True:
        try:
            yield queue.popleft()  # another thread serves the other process
        except IndexError:
            return


def _run(
    session: pytest.Session, modules: Iterator[Module], after_each: Callable[[], None]
) -> None:
    """Runs tests like pytest's own loop."""
    module = next(modules, None)
    while module is not None:
        following = next(modules, None)  # keeps fixtures that the next module shares
        coming = [*module[1:], *(following or ())[:1], None]
        for item, nextitem in zip(module, coming, strict=False):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
            after_each()
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        module = following


class _Sharing:
    """The second process as seen from this one: its modules and its reports."""

    def __init__(self, session: pytest.Session, queue: deque[Module]) -> None:
        self._session = session
        self._queue = queue
        self._items = {item.nodeid: item for item in session.items}
        self._given: list[str] = []
        self._told: deque[tuple[str, Any]] = deque()
        self._ended: set[str] = set()

    def __enter__(self) -> _Sharing:
        config = self._session.config
        self._channel, theirs = Pipe()
        self._output = tempfile.TemporaryFile()
        command = [sys.executable, "-c", _START, str(ROOT), str(theirs.fileno())]
        command += map(str, config.invocation_params.args)
        if config.option.basetemp:  # pytest empties this folder
            command += [f"--basetemp={config.option.basetemp}-second"]
        self._process = subprocess.Popen(
            command,
            cwd=config.invocation_params.dir,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.terminate()
        self._process.wait()
        self._channel.close()
        self._output.close()

    def _serve(self) -> None:
        """Sends modules and receives reports until the other end closes."""
        try:
            while True:
                kind, content = self._channel.recv()
                if kind != "next":
                    self._told.append((kind, content))
                    continue
                try:
                    ids = [item.nodeid for item in self._queue.pop()]
                except IndexError:
                    ids = []
                self._given += ids
                self._channel.send(ids)
        except (EOFError, OSError):
            return

    def log(self) -> None:
        """Forwards received reports in the main thread, as reporters expect."""
        hook = self._session.config.hook
        while self._told:
            kind, content = self._told.popleft()
            if kind == "report":
                report = hook.pytest_report_from_serializable(
                    config=self._session.config, data=content
                )
                hook.pytest_runtest_logreport(report=report)
            elif kind == "warning":
                hook.pytest_warning_recorded.call_historic(kwargs=content)
            else:
                getattr(hook, kind)(nodeid=content[0], location=content[1])
                if kind == "pytest_runtest_logfinish":
                    self._ended.add(content[0])

    def wait(self) -> None:
        """Forwards reports until the second process ends."""
        while self._thread.is_alive() and not self._session.shouldfail:
            self._thread.join(0.1)
            self.log()
        self.log()  # of a process that had ended already
        if self._session.shouldfail:
            raise self._session.Failed(self._session.shouldfail)

    def left_over(self) -> list[Module]:
        """Returns the tests that the second process did not finish; the crashing test fails."""
        left = [self._items[nodeid] for nodeid in self._given if nodeid not in self._ended]
        status = self._process.wait()
        if not left and status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return []
        self._output.seek(0)
        said = self._output.read().decode(errors="replace")[-2000:]
        told = f"the second process ended with status {status}\n{said}"
        if left:
            item = left.pop(0)
            report = pytest.TestReport(item.nodeid, item.location, {}, "failed", told, "call")
            item.config.hook.pytest_runtest_logreport(report=report)
            if self._session.shouldfail:
                raise self._session.Failed(self._session.shouldfail)
        else:
            warnings.warn(pytest.PytestWarning(told), stacklevel=1)
        return [left] if left else []


_START = """
import sys
_, root, descriptor, *arguments = sys.argv
sys.path.insert(0, root)
from tests import second_process
sys.exit(second_process.main(int(descriptor), arguments))
"""


def main(descriptor: int, arguments: list[str]) -> int | pytest.ExitCode:
    """Runs the second process and returns its exit status."""
    return pytest.main(arguments, plugins=[_Second(Connection(descriptor))])


class _Second:
    """Plugin of the second process: runs its modules, and sends their reports."""

    def __init__(self, channel: Connection) -> None:
        self._channel = channel

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        self._config = config
        config.workerinput = {}  # type: ignore[attr-defined]  # no report files, as with pytest-xdist

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        _run(session, self._given(items), lambda: None)
        return True

    def _given(self, items: dict[str, pytest.Item]) -> Iterator[Module]:
        while True:
            self._channel.send(("next", None))
            ids = self._channel.recv()
            if not ids:
                return
            yield [items[nodeid] for nodeid in ids]

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        self._channel.send(("pytest_runtest_logstart", (nodeid, location)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        content = self._config.hook.pytest_report_to_serializable(
            config=self._config, report=report
        )
        self._channel.send(("report", content))

    def pytest_runtest_logfinish(self, nodeid: str, location: object) -> None:
        self._channel.send(("pytest_runtest_logfinish", (nodeid, location)))

    def pytest_warning_recorded(
        self, warning_message: Any, when: str, nodeid: str, location: object
    ) -> None:
        if when != "runtest":  # the first process sees all others itself
            return
        text = f"{warning_message.category.__name__}: {warning_message.message}"
        place = warning_message.filename, warning_message.lineno
        message = warnings.WarningMessage(text, Warning, *place)  # the original may hold any object
        content = {"warning_message": message, "when": when, "nodeid": nodeid}
        self._channel.send(("warning", {**content, "location": location}))
