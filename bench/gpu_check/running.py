"""Runs lines one after the other, each within its own time and all within one limit."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import FrameType

from bench.gpu_check.context import Context, NoGpuError
from bench.measure.processes import WorkerError
from bench.report.gpu_check.page import FAIL, NOT_RUN, PASS, Line
from lenet5.errors import InputError
from lenet5.printable import short_line

_LEAST_SECONDS = 1.0  # less time cannot even start a worker


class OutOfTimeError(Exception):
    """The time of a line is over."""


@dataclass(frozen=True)
class Check:
    """A line to run.

    Attributes:
        name: name of the line.
        budget_seconds: its time limit.
        run: measures and judges the line in a context; its name and seconds are added.
        is_needed: whether no later line can run unless this one passes.
        is_informational: whether the check may pass without this line.
    """

    name: str
    budget_seconds: float
    run: Callable[[Context], Line]
    is_needed: bool = False
    is_informational: bool = False

    def not_run(self, reason: str) -> Line:
        """Returns the line of a check that did not run."""
        return Line(self.name, NOT_RUN, reason, is_informational=self.is_informational)


def run_checks(checks: Sequence[Check], context: Context, limit_seconds: float) -> Iterator[Line]:
    """Runs the lines.

    Args:
        checks: lines in order.
        context: their context; its clock counts both kinds of limits.
        limit_seconds: time limit of all lines together.

    Yields:
        Every line, as soon as it has ended; also those that did not run.

    Raises:
        KeyboardInterrupt: after the last line.
        NoGpuError: a needed line found no GPU.
    """
    end = context.clock() + limit_seconds
    reason = ""
    interrupted: KeyboardInterrupt | None = None
    for check in checks:
        left = end - context.clock()
        if not reason and left < _LEAST_SECONDS:
            reason = f"the limit of {limit_seconds:.0f} s is reached"
        if reason:
            yield check.not_run(reason)
            continue
        try:
            line = _run(check, context, min(check.budget_seconds, left))
        except KeyboardInterrupt as interrupt:
            interrupted, reason = interrupt, "interrupted"
            line = check.not_run(reason)
        if check.is_needed and line.verdict != PASS:
            reason = reason or f"needs the line {check.name}"
        yield line
    if interrupted is not None:
        raise interrupted


def _run(check: Check, context: Context, seconds: float) -> Line:
    start = context.clock()
    context.deadline = start + seconds
    try:
        with limited_to(seconds):
            line = check.run(context)
    except OutOfTimeError:
        line = Line(check.name, FAIL, f"not finished after {seconds:.0f} s")
    except WorkerError as error:
        line = Line(check.name, FAIL, error.told)
    except InputError as error:
        if check.is_needed and isinstance(error, NoGpuError):
            raise
        line = Line(check.name, FAIL, short_line(str(error)))
    return replace(
        line,
        name=check.name,
        seconds=context.clock() - start,
        is_informational=check.is_informational,
    )


@contextlib.contextmanager
def limited_to(seconds: float) -> Iterator[None]:
    """Raises OutOfTimeError in the block once its seconds have passed; for the main thread.

    A limit of every wait alone would not do: a comparison has hundreds.
    """

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
