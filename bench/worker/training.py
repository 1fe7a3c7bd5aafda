"""Training of one seed in a worker, with one prediction of the test images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lenet5.data import PARTS, Subset, normalise
from lenet5.history import DivergenceError, History
from lenet5.recipe import Recipe
from lenet5.training import train


def train_seed(folder: Path, recipe: Mapping[str, Any], seed: int, engine: str) -> dict[str, Any]:
    """Trains a recipe, and tests the model.

    Args:
        folder: folder of `<part>_images.npy` and `<part>_labels.npy` for the three parts of MNIST.
        recipe: fields of the recipe.
        seed: seed of the run.
        engine: engine of the run.

    Returns:
        The fields of `bench.records.trainings.Trained`.
    """
    training, validation, test = (_subset(folder, part) for part in PARTS)
    answer: dict[str, Any] = {"seed": seed, "images": len(test.labels)}
    try:
        model, history = train(Recipe.from_dict(recipe), training, validation, seed, engine=engine)
    except DivergenceError as error:
        return {**answer, "wrong": None, "problem": str(error)}
    probabilities = model.predict(normalise(test.images), batch_size=500, verbose=0)
    digits = np.argmax(probabilities, axis=1)
    return {
        **answer,
        "wrong": int((digits != test.labels).sum()),
        "digits": "".join(map(str, digits)),
        "train_seconds": history.train_seconds,
        "best_epoch": history.best_epoch,
        "epochs": len(history.epochs),
        "curves": curves_of(history),
        "weight_norms": [float(np.linalg.norm(weight)) for weight in model.get_weights()],
    }


def curves_of(history: History) -> list[list[float]]:
    """Returns one row per epoch: loss and accuracy of training, then of validation."""
    return [
        [
            *(epoch.training_loss, epoch.training_accuracy),
            *(epoch.validation_loss, epoch.validation_accuracy),
        ]
        for epoch in history.epochs
    ]


def _subset(folder: Path, part: str) -> Subset:
    images, labels = (np.load(folder / f"{part}_{kind}.npy") for kind in ("images", "labels"))
    return Subset(images, labels)
