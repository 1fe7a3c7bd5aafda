"""Stages of a walk from their ledgers, for `python -m bench show` and `report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.bisection import accuracy, speed
from bench.records import ledger, levels, results, trainings
from bench.records.stages import OPTION, stage_of
from bench.report.bisection.numerics import numerics_section
from bench.report.bisection.page import Section, section_of
from lenet5.errors import InputError


def sections_of(paths: Sequence[Path]) -> list[Section]:
    """Reads stages; returns none if the first file is of another experiment.

    Raises:
        InputError: a file is damaged, or only some are stages.
    """
    found = [_section(path) for path in paths]
    if found[0] is None:
        return []
    if None in found:
        raise InputError(f"{paths[found.index(None)]}: is no stage of a bisection, as others are")
    return [section for section in found if section is not None]


def _section(path: Path) -> Section | None:
    kind = ledger.kind_of(path)
    if kind == levels.KIND:
        return numerics_section(levels.read(path), path.name)
    if kind == trainings.KIND:
        sets = trainings.read_trainings(path)
        comparison = trainings.read_stage(path)
        if comparison is None:
            return None
        stage = stage_of({OPTION: comparison.stage})
        return section_of(accuracy.view_of(stage, sets, comparison, path.name))
    found = results.read(path)
    return section_of(speed.view_of(found, path.name)) if OPTION in found.options else None
