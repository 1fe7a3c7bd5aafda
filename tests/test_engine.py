"""The loop of every experiment keeps each record before it plans the next tasks."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import pytest

from bench.engine import pursue

Records = Generator[int, None, None]


def doubled(tasks: Sequence[int]) -> Records:
    for task in tasks:
        yield 2 * task


def test_it_runs_until_the_plan_has_no_tasks() -> None:
    planned: list[tuple[int, ...]] = []

    def plan(state: tuple[int, ...]) -> list[int]:
        planned.append(state)
        return [len(state), len(state) + 1] if len(state) < 4 else []

    nothing: tuple[int, ...] = ()
    assert pursue(nothing, plan, doubled, lambda state, record: (*state, record)) == (0, 2, 4, 6)
    assert planned == [(), (0, 2), (0, 2, 4, 6)]


def test_ctrl_c_keeps_the_records_before_it() -> None:
    kept: list[int] = []

    def keep(state: list[int], record: int) -> list[int]:
        kept.append(record)
        return [*state, record]

    def interrupted(tasks: Sequence[int]) -> Records:
        try:
            yield tasks[0]
            raise KeyboardInterrupt
        finally:
            yield tasks[1]

    with pytest.raises(KeyboardInterrupt):
        pursue(list[int](), lambda _: [1, 2], interrupted, keep)
    assert kept == [1, 2]


def test_an_error_while_keeping_closes_the_executor() -> None:
    closed: list[bool] = []

    def watched(tasks: Sequence[int]) -> Records:
        try:
            yield from tasks
        finally:
            closed.append(True)

    def full(_: object, __: int) -> object:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        pursue(None, lambda _: [1, 2], watched, full)
    assert closed == [True]


def test_a_plan_without_an_end_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"no record of \[1\]"):
        pursue(0, lambda _: [1], lambda _: doubled([]), lambda state, _: state)


def test_a_record_may_leave_the_state_as_it_is() -> None:
    """The plan may end after a failure that is not kept."""
    planned = iter([[1], []])
    assert pursue(0, lambda _: next(planned), doubled, lambda state, _: state) == 0
