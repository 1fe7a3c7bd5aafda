"""Calibration of change points: false alarms and hits on resampled blocks of known truth.

A bank is the block values of a workload measured against itself. A drawn run is a few blocks of
the bank, a drawn series is many such runs, so a series without a step has the noise that blocks
really have: heavy tails, and candidates that share a baseline's bad moments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.records.blocks import Results
from bench.verdicts.history.change_points import detect, noise_of, segments
from bench.verdicts.history.penalties import Calibrated
from bench.verdicts.speed import value
from lenet5.errors import InputError

BLOCKS = 4  # of a drawn run: the fewest that allow a verdict
FLOOR = 1e-3
_FEWEST_VALUES = 24
_STEP = 0.25  # resolution of a penalty


class Drawn(NamedTuple):
    """A series of runs: means of their blocks, and their standard errors."""

    values: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True)
class Hits:
    """Series with one planted step.

    Attributes:
        series: number of series.
        found: series with a change point within three points of the step.
        within: series whose range of that change point holds the step.
        extra: series with another change point besides.
    """

    series: int
    found: int
    within: int
    extra: int


def bank_of(found: Results) -> dict[str, np.ndarray]:
    """Returns the block values of every workload, for an environment against itself.

    Returns:
        By workload, log-ratios of blocks: float64, shape (candidates, blocks). Blocks that some
        candidate lacks are left out.

    Raises:
        InputError: a candidate is another environment, or a workload has too few blocks.
    """
    for side in found.candidates:
        if (side.lock, dict(side.settings)) != (found.baseline.lock, dict(found.baseline.settings)):
            raise InputError(f"{side.label} is not the baseline: a bank holds equal environments")
    banks = {}
    for name, terms in found.workloads.items():
        by_place: list[dict[int, float]] = [{} for _ in found.candidates]
        for block in found.blocks:
            if name in block.samples:
                by_place[block.candidate][block.number] = value(block.samples[name], terms)
        common = sorted(set.intersection(*map(set, by_place))) if by_place else []
        if len(common) * len(by_place) < _FEWEST_VALUES:
            raise InputError(f"{name}: {len(common)} blocks are too few to resample")
        banks[name] = np.array([[values[number] for number in common] for values in by_place])
    return banks


def draw(bank: np.ndarray, runs: int, random: np.random.RandomState, *, blocks: int) -> Drawn:
    """Draws a series without a step: each run takes different blocks of one candidate."""
    candidates, count = bank.shape
    rows = random.randint(candidates, size=(runs, 1))
    columns = np.argsort(random.random_sample((runs, count)), axis=1)[:, :blocks]
    drawn = bank[rows, columns]
    return Drawn(drawn.mean(axis=1), drawn.std(axis=1, ddof=1) / math.sqrt(blocks))


def calibrate(
    banks: Mapping[str, np.ndarray],
    runs: int,
    *,
    series: int,
    rate: float,
    seed: int,
    blocks: int = BLOCKS,
) -> Calibrated:
    """Finds the least penalty with at most this rate of false alarms on each bank.

    The search begins at 8 + 2 log(runs). The rate is then counted on as many fresh series of each
    bank, and the highest one is kept.

    Args:
        banks: block values by workload, from `bank_of`.
        runs: runs of a series.
        series: number of series of each bank.
        rate: allowed share of series with any change point, 0 to 1.
        seed: seed of all draws.
        blocks: blocks of a run.
    """
    random = np.random.RandomState(seed)
    penalty = _STEP * math.ceil((8 + 2 * math.log(runs)) / _STEP)
    for bank in banks.values():
        least = penalty
        needed = sorted(
            (
                _least_quiet_penalty(draw(bank, runs, random, blocks=blocks), least)
                for _ in range(series)
            ),
            reverse=True,
        )
        penalty = needed[int(rate * series)]
    alarms = max(
        sum(
            bool(detect(_standardised(draw(bank, runs, random, blocks=blocks)), penalty))
            for _ in range(series)
        )
        for bank in banks.values()
    )
    return Calibrated(runs, penalty, alarms, series)


def false_alarms(
    bank: np.ndarray, runs: int, *, series: int, seed: int, blocks: int = BLOCKS
) -> int:
    """Counts the series without a step that have a change point, with the stored penalties."""
    random = np.random.RandomState(seed)
    drawn = (draw(bank, runs, random, blocks=blocks) for _ in range(series))
    return sum(
        bool(segments(list(each.values), list(each.errors), floor=FLOOR).steps) for each in drawn
    )


def planted(
    bank: np.ndarray,
    runs: int,
    ratio: float,
    *,
    series: int,
    seed: int,
    blocks: int = BLOCKS,
) -> Hits:
    """Plants one step of this ratio into each series, and counts how often it is found.

    The step is anywhere that leaves four runs on either side.
    """
    random = np.random.RandomState(seed)
    found = within = extra = 0
    for _ in range(series):
        at = random.randint(4, runs - 3)
        drawn = draw(bank, runs, random, blocks=blocks)
        values = drawn.values + math.log(ratio) * (np.arange(runs) >= at)
        steps = segments(values.tolist(), drawn.errors.tolist(), floor=FLOOR).steps
        near = [step for step in steps if abs(step.at - at) <= 3]
        found += bool(near)
        within += any(step.earliest <= at <= step.latest for step in near)
        extra += len(steps) > len(near[:1])
    return Hits(series, found, within, extra)


def _standardised(drawn: Drawn) -> np.ndarray:
    return drawn.values / noise_of(drawn.values, list(drawn.errors), FLOOR)


def _least_quiet_penalty(drawn: Drawn, least: float) -> float:
    """Returns the least penalty without a change point, from `least` in steps of 0.25.

    More penalty never adds a change point to an optimal segmentation.
    """
    values = _standardised(drawn)
    if not detect(values, least):
        return least
    low, high = 0, 1
    while detect(values, least + _STEP * high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if detect(values, least + _STEP * middle):
            low = middle
        else:
            high = middle
    return least + _STEP * high


def line(row: Calibrated) -> str:
    """Returns a row as a line of `bench.verdicts.history.penalties.TABLE`."""
    return f"    Calibrated({row.runs}, {row.penalty:g}, {row.alarms}, {row.series}),"
