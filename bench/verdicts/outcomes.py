"""Outcomes of selected tests and their exit status: the only place with this rule.

`pytest bench`, `python -m bench verdict` and `python -m bench numerics` all use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from bench.verdicts.sequential import Verdict

NOT_THERE = "NOT THERE"


class Exit(IntEnum):
    """Exit status of a process; pytest's own value if pytest defines one."""

    PASSED = 0
    FAILED = 1
    INTERRUPTED = 2
    INTERNAL_ERROR = 3
    USAGE = 4
    NOTHING = 5
    INCONCLUSIVE = 6
    NOT_THERE = 7


@dataclass(frozen=True)
class Outcome:
    """Outcome of one selected item of a comparison.

    Attributes:
        verdict: PASS, FAIL or INCONCLUSIVE.
        finding: one sentence.
        is_gated: whether the verdict counts for the exit status.
        is_there: whether the environments were built and their workers started.
        figures: numbers for the properties in JUnit XML, by name.
    """

    verdict: Verdict
    finding: str
    is_gated: bool = True
    is_there: bool = True
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """The verdict, or `NOT THERE`."""
        return self.verdict.value if self.is_there else NOT_THERE

    @property
    def is_failed_report(self) -> bool:
        """Whether the test fails; a test with an informational verdict reports it and passes."""
        return not self.is_there or (self.is_gated and self.verdict is not Verdict.PASS)


def exit_code(outcomes: Iterable[Outcome]) -> Exit:
    """Returns the status of a gated FAIL, else a missing environment, else a gated INCONCLUSIVE."""
    found = list(outcomes)
    if not found:
        return Exit.NOTHING
    gated = {outcome.verdict for outcome in found if outcome.is_gated and outcome.is_there}
    if Verdict.FAIL in gated:
        return Exit.FAILED
    if not all(outcome.is_there for outcome in found):
        return Exit.NOT_THERE
    return Exit.INCONCLUSIVE if Verdict.INCONCLUSIVE in gated else Exit.PASSED
