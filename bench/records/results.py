"""Ledger of a speed comparison: its terms, and raw samples of every block.

Verdicts are not stored: `python -m bench verdict FILE` recomputes them from the samples.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path

from bench.records import ledger
from bench.records.blocks import SIDES, Block, Results, Samples, WorkloadTerms
from bench.records.catalogue import GPU_WORKLOADS, WORKLOADS
from bench.records.sides import difference, labelled, unlike_machines
from lenet5.errors import InputError
from lenet5.printable import short_line

KIND = "speed"
_BLOCK = "block"
_LEAST, _MOST = 1e-12, 1e12  # range of seconds, MiB, margins

Keep = Callable[[Results], None]


def check_new(path: Path, kind: str = KIND) -> None:
    """Rejects an existing results file, and an unwritable folder.

    A file left by a process that was killed before its first record counts as new.

    Raises:
        InputError: the file exists, or its folder cannot be created or written.
    """
    try:
        there = path.exists() and not (path.is_file() and not ledger.is_begun(path, kind))
        if not there:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    if there:
        raise InputError(f"{path}: exists, results are never overwritten; choose another --results")


def is_begun(path: Path) -> bool:
    """Returns whether a file holds more than the torn beginning of a killed process.

    Raises:
        InputError: the file cannot be read.
    """
    return ledger.is_begun(path, KIND)


def unfinished(path: Path) -> Results | None:
    """Returns the results of an interrupted comparison; None for a new file.

    Raises:
        InputError: the file is something else, or complete, or as `check_new`.
    """
    with contextlib.suppress(InputError):
        if ledger.kind_of(path) == KIND and not (found := read(path)).complete:
            return found
    check_new(path)
    return None


def write(path: Path, results: Results) -> None:
    """Writes results atomically, in place of an earlier file.

    Raises:
        InputError: the file cannot be written.
    """
    records: list[ledger.Record] = [(ledger.HEADER, _header(results))]
    records += [(_BLOCK, block) for block in results.blocks]
    records += [(ledger.END, {})] if results.complete else []
    ledger.write(path, KIND, records)


@contextmanager
def keeping(path: Path, cache: Path, before: Results | None = None) -> Iterator[Keep]:
    """Opens a ledger; the yielded function appends the new part of growing results.

    Args:
        path: path of the ledger.
        cache: folder of locks.
        before: results already in the file.

    Raises:
        InputError: another process appends to the file, it has changed, or it cannot be written.
    """
    with ledger.appending(path, KIND, cache) as file:
        now = read(path) if ledger.is_begun(path, KIND) else None
        if _content(now) != _content(before):
            raise InputError(f"{path}: has changed since it was read")
        kept = before

        def keep(results: Results) -> None:
            nonlocal kept
            header = _header(results)
            is_new = kept is None or header != _header(kept)
            if is_new:
                file.append(ledger.HEADER, header)
            for block in results.blocks[0 if kept is None else len(kept.blocks) :]:
                file.append(_BLOCK, block)
            if results.complete and (is_new or kept is None or not kept.complete):
                file.append(ledger.END, {})
            kept = results

        yield keep


def read(path: Path) -> Results:
    """Reads results, and labels their environments anew.

    Raises:
        InputError: the ledger is missing or damaged, or has another kind or schema.
    """
    content = ledger.read(path, KIND)
    try:
        blocks = tuple(ledger.made(Block, item) for name, item in content.records if name == _BLOCK)
        terms = ledger.made(Results, content.header)
        found = replace(terms, blocks=blocks, complete=content.is_complete, torn=content.is_torn)
        _check(found)
        baseline, *candidates = labelled([found.baseline, *found.candidates])
    except ValueError as error:
        raise InputError(f"{path}: is damaged: {short_line(error)}") from None
    return replace(
        found,
        baseline=baseline,
        candidates=tuple(candidates),
        workloads=in_order(found.workloads),
    )


def _content(results: Results | None) -> object:
    """Returns results as in a ledger, without a torn line."""
    return None if results is None else ledger.plain(replace(results, torn=False))


def _header(results: Results) -> dict[str, object]:
    header = asdict(replace(results, blocks=()))
    for name in ("blocks", "complete", "torn"):
        del header[name]
    return header


def in_order(terms: Mapping[str, WorkloadTerms]) -> dict[str, WorkloadTerms]:
    """Returns workloads in the order of the catalogues; JSON sorts them by name."""
    known = dict.fromkeys([*WORKLOADS, *GPU_WORKLOADS])
    order = [name for name in known if name in terms] + sorted(set(terms) - set(known))
    return {name: terms[name] for name in order}


def check_alike(one: Results, other: Results) -> None:
    """Rejects a merge of results from different conditions.

    Code may differ between results without a common workload.

    Raises:
        InputError: machine, device, code, environments or workloads differ; the message says which.
    """
    if unlike := unlike_machines(one.machine, other.machine):
        raise InputError(f"results of different {unlike} cannot be combined")
    common = [name for name in one.workloads if name in other.workloads]
    for what, a, b in (
        *(
            (f"versions of {name}", one.workloads[name].version, other.workloads[name].version)
            for name in common
        ),
        ("code", one.code, other.code if common else one.code),
        ("threads", one.options.get("threads"), other.options.get("threads")),
    ):
        if a != b:
            raise InputError(f"results of different {what} cannot be combined")
    if unlike := difference(one.baseline, other.baseline):
        raise InputError(f"results of different baselines cannot be combined: {unlike}")


def _check(results: Results) -> None:
    """Rejects impossible values, which would break the computation of verdicts."""
    budget = results.options.get("budget_seconds")
    _demand(budget is None or _is_number(budget), "a budget that is not finite")
    _demand(_is_number(results.clock_seconds), "a clock's resolution that is not finite")
    for terms in results.workloads.values():
        fair = _is_number(terms.margin) and (terms.is_difference or terms.margin > 0)
        _demand(fair, "a margin that is not finite and above 0")
        _demand(isinstance(terms.gated, bool), "a workload neither gated nor informational")
    for side in (results.baseline, *results.candidates):
        texts = (side.request, side.label, side.problem)
        _demand(all(isinstance(text, str) for text in texts), "a side without a name")
        _demand(all("==" in str(entry) for entry in side.lock), "a lock without versions")
    for block in results.blocks:
        known = block.candidate in range(len(results.candidates))
        known = known and set(block.samples) <= set(results.workloads)
        _demand(known, "a block of an unknown candidate or workload")
        _demand(type(block.number) is int and block.number >= 0, "a block without a number")
        _demand(_is_number(block.seconds) and block.seconds >= 0, "a block without a duration")
        _demand(all(failure.side in SIDES for failure in block.failures), "an unknown side")
        for name, samples in block.samples.items():
            _check_samples(samples, any_sign=results.workloads[name].is_difference)


def _check_samples(samples: Samples, *, any_sign: bool) -> None:
    counts = {len(samples.baseline.values), len(samples.candidate.values)}
    if len(counts) != 1 or counts == {0}:
        raise ValueError("the two sides have different numbers of samples, or none")
    values = (*samples.baseline.values, *samples.candidate.values)
    _demand(all(map(_is_number, values)), "a sample that is not finite")
    _demand(any_sign or min(values) > 0, "a sample of 0 or less")
    figures = (*samples.baseline_check, *samples.candidate_check)  # NaN is a valid result
    known = all(isinstance(f, float) or (type(f) is int and abs(f) <= _MOST) for f in figures)
    _demand(known, "an invalid check figure")


def _demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _is_number(value: object) -> bool:
    """Returns whether a value is a measurable number: its logarithm and powers are finite."""
    if not isinstance(value, float | int) or isinstance(value, bool):
        return False
    return value == 0 or _LEAST <= abs(value) <= _MOST


def default_results(folder: Path, kind: str = "comparison") -> Path:
    """Returns the path of a new results file."""
    moment = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
    return folder / f"{kind}-{moment}-{os.getpid()}.jsonl"
