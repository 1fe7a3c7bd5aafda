"""Several results files as one, and results made small enough to be kept in a repository."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from bench.labels import labels
from bench.results import Results, Samples, SideSamples, WorkloadTerms, check_alike
from bench.verdicts import value
from lenet5.errors import InputError


def together(parts: Sequence[Results]) -> Results:
    """Puts comparisons against the same baseline together: all their candidates, newly labelled.

    Steps of a slice may differ between the parts, since each fixes its own; they stand for the
    first part then.

    Raises:
        InputError: machine, code, baseline, threads, or a workload's version or margin differ.
    """
    first, *others = parts
    if not others:
        return first
    workloads = dict(first.workloads)
    for other in others:
        check_alike(first, other)
        for name, terms in other.workloads.items():
            known = workloads.setdefault(name, terms)
            if (known.margin, known.gated) != (terms.margin, terms.gated):
                raise InputError(f"results of different margins of {name} cannot be put together")
    candidates = [candidate for part in parts for candidate in part.candidates]
    starts = [sum(len(part.candidates) for part in parts[:place]) for place in range(len(parts))]
    built = [side for side in (first.baseline, *candidates) if side.lock]
    names = iter(
        labels(
            [side.lock for side in built],
            [side.settings for side in built],
            [str(side.versions.get("python", "")) for side in built],
        )
    )
    baseline, *candidates = (
        replace(side, label=next(names)) if side.lock else side
        for side in (first.baseline, *candidates)
    )
    return replace(
        first,
        baseline=baseline,
        candidates=tuple(candidates),
        workloads=workloads,
        blocks=tuple(
            replace(block, candidate=start + block.candidate)
            for start, part in zip(starts, parts, strict=True)
            for block in part.blocks
        ),
        complete=all(part.complete for part in parts),
    )


def condensed(found: Results) -> Results:
    """One pair a block and workload that has the block's value: the verdicts stay the same."""
    return replace(
        found,
        blocks=tuple(
            replace(
                block,
                samples={
                    name: _condensed(samples, found.workloads[name])
                    for name, samples in block.samples.items()
                },
            )
            for block in found.blocks
        ),
    )


def _condensed(samples: Samples, terms: WorkloadTerms) -> Samples:
    ordered = sorted(samples.baseline.values)
    typical = ordered[len(ordered) // 2]
    change = value(samples, terms)
    other = typical + change if terms.is_difference else typical * math.exp(change)
    return Samples(
        SideSamples((typical,)),
        SideSamples((other,)),
        samples.baseline_check,
        samples.candidate_check,
    )
