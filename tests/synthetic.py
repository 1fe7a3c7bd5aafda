"""Synthetic results of comparisons: given values, or values drawn from a known truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.records.blocks import (
    BASELINE,
    CANDIDATE,
    Block,
    Failure,
    Results,
    Samples,
    SideSamples,
    Witness,
    WorkloadTerms,
)
from bench.records.sides import Side
from bench.verdicts.speed import Decision, decide

LOOP = "train_step[loop,b128]"
GROWTH = "memory_growth"
PEAK = "peak_memory"
CHECKS = (2.3, 2.2, 2.0)  # losses of the first steps


def terms(
    margin: float = 1.03, *, gated: bool = True, unit: str = "s", is_difference: bool = False
) -> WorkloadTerms:
    """Returns the terms of a workload."""
    return WorkloadTerms(1, unit, margin, gated, is_difference, steps=4)


def growth_terms(margin: float = 0.05) -> WorkloadTerms:
    """Returns the terms of `memory_growth`, here gated."""
    return terms(margin, unit="MiB", is_difference=True)


def exactly(mean: float, deviation: float, count: int) -> list[float]:
    """Returns ascending numbers with exactly this mean and sample standard deviation."""
    raw = np.linspace(-1, 1, count)
    return [float(x) for x in mean + deviation * raw / raw.std(ddof=1)]


def samples_of(values: Sequence[float], on: WorkloadTerms) -> Samples:
    """Returns a workload's pairs in a block, with these log-ratios or differences.

    The baseline always takes 0.03 s or 300 MiB, or does not grow; both sides compute the same.
    """
    if on.is_difference:
        return Samples(SideSamples((0.0,) * len(values)), SideSamples(tuple(values)))
    each = 0.03 if on.unit == "s" else 300.0
    candidate = tuple(each * math.exp(x) for x in values)
    return Samples(SideSamples((each,) * len(values)), SideSamples(candidate), CHECKS, CHECKS)


def block_of(
    number: int,
    samples: Mapping[str, Samples],
    failures: Sequence[Failure] = (),
    *,
    candidate: int = 0,
    disturbed: tuple[str, ...] = (),
) -> Block:
    """Returns a block of 20 seconds on a quiet machine."""
    return Block(
        candidate,
        number,
        first=(BASELINE, CANDIDATE)[number % 2],
        started="2026-11-22T12:00:00+00:00",
        seconds=20.0,
        samples=samples,
        failures=tuple(failures),
        witnesses=(Witness(0.001, 0.2), Witness(0.0011, 0.9, 0.0, 0.01)),
        disturbed=disturbed,
    )


def results_of(
    blocks: Sequence[Block],
    workloads: Mapping[str, WorkloadTerms],
    *,
    candidates: Sequence[Side] = (Side("tensorflow-cpu==2.21.0", "2.21.0"),),
    **more: Any,
) -> Results:
    """Returns a comparison of 2.21.0 with 2.15.1 from these blocks."""
    return Results(
        **{
            "machine": {"cpu": "a processor", "cores": 2},
            "code": "0" * 64,
            "options": {},
            "started": "2026-11-22T12:00:00+00:00",
            "baseline": Side("tensorflow-cpu==2.15.1", "2.15.1", lock=("numpy==1.26.4",)),
            "candidates": tuple(candidates),
            "workloads": workloads,
            "blocks": tuple(blocks),
            "complete": True,
            **more,
        }
    )


def results(
    values: Mapping[str, Sequence[float | None]],
    workloads: Mapping[str, WorkloadTerms] | None = None,
    *,
    pairs: int = 10,
    pair_deviation: float = 0.0,
    seed: int = 0,
    **more: Any,
) -> Results:
    """Returns a comparison whose blocks have these values.

    Args:
        values: by workload, the true log-ratio or difference of each block; `None` for an
            unmeasured workload.
        workloads: terms of the workloads; by default a gated ratio with a margin of 1.03.
        pairs: pairs per block.
        pair_deviation: standard deviation of a pair around its block's value; with 0 the block's
            value is exact.
        seed: seed of the pairs.
        more: other fields of `Results`.
    """
    all_terms = {name: (workloads or {}).get(name, terms()) for name in values}
    random = np.random.RandomState(seed)
    blocks = []
    for number in range(max(map(len, values.values()))):
        samples = {}
        for name, series in values.items():
            value = series[number] if number < len(series) else None
            if value is not None:
                drawn = value + pair_deviation * random.standard_normal(pairs)
                samples[name] = samples_of([float(x) for x in drawn], all_terms[name])
        blocks.append(block_of(number, samples))
    return results_of(blocks, all_terms, **more)


def decided(measured: Results) -> dict[str, Decision]:
    """Returns the decisions of a comparison with one candidate, by workload."""
    return {decision.workload: decision for decision in decide(measured)}


def simulated(
    *,
    ratio: float = 1.0,
    block_deviation: float = 0.009,
    pair_deviation: float = 0.05,
    pairs: int = 40,
    workloads: Sequence[str] = (LOOP,),
    blocks: int = 6,
    seed: int = 0,
) -> Results:
    """Returns a random comparison with one candidate and this true ratio for every workload.

    Args:
        ratio: candidate's true time divided by the baseline's.
        block_deviation: standard deviation of the true log-ratio between blocks.
        pair_deviation: standard deviation of a pair's log-ratio within a block.
        pairs: pairs per block.
        workloads: names.
        blocks: number of blocks.
        seed: seed of all draws.
    """
    random = np.random.RandomState(seed)
    drawn = math.log(ratio) + block_deviation * random.standard_normal((len(workloads), blocks))
    values = {name: [float(x) for x in row] for name, row in zip(workloads, drawn, strict=True)}
    return results(values, pairs=pairs, pair_deviation=pair_deviation, seed=seed + 1)
