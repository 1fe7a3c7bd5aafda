"""One training held against the reference of its recipe and engine: accuracy, curves and weights.

A test accuracy alone notices little: with Adam a gradient of half the size trains as well. So every
epoch's losses and accuracies and the size of every weight are held against the reference's seeds as
well. A quantity is beyond the reference where it lies outside the prediction interval for one more
seed: mean +- t * s * sqrt(1 + 1 / n), with the mean, the standard deviation s and n of the
reference's seeds (normal seeds; Hahn and Meeker 1991, section 4.7). All quantities together are
beyond it in at most one of `1 / LEVEL` trainings that are as the reference's (Bonferroni).
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
    """A figure of a training beside those of the reference's seeds.

    Attributes:
        name: what it is, such as `training loss of epoch 3`.
        value: of the training.
        mean: of the reference's seeds.
        deviation: standard deviation between them.
        score: `value - mean` in standard errors of one more seed; infinite where all the
            reference's seeds agree and this one does not.
        limit: largest score, either way, that is as the reference.
    """

    name: str
    value: float
    mean: float
    deviation: float
    score: float
    limit: float

    @property
    def beyond(self) -> bool:
        """Whether the training is not as the reference's."""
        return not abs(self.score) <= self.limit  # NaN is beyond

    def __str__(self) -> str:
        """`training loss of epoch 3 is 0.41, expected 0.33 +- 0.004 (19 standard errors off)`."""
        return (
            f"{self.name} is {self.value:.4g}, expected {self.mean:.4g} +- {self.deviation:.2g} "
            f"({abs(self.score):.1f} standard errors off, {self.limit:.1f} are allowed)"
        )


def hold_against(trained: Trained, reference: Sequence[Trained]) -> list[Quantity]:
    """Every quantity of a training beside the reference's.

    Args:
        trained: with its wrong images, curves and sizes of weights.
        reference: seeds with the same, at least 3.

    Returns:
        The wrong test images, then the curves, epoch by epoch as far as all seeds came, then the
        weights.

    Raises:
        ValueError: there are too few seeds, or none of their curves.
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
