"""A stage of numerics as a section of a bisection's page."""

from __future__ import annotations

from bench.records.levels import Levels
from bench.records.numerics import QUANTITIES
from bench.report.bisection.page import Section, order, stage_title
from bench.report.tables import Table
from bench.report.versions import facts, lock_differences
from bench.verdicts.bisection.numerics import by_place, missing, name_of, steps_of
from bench.verdicts.outcomes import Exit


def numerics_section(found: Levels, ledger: str) -> Section:
    """Returns a stage as it is shown."""
    stage, known, gone, steps = found.stage, by_place(found), missing(found), steps_of(found)
    rows = []
    for place in order(stage):
        name = stage.places[place].name
        if place in known:
            own = known[place].deviations
            changed = [before for before, after in steps if after == place]
            note = f"changed from {stage.places[changed[0]].name}" if changed else ""
            rows.append((name, *(f"{own[q]:.1e}" for q in QUANTITIES), note))
        else:
            rows.append((name, *[""] * len(QUANTITIES), gone.get(place, "not computed")))
    header = ("level", *(q.removeprefix("gradient ") for q in QUANTITIES), "bits")
    details = [
        (
            name_of(found, (before, after)),
            f"against {stage.places[before].name}",
            ", ".join(q for q in QUANTITIES if known[before].bits[q] != known[after].bits[q]),
        )
        for before, after in steps
    ]
    packages = None
    if steps:
        before, after = steps[0]
        names = [stage.places[place].name for place in steps[0]]
        differing = lock_differences(known[before].side, known[after].side)
        packages = Table(("package", *names), differing, left=None)
    tables = [("", Table(header, rows, left=1))]
    if details:
        tables.append(("Changes of bits", Table(("change", "", "quantities"), details, left=None)))
    return Section(
        stage_title(stage),
        _finding(found),
        " and ".join(_names(found)),
        None,
        tables,
        packages,
        Table(("to compute", "command"), [], left=None),
        ledger,
        [("Started", found.started), *facts(found.machine)],
        Exit.PASSED if {0, stage.bad} <= set(known) else Exit.INCONCLUSIVE,
    )


def _finding(found: Levels) -> str:
    stage, known = found.stage, by_place(found)
    ends = f"{stage.places[stage.bad].name} against {stage.places[0].name}"
    if not {0, stage.bad} <= set(known):
        return f"INCONCLUSIVE: numerics: {ends} is not computed yet"
    if known[0].bits == known[stage.bad].bits:
        return f"numerics: {ends} has the same bits"
    return f"numerics: {ends} has other bits. Found: {'; '.join(_names(found))}"


def _names(found: Levels) -> list[str]:
    return list(dict.fromkeys(name_of(found, step) for step in steps_of(found)))
