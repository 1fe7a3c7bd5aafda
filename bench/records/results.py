"""The results file: raw samples of every block, environments, machine and options, as JSON.

Verdicts are not stored: `python -m bench verdict FILE` computes them again from the samples.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import MISSING, asdict, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bench.records.blocks import (
    SIDES,
    Block,
    Failure,
    Results,
    Samples,
    SideSamples,
    Witness,
    WorkloadTerms,
)
from bench.records.catalogue import WORKLOADS
from bench.records.sides import Side, difference, labelled
from lenet5.errors import InputError
from lenet5.run_directory import written_whole

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


SCHEMA = 1
_LEAST, _MOST = 1e-12, 1e12  # of seconds, MiB, margins

Made = TypeVar("Made", bound="DataclassInstance")


def check_new(path: Path) -> None:
    """Refuses a results file that is there already, or a folder that cannot be written.

    Raises:
        InputError: it exists, or its folder cannot be made or written.
    """
    try:
        there = path.exists()
        if not there:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    if there:
        raise InputError(f"{path}: exists, results are never overwritten; choose another --results")


def write(path: Path, results: Results) -> None:
    """Writes a results file whole, in place of an earlier state of the same comparison.

    Raises:
        InputError: it cannot be written.
    """
    with written_whole(path) as partial:
        text = json.dumps({"schema": SCHEMA, **asdict(results)}, indent=None, sort_keys=True)
        partial.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """Reads a results file; its environments get the labels that they would get today.

    Raises:
        InputError: it is missing, damaged, or of another schema.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = content["schema"]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: is damaged or no results file") from None
    if schema != SCHEMA:
        raise InputError(f"{path}: has schema {schema!r}, this version reads {SCHEMA}")
    try:
        found = _results(content)
        baseline, *candidates = labelled([found.baseline, *found.candidates])
    except KeyError as error:
        raise InputError(f"{path}: is damaged: {error} is missing") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{path}: is damaged: {error}") from None
    return replace(found, baseline=baseline, candidates=tuple(candidates))


def check_alike(one: Results, other: Results) -> None:
    """Refuses to put results together that were not measured alike.

    Code may differ between results that have no workload in common.

    Raises:
        InputError: machine, code, environments or workloads differ; says which.
    """
    common = [name for name in one.workloads if name in other.workloads]
    for what, a, b in (
        ("machines", one.machine, other.machine),
        *(
            (f"versions of {name}", one.workloads[name].version, other.workloads[name].version)
            for name in common
        ),
        ("code", one.code, other.code if common else one.code),
        ("threads", one.options.get("threads"), other.options.get("threads")),
    ):
        if a != b:
            raise InputError(f"results of different {what} cannot be put together")
    if unlike := difference(one.baseline, other.baseline):
        raise InputError(f"results of different baselines cannot be put together: {unlike}")


def _results(content: dict[str, Any]) -> Results:
    del content["schema"]
    terms = {name: _made(WorkloadTerms, item) for name, item in content["workloads"].items()}
    # JSON has them by name; in the catalogue's order they are shown.
    order = [name for name in WORKLOADS if name in terms] + sorted(set(terms) - set(WORKLOADS))
    content["baseline"] = _side(content["baseline"])
    content["candidates"] = tuple(_side(side) for side in content["candidates"])
    content["workloads"] = {name: terms[name] for name in order}
    content["blocks"] = tuple(_block(block) for block in content["blocks"])
    results = _made(Results, content)
    _check(results)
    return results


def _side(content: dict[str, Any]) -> Side:
    unwanted = tuple(content.get("unwanted", ()))
    return _made(Side, {**content, "lock": tuple(content["lock"]), "unwanted": unwanted})


def _block(content: dict[str, Any]) -> Block:
    return _made(
        Block,
        {
            **content,
            "samples": {name: _samples(item) for name, item in content["samples"].items()},
            "failures": tuple(_made(Failure, failure) for failure in content["failures"]),
            "witnesses": tuple(_made(Witness, witness) for witness in content["witnesses"]),
            "disturbed": tuple(content["disturbed"]),
        },
    )


def _samples(content: dict[str, Any]) -> Samples:
    sides = {
        side: _made(SideSamples, {name: tuple(values) for name, values in content[side].items()})
        for side in SIDES
    }
    checks = {f"{side}_check": tuple(content[f"{side}_check"]) for side in SIDES}
    return _made(Samples, {**sides, **checks})


def _made(kind: type[Made], content: dict[str, Any]) -> Made:
    """A data class of its fields; says which is missing or unknown."""
    known = {item.name: item.default is item.default_factory is MISSING for item in fields(kind)}
    for name, is_needed in known.items():
        if is_needed and name not in content:
            raise KeyError(name)
    if unknown := sorted(set(content) - set(known)):
        raise ValueError(f"{unknown[0]!r} is unknown")
    return kind(**content)


def _check(results: Results) -> None:
    """Refuses what no experiment writes, and verdicts cannot be computed from."""
    budget = results.options.get("budget_seconds")
    _demand(budget is None or _is_number(budget), "a budget that is no finite number")
    _demand(_is_number(results.clock_seconds), "a clock's resolution that is no finite number")
    for terms in results.workloads.values():
        fair = _is_number(terms.margin) and (terms.is_difference or terms.margin > 0)
        _demand(fair, "a margin that is no finite number above 0")
        _demand(isinstance(terms.gated, bool), "a workload of which nobody knows if it is gated")
    for side in (results.baseline, *results.candidates):
        texts = (side.request, side.label, side.problem)
        _demand(all(isinstance(text, str) for text in texts), "a side without a name")
        _demand(all("==" in str(entry) for entry in side.lock), "a lock without versions")
    for block in results.blocks:
        known = block.candidate in range(len(results.candidates))
        known = known and set(block.samples) <= set(results.workloads)
        _demand(known, "a block of a candidate or workload that is not there")
        _demand(type(block.number) is int and block.number >= 0, "a block without a number")
        _demand(_is_number(block.seconds) and block.seconds >= 0, "a block of no length")
        _demand(all(failure.side in SIDES for failure in block.failures), "a side that is unknown")
        for name, samples in block.samples.items():
            _check_samples(samples, any_sign=results.workloads[name].is_difference)


def _check_samples(samples: Samples, *, any_sign: bool) -> None:
    counts = {len(samples.baseline.values), len(samples.candidate.values)}
    if len(counts) != 1 or counts == {0}:
        raise ValueError("the two sides have unlike numbers of samples, or none")
    values = (*samples.baseline.values, *samples.candidate.values)
    _demand(all(map(_is_number, values)), "a sample that is no finite number")
    _demand(any_sign or min(values) > 0, "a sample that is not above 0")
    figures = (*samples.baseline_check, *samples.candidate_check)  # NaN is what it computed
    known = all(isinstance(f, float) or (type(f) is int and abs(f) <= _MOST) for f in figures)
    _demand(known, "a figure that is none")


def _demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _is_number(value: object) -> bool:
    """Whether it is one that can be measured: its logarithm and powers are finite."""
    if not isinstance(value, float | int) or isinstance(value, bool):
        return False
    return value == 0 or _LEAST <= abs(value) <= _MOST


def default_results(folder: Path, kind: str = "comparison") -> Path:
    """A name for a results file that is not there yet."""
    moment = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
    return folder / f"{kind}-{moment}-{os.getpid()}.json"
