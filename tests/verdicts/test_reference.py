"""Comparison of a training with its reference: similar trainings pass, others are named."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.records.trainings import Trained
from bench.verdicts.reference import LEVEL, hold_against

EPOCHS = 4


def drawn(seed: int, *, epochs: int = EPOCHS, shift: float = 0.0) -> Trained:
    """A seed with normally distributed figures about known means."""
    random = np.random.RandomState(seed)
    rows = [
        (
            *(1 / epoch + shift + 0.01 * random.randn(), 0.9 + 0.002 * random.randn()),
            *(0.8 / epoch + 0.01 * random.randn(), 0.95 + 0.002 * random.randn()),
        )
        for epoch in range(1, epochs + 1)
    ]
    norms = tuple(3 + 0.02 * random.randn(10))
    wrong = 130 + round(7 * random.randn())
    return Trained(seed, wrong, 10_000, curves=tuple(rows), weight_norms=norms)


REFERENCE = [drawn(seed) for seed in range(20)]


def test_another_seed_agrees_with_the_reference() -> None:
    quantities = hold_against(drawn(99), REFERENCE)
    assert not [str(quantity) for quantity in quantities if quantity.beyond]


def test_every_quantity_is_compared_once() -> None:
    """Wrong images, four curves per epoch, and ten weights."""
    names = [quantity.name for quantity in hold_against(drawn(99), REFERENCE)]
    assert len(set(names)) == len(names) == 1 + 4 * EPOCHS + 10
    assert names[0] == "wrong test images"
    assert names[1:5] == [
        *("training loss of epoch 1", "training accuracy of epoch 1"),
        *("validation loss of epoch 1", "validation accuracy of epoch 1"),
    ]
    assert names[-10:-8] == ["size of the kernel of C1", "size of the bias of C1"]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(drawn(99, shift=0.15), id="a curve"),
        pytest.param(replace(drawn(99), wrong=200), id="accuracy"),
        pytest.param(replace(drawn(99), wrong=60), id="too good"),
        pytest.param(replace(drawn(99), weight_norms=(2.5, *9 * (3.0,))), id="a weight"),
        pytest.param(replace(drawn(99), weight_norms=(math.nan, *9 * (3.0,))), id="NaN"),
    ],
)
def test_a_deviating_quantity_is_beyond_the_reference(broken: Trained) -> None:
    assert any(quantity.beyond for quantity in hold_against(broken, REFERENCE))


def test_the_score_is_that_of_a_prediction_interval() -> None:
    """For one more seed: (value - mean) / (s sqrt(1 + 1 / n)); all quantities share the level."""
    trained = drawn(99)
    quantity = hold_against(trained, REFERENCE)[0]
    counts = [float(seed.wrong or 0) for seed in REFERENCE]
    error = np.std(counts, ddof=1) * math.sqrt(1 + 1 / 20)
    assert quantity.score == pytest.approx((float(trained.wrong or 0) - np.mean(counts)) / error)
    assert quantity.limit == pytest.approx(stats.t.ppf(1 - LEVEL / 2 / 27, 19))


def test_one_of_a_thousand_correct_trainings_is_beyond_the_reference() -> None:
    """All quantities of 2,000 draws, up to the limit of chance (Poisson, 1e-4)."""
    beyond = [
        any(quantity.beyond for quantity in hold_against(drawn(seed), REFERENCE))
        for seed in range(1_000, 3_000)
    ]
    assert sum(beyond) <= stats.poisson.isf(1e-4, 2_000 * LEVEL)


def test_a_figure_common_to_all_seeds_allows_no_other_value() -> None:
    reference = [replace(seed, wrong=100) for seed in REFERENCE]
    same, other = (
        hold_against(replace(drawn(99), wrong=wrong), reference)[0] for wrong in (100, 101)
    )
    assert not same.beyond
    assert other.score == math.inf
    assert other.beyond


def test_epochs_missing_in_some_seeds_are_left_out() -> None:
    names = [q.name for q in hold_against(drawn(99, epochs=6), [*REFERENCE, drawn(98, epochs=2)])]
    assert len(names) == 1 + 4 * 2 + 10


def test_seeds_without_curves_are_refused_as_a_reference() -> None:
    with pytest.raises(ValueError, match="20 seeds of 0 common epochs"):
        hold_against(drawn(99), [replace(seed, curves=()) for seed in REFERENCE])
    with pytest.raises(ValueError, match="2 seeds"):
        hold_against(drawn(99), REFERENCE[:2])


def test_the_picture_shows_every_epoch_and_the_limit() -> None:
    """Curves above, scores by epoch below; scores far beyond the limit are at the edge."""
    from bench.report.accuracy_plots import gate_figure

    broken = drawn(99, shift=0.5)
    panels: Any = gate_figure({"keras": (broken, REFERENCE)}).axes
    losses, accuracies, training, validation = panels
    first, second = losses.lines
    assert list(first.get_ydata()) == [row[0] for row in broken.curves]
    assert list(second.get_ydata()) == [row[2] for row in broken.curves]
    assert list(accuracies.lines[0].get_ydata()) == [100 * row[1] for row in broken.curves]
    limit = hold_against(broken, REFERENCE)[0].limit
    assert list(training.lines[0].get_ydata()) == [2 * limit] * EPOCHS
    assert max(abs(score) for score in validation.lines[0].get_ydata()) < limit
