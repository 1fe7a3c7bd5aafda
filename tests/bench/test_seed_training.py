"""A worker's training is the package's own, and what it answers is of the test images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bench.accuracy import Trained
from bench.seed_training import train_seed
from lenet5.data import PARTS, Dataset
from lenet5.evaluation import evaluate
from lenet5.recipes import RECIPES
from lenet5.training import train

SHORT = RECIPES["fast"].with_overrides({"epochs": 2, "batch_size": 100})


@pytest.fixture
def folder(digits: Dataset, tmp_path: Path) -> Path:
    for part in PARTS:
        np.save(tmp_path / f"{part}_images.npy", getattr(digits, part).images)
        np.save(tmp_path / f"{part}_labels.npy", getattr(digits, part).labels)
    return tmp_path


def test_answers_are_those_of_the_trained_model(folder: Path, digits: Dataset) -> None:
    found = Trained(**train_seed(folder, asdict(SHORT), seed=3))
    model, history = train(SHORT, digits.training, digits.validation, seed=3)
    evaluation = evaluate(model, digits.test)
    assert (found.seed, found.images, found.problem) == (3, 300, "")
    assert found.wrong == evaluation.errors
    assert [int(digit) for digit in found.digits] == evaluation.predictions.tolist()
    assert (found.best_epoch, found.epochs) == (history.best_epoch, 2)


def test_a_training_that_diverges_has_no_answers(folder: Path) -> None:
    recipe = SHORT.with_overrides({"learning_rate": 1e20})
    found = Trained(**train_seed(folder, asdict(recipe), seed=3))
    assert (found.wrong, found.digits) == (None, "")
    assert "the loss is" in found.problem
