"""The exit status that verdicts come to."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import Decision


class Exit(IntEnum):
    """Status of a comparison's process; pytest's own where it has one."""

    PASSED = 0
    FAILED = 1
    INTERRUPTED = 2
    USAGE = 4
    NOTHING = 5
    INCONCLUSIVE = 6
    NOT_THERE = 7


def exit_code(decisions: Iterable[Decision], problems: int = 0) -> Exit:
    """That of a gated FAIL, else of a side that was not there, else of an INCONCLUSIVE."""
    found = list(decisions)
    gated = {decision.verdict for decision in found if decision.terms.gated}
    if Verdict.FAIL in gated:
        return Exit.FAILED
    if problems:
        return Exit.NOT_THERE
    if not found:
        return Exit.NOTHING
    return Exit.INCONCLUSIVE if Verdict.INCONCLUSIVE in gated else Exit.PASSED
