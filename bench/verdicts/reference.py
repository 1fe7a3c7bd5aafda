"""Compares one training with the reference of its recipe and engine: accuracy, curves, weights.

Test accuracy alone is insensitive: with Adam, gradients of half the size train equally well. The
comparison therefore covers every epoch's losses and accuracies and the size of every weight, too.
A quantity outside the prediction interval for one more seed is beyond the reference. This interval
is mean +- t * s * sqrt(1 + 1 / n), with mean, standard deviation s and n from the reference's seeds
(normal seeds; Hahn and Meeker 1991, section 4.7). Among correct trainings, at most one of
`1 / LEVEL` has any quantity beyond the reference (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.records.trainings import Trained

LEVEL = 1e-3
CURVES = ("training loss", "training accuracy", "validation loss", "validation accuracy")
_WEIGHTS = tuple(
    f"{kind} of {layer}"
    for layer in ("C1", "C3", "C5", "F6", "the output")
    for kind in ("kernel", "bias")
)


@dataclass(frozen=True)
class Quantity:
    """A figure of a training and its distribution over the reference's seeds.

    Attributes:
        name: name of the figure, such as `training loss of epoch 3`.
        value: value of the training.
        mean: mean of the reference's seeds.
        deviation: standard deviation between the reference's seeds.
        score: `value - mean` in standard errors of one more seed; infinite if the reference's
            seeds all agree and this training differs.
        limit: largest absolute score that agrees with the reference.
    """

    name: str
    value: float
    mean: float
    deviation: float
    score: float
    limit: float

    @property
    def beyond(self) -> bool:
        """Whether the value lies outside the reference's prediction interval."""
        return not abs(self.score) <= self.limit  # NaN is beyond

    def __str__(self) -> str:
        """`training loss of epoch 3 is 0.41, expected 0.33 +- 0.004 (19 standard errors off)`."""
        return (
            f"{self.name} is {self.value:.4g}, expected {self.mean:.4g} +- {self.deviation:.2g} "
            f"({abs(self.score):.1f} standard errors off, {self.limit:.1f} are allowed)"
        )


def hold_against(trained: Trained, reference: Sequence[Trained]) -> list[Quantity]:
    """Compares every quantity of a training with the reference.

    Args:
        trained: training with its wrong images, curves and sizes of weights.
        reference: at least 3 seeds with the same data.

    Returns:
        The wrong test images, then the curves of the epochs that all seeds reached, then the
        weights.

    Raises:
        ValueError: There are too few seeds, or no common epoch.
    """
    epochs = min(len(seed.curves) for seed in (trained, *reference))
    if len(reference) < 3 or not epochs:
        raise ValueError(f"{len(reference)} seeds of {epochs} common epochs are no reference")
    names, values = _figures(trained, epochs)
    others = np.array([_figures(seed, epochs)[1] for seed in reference])
    seeds = len(reference)
    limit = float(stats.t.isf(LEVEL / 2 / len(names), seeds - 1))
    means, deviations = others.mean(axis=0), others.std(axis=0, ddof=1)
    return [
        Quantity(name, value, float(mean), float(s), _score(value - mean, s, seeds), limit)
        for name, value, mean, s in zip(names, values, means, deviations, strict=True)
    ]


def _figures(trained: Trained, epochs: int) -> tuple[list[str], list[float]]:
    names, values = (
        ["wrong test images"],
        [float(math.nan if trained.wrong is None else trained.wrong)],
    )
    for epoch, row in enumerate(trained.curves[:epochs], start=1):
        names += [f"{curve} of epoch {epoch}" for curve in CURVES]
        values += row
    names += [f"size of the {weight}" for weight in _WEIGHTS]
    values += trained.weight_norms
    return names, values


def _score(difference: float, deviation: float, seeds: int) -> float:
    error = deviation * math.sqrt(1 + 1 / seeds)
    if error > 0:
        return float(difference / error)
    return 0.0 if difference == 0 else math.copysign(math.inf, difference)
