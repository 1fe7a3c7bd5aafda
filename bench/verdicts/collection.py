"""Condensed results, small enough for a repository."""

from __future__ import annotations

import math
from dataclasses import replace

from bench.records.blocks import Results, Samples, SideSamples, WorkloadTerms
from bench.verdicts.speed import value


def condensed(found: Results) -> Results:
    """Reduces each block and workload to one pair with the block's value; verdicts stay equal."""
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
