"""Workers train with the package's code and return predictions for the test images."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bench.records.ledger import made
from bench.records.trainings import Trained
from bench.worker.training import train_seed
from lenet5.data import PARTS, Dataset
from lenet5.evaluation import evaluate
from lenet5.recipe import ENGINES
from lenet5.recipes import RECIPES
from lenet5.training import train

SHORT = RECIPES["fast"].with_overrides({"epochs": 2, "batch_size": 100})


@pytest.fixture
def folder(digits: Dataset, tmp_path: Path) -> Path:
    for part in PARTS:
        np.save(tmp_path / f"{part}_images.npy", getattr(digits, part).images)
        np.save(tmp_path / f"{part}_labels.npy", getattr(digits, part).labels)
    return tmp_path


@pytest.mark.parametrize("engine", ENGINES)
def test_results_match_the_trained_model(folder: Path, digits: Dataset, engine: str) -> None:
    """Results pass through JSON to the parent process."""
    answer = json.loads(json.dumps(train_seed(folder, asdict(SHORT), seed=3, engine=engine)))
    found = made(Trained, answer)
    model, history = train(SHORT, digits.training, digits.validation, seed=3, engine=engine)
    evaluation = evaluate(model, digits.test)
    assert (found.seed, found.images, found.problem) == (3, 300, "")
    assert found.wrong == evaluation.errors
    assert [int(digit) for digit in found.digits] == evaluation.predictions.tolist()
    assert (found.best_epoch, found.epochs) == (history.best_epoch, 2)
    assert found.curves == tuple(
        (
            *(epoch.training_loss, epoch.training_accuracy),
            *(epoch.validation_loss, epoch.validation_accuracy),
        )
        for epoch in history.epochs
    )
    norms = [np.sqrt((weight.astype(float) ** 2).sum()) for weight in model.get_weights()]
    assert found.weight_norms == pytest.approx(norms, rel=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_diverged_training_has_no_predictions(folder: Path, engine: str) -> None:
    recipe = SHORT.with_overrides({"learning_rate": 1e20})
    found = made(Trained, train_seed(folder, asdict(recipe), seed=3, engine=engine))
    assert (found.wrong, found.digits, found.curves) == (None, "", ())
    assert not found.crashed
    assert "the loss is" in found.problem
