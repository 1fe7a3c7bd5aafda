"""The loop of every experiment: a plan names tasks, an executor runs them, records are stored."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TypeVar

State = TypeVar("State")
Task = TypeVar("Task")
Record = TypeVar("Record")


def pursue(
    state: State,
    plan: Callable[[State], Sequence[Task]],
    execute: Callable[[Sequence[Task]], Generator[Record, None, None]],
    keep: Callable[[State, Record], State],
) -> State:
    """Runs tasks until the plan has none.

    Args:
        state: all records so far.
        plan: next tasks for these records; a pure function.
        execute: runs tasks and yields their records; after Ctrl-C first the finished ones.
        keep: writes a record, and returns the state with it.

    Returns:
        The state of all records.

    Raises:
        RuntimeError: the plan repeats tasks without a record, so the loop would not end.
    """
    while tasks := plan(state):
        has_record = False
        with closing(execute(tasks)) as records:
            for record in records:
                has_record = True
                state = keep(state, record)
        if not has_record:
            raise RuntimeError(f"no record of {tasks}")
    return state
