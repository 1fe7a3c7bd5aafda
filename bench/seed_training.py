"""What a worker does with a seed: it trains a recipe, and answers the test images once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lenet5.data import PARTS, Subset, normalise
from lenet5.recipe import Recipe
from lenet5.training import DivergenceError, train


def train_seed(folder: Path, recipe: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Trains and tests.

    Args:
        folder: with `<part>_images.npy` and `<part>_labels.npy` of the three parts of MNIST.
        recipe: its fields.
        seed: of the run.

    Returns:
        The fields of `bench.accuracy.Trained`.
    """
    training, validation, test = (_subset(folder, part) for part in PARTS)
    answer: dict[str, Any] = {"seed": seed, "images": len(test.labels)}
    try:
        model, history = train(Recipe.from_dict(recipe), training, validation, seed)
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
    }


def _subset(folder: Path, part: str) -> Subset:
    images, labels = (np.load(folder / f"{part}_{kind}.npy") for kind in ("images", "labels"))
    return Subset(images, labels)
