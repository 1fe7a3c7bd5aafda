"""Faults in blocks: crashes, hangs and wrong results of a side, one reason per block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.records.blocks import BASELINE, CANDIDATE, Block, Results, Samples
from bench.records.sides import Side

# Largest relative deviation of the first steps' losses between two correct environments:
# fifty times the largest deviation among TensorFlow 2.12 to 2.21 (bench/RESULTS.md).
CHECK_TOLERANCE = 1e-5
# On a GPU, whose libraries choose between float32 and TF32, which keeps 10 bits of a factor, by
# their times: ten times the largest deviation of emulated TF32 from float64. That is 4.2e-5 for
# losses of 50 steps, and 2.0e-4 for mean probabilities of 512 images (5 draws of initial weights).
GPU_CHECK_TOLERANCE = 2e-3


def check_tolerance(device: str) -> float:
    """Returns the largest relative deviation of a check figure on `cpu` or `gpu:N`."""
    return CHECK_TOLERANCE if device == "cpu" else GPU_CHECK_TOLERANCE


@dataclass(frozen=True)
class Faults:
    """Faults of a workload, one reason per block.

    Attributes:
        baseline: faults of the baseline.
        candidate: faults of the candidate, in blocks without a fault of the baseline.
        wrong: the wrong results among the candidate's faults.
    """

    baseline: Sequence[str]
    candidate: Sequence[str]
    wrong: Sequence[str]


def missing(results: Results, candidate: int) -> str:
    """Returns why a candidate could not be compared; empty if it could.

    An environment is missing if it was not built, or if its worker started in no block.
    """
    for side in (results.baseline, results.candidates[candidate]):
        if side.problem:
            return f"{_who(results, side)} is not there: {side.problem}"
    blocks = [block for block in results.blocks if block.candidate == candidate]
    for name, side in ((BASELINE, results.baseline), (CANDIDATE, results.candidates[candidate])):
        reasons = [
            failure.reason
            for block in blocks
            for failure in block.failures
            if failure.side == name and not failure.workload
        ]
        if blocks and len(reasons) >= len(blocks) and not any(b.samples for b in blocks):
            who = _who(results, side)
            return f"{who} is not there: its worker cannot start: {reasons[-1]}"
    return ""


def _who(results: Results, side: Side) -> str:
    return "the baseline" if side is results.baseline else side.label


def tried(blocks: Sequence[Block], name: str) -> Sequence[Block]:
    """Returns the blocks up to the last one that measured a workload.

    A decided workload leaves the later blocks, so a failed start there does not count against it.
    """
    has = [
        name in block.samples or any(failure.workload == name for failure in block.failures)
        for block in blocks
    ]
    return blocks[: len(has) - has[::-1].index(True)]


def faults_of(blocks: Sequence[Block], name: str, tolerance: float = CHECK_TOLERANCE) -> Faults:
    """Returns the faults of a workload in a candidate's blocks.

    Args:
        blocks: the candidate's blocks.
        name: the workload.
        tolerance: `check_tolerance` of the measured device.
    """
    baseline, candidate, wrong = [], [], []
    for block in blocks:
        samples = block.samples.get(name)
        of_baseline = _failure_of(block, name, BASELINE) or _useless_check(samples)
        of_candidate = _failure_of(block, name, CANDIDATE)
        computed = is_wrong(samples, tolerance) if samples else None
        if of_baseline:
            baseline.append(of_baseline)
        elif of_candidate or computed:
            candidate.append(of_candidate or computed or "")
            wrong += [computed] if computed else []
    return Faults(baseline, candidate, wrong)


def is_wrong(samples: Samples, tolerance: float = CHECK_TOLERANCE) -> str | None:
    """Returns the difference between the candidate's and the baseline's results, or None."""
    if len(samples.baseline_check) != len(samples.candidate_check):
        counts = len(samples.candidate_check), len(samples.baseline_check)
        return f"gives {counts[0]} check figures instead of {counts[1]}"
    both = zip(samples.baseline_check, samples.candidate_check, strict=True)
    for number, (right, other) in enumerate(both, start=1):
        if not abs(other - right) <= tolerance * abs(right):  # catches NaN too
            return f"computes {other:.6g} instead of {right:.6g} (check figure {number})"
    return None


def _failure_of(block: Block, name: str, side: str) -> str | None:
    """Why a side has no samples; a failed start of its worker counts if no other reason exists."""
    if name in block.samples:
        return None
    own = [failure for failure in block.failures if failure.workload == name]
    told = own or [failure for failure in block.failures if not failure.workload]
    return next((failure.reason for failure in told if failure.side == side), None)


def _useless_check(samples: Samples | None) -> str | None:
    """Why the baseline's check figures are unusable, or None."""
    for number, figure in enumerate(samples.baseline_check if samples else (), start=1):
        if not math.isfinite(figure):
            return f"computes {figure:.6g} (check figure {number})"
    return None
