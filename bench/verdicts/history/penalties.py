"""Penalties of change points by length of a series, calibrated on equal blocks.

Made by `python -m bench history --calibrate bench/results/equal.jsonl`: TensorFlow 2.21.0 against
itself on 2 cores of an AMD EPYC, 24 blocks of five candidates, workloads `train_step[loop,b128]`
and `fit_call`, four blocks a run, seed 0. At most 1 % of the drawn series of either workload may
have a change point; `alarms` counts them on as many fresh series of the workload that has more.
"""

from __future__ import annotations

import math
from typing import NamedTuple

RATE = 0.01  # half of the 2 % that are promised, since a calibration has an error itself


class Calibrated(NamedTuple):
    """A calibrated penalty.

    Attributes:
        runs: runs of a series.
        penalty: penalty of a change point, in squared units of the noise.
        alarms: fresh series without a step that had a change point nevertheless.
        series: number of fresh series.
    """

    runs: int
    penalty: float
    alarms: int
    series: int


TABLE = (
    Calibrated(8, 14.25, 47, 4000),
    Calibrated(10, 16.25, 35, 4000),
    Calibrated(12, 16.5, 30, 4000),
    Calibrated(16, 18.5, 45, 4000),
    Calibrated(20, 20, 39, 4000),
    Calibrated(30, 19.25, 58, 4000),
    Calibrated(45, 21.25, 48, 4000),
    Calibrated(60, 23.25, 43, 4000),
    Calibrated(90, 24.25, 18, 2000),
    Calibrated(120, 25, 18, 2000),
    Calibrated(180, 25.5, 18, 2000),
    Calibrated(240, 26, 19, 2000),
    Calibrated(480, 26.25, 30, 2000),
    Calibrated(960, 29, 12, 2000),
)
FEWEST = TABLE[0].runs  # shorter series are drawn, but not tested


def penalty_of(runs: int) -> float:
    """Returns the penalty for a series of this length: the larger one of its neighbours in TABLE.

    Beyond the table it grows by 2 log(runs), as Schwarz's criterion does.

    Raises:
        ValueError: fewer runs than `FEWEST`.
    """
    if runs < FEWEST:
        raise ValueError(f"{runs} runs are too few")
    last = TABLE[-1]
    if runs >= last.runs:
        return last.penalty + 2 * math.log(runs / last.runs)
    above = next(place for place, row in enumerate(TABLE) if row.runs >= runs)
    exact = TABLE[above].runs == runs
    return max(row.penalty for row in TABLE[above if exact else above - 1 : above + 1])


def nearest(runs: int) -> Calibrated:
    """Returns the row of the table whose length is nearest, by ratio."""
    return min(TABLE, key=lambda row: abs(math.log(row.runs / runs)))
