"""Change points of a series: where its level moved, by how much, and within which runs.

PELT of the library `skchange` (Killick, Fearnhead and Eckley 2012, "Optimal detection of
changepoints with a linear computational cost") with squared errors, segments of two points or more
(one outlier is no level), and penalties calibrated on the project's own equal blocks
(`bench.verdicts.history.calibration`). A penalty has the unit of the squared values, so each series
is divided by its noise first: the same step is found in milliseconds and in seconds.

The point itself is uncertain. Its range holds 95 % of its posterior probability, with a flat prior
over the runs between the neighbouring change points and over both levels, and normal noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import special

from bench.verdicts.history.penalties import FEWEST, penalty_of
from lenet5.errors import InputError

SMALLEST_SEGMENT = 2
COVERAGE = 0.95
_NORMAL_MEDIAN = 0.6744897501960817  # of the absolute value of a standard normal number


@dataclass(frozen=True)
class Level:
    """A stretch of a series without a change.

    Attributes:
        first: index of its first point.
        last: index of its last point.
        mean: mean of its points.
        low: lower end of the mean's 95 % interval; NaN below two points of a series.
        high: upper end.
    """

    first: int
    last: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Step:
    """A change between two levels.

    Attributes:
        at: index of the new level's first point, by the best segmentation.
        earliest: first index in the 95 % range of `at`.
        latest: last index in the range.
        change: new level minus old level.
        low: lower end of the change's 95 % interval, with the error of a chained baseline.
        high: upper end.
    """

    at: int
    earliest: int
    latest: int
    change: float
    low: float
    high: float

    @property
    def is_proven(self) -> bool:
        """Whether the interval excludes 0; a chained baseline may widen it."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Segments:
    """A series as levels with steps between them.

    Attributes:
        noise: standard deviation that the series was divided by.
        levels: at least one.
        steps: one fewer.
        is_tested: whether the series is long enough to look for a change.
    """

    noise: float
    levels: tuple[Level, ...]
    steps: tuple[Step, ...]
    is_tested: bool


def segments(
    values: Sequence[float],
    errors: Sequence[float],
    links: Sequence[float] = (),
    *,
    floor: float,
) -> Segments:
    """Splits a series into levels.

    Args:
        values: finite values in the order of the runs, at least one.
        errors: standard error of each value; NaN if unknown.
        links: standard error of the chain to each value's baseline; 0 without a chain. A step
            between points of different chains includes both.
        floor: least noise: nothing below it is worth a step.

    Raises:
        InputError: the library is not installed.
    """
    array = np.asarray(values, np.float64)
    noise = noise_of(array, errors, floor)
    is_tested = len(array) >= FEWEST
    found = detect(array / noise, penalty_of(len(array))) if is_tested else []
    bounds = [0, *found, len(array)]
    pieces = [array[a:b] for a, b in pairwise(bounds)]
    freedom = len(array) - len(pieces)
    spread = _pooled_deviation(pieces, freedom, floor)
    t = float(special.stdtrit(freedom, 0.5 + COVERAGE / 2)) if freedom else math.nan
    levels = tuple(
        _level(first, piece, t * spread / math.sqrt(len(piece)))
        for first, piece in zip(bounds, pieces, strict=False)
    )
    chain = list(links) or [0.0] * len(array)
    steps = tuple(
        _step(array / noise, bounds[place : place + 3], levels[place : place + 2], chain, spread, t)
        for place in range(len(found))
    )
    return Segments(noise, levels, steps, is_tested)


def noise_of(values: np.ndarray, errors: Sequence[float], floor: float) -> float:
    """Returns a robust standard deviation of a series around its levels.

    The larger one of: the median absolute difference of neighbours as that of normal values, which
    a few steps do not move; the median standard error that the runs state; the floor.
    """
    shown = 0.0
    if len(values) > 1:
        typical = float(np.median(np.abs(np.diff(values))))
        shown = typical / (_NORMAL_MEDIAN * math.sqrt(2))
    stated = [error for error in errors if math.isfinite(error)]
    return max(shown, float(np.median(stated)) if stated else 0.0, floor)


def detect(standardised: np.ndarray, penalty: float) -> list[int]:
    """Returns the first index of every level but the first one.

    Raises:
        InputError: the library is not installed.
    """
    try:
        from skchange.detectors import PELT
    except ImportError:
        raise InputError("history needs skchange: pip install 'lenet5-bench[history]'") from None
    column = standardised.reshape(-1, 1)
    detector = PELT(penalty=penalty, min_segment_length=SMALLEST_SEGMENT).fit(column)
    return [int(place) for place in detector.predict(column)]


class _Range(NamedTuple):
    earliest: int
    latest: int


def _level(first: int, piece: np.ndarray, half: float) -> Level:
    mean = float(piece.mean())
    return Level(first, first + len(piece) - 1, mean, mean - half, mean + half)


def _pooled_deviation(pieces: Sequence[np.ndarray], freedom: int, floor: float) -> float:
    squares = sum(float(np.sum((piece - piece.mean()) ** 2)) for piece in pieces)
    return max(math.sqrt(squares / freedom), floor) if freedom else math.nan


def _step(
    standardised: np.ndarray,
    bounds: Sequence[int],
    levels: Sequence[Level],
    links: Sequence[float],
    spread: float,
    t: float,
) -> Step:
    start, at, end = bounds
    before, after = levels
    change = after.mean - before.mean
    variance = spread**2 * (1 / (at - start) + 1 / (end - at))
    joined = max(links[start:at]), max(links[at:end])
    if len(set(links[start:end])) > 1:
        variance += joined[0] ** 2 + joined[1] ** 2
    half = t * math.sqrt(variance)
    found = credible_range(standardised[start:end])
    return Step(
        at, start + found.earliest, start + found.latest, change, change - half, change + half
    )


def credible_range(standardised: np.ndarray) -> _Range:
    """Returns the smallest set of places of one step with 95 % probability, as its ends.

    The posterior of a step before place k of n values with unit noise, both levels integrated over
    a flat prior, is proportional to exp(-S(k) / 2) / sqrt(k (n - k)), with the sum S of squares
    around both means (Smith 1975, "A Bayesian approach to inference about a change-point in a
    sequence of random variables").

    Args:
        standardised: values from the previous change point to the next, at least four.
    """
    count = len(standardised)
    places = np.arange(SMALLEST_SEGMENT, count - SMALLEST_SEGMENT + 1)
    sums = np.cumsum(standardised)
    before = sums[places - 1]
    explained = before**2 / places + (sums[-1] - before) ** 2 / (count - places)
    score = explained / 2 - np.log(places * (count - places)) / 2
    weights = np.exp(score - score.max())
    order = np.argsort(-weights, kind="stable")
    mass = np.cumsum(weights[order]) / weights.sum()
    kept = places[order[: int(np.searchsorted(mass, COVERAGE)) + 1]]
    return _Range(int(kept.min()), int(kept.max()))
