"""The named recipes."""

from __future__ import annotations

from lenet5.errors import InputError
from lenet5.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="original",
            batch_size=32,
            epochs=20,
            learning_rate=1e-3,
            schedule="constant",
            patience=3,
            min_accuracy=0.97,
            max_accuracy=0.99,
        ),
        Recipe(
            name="fast",
            batch_size=128,
            epochs=9,
            learning_rate=5e-3,
            schedule="linear",
            warmup_fraction=0.1,
            patience=None,
            min_accuracy=0.98,
            max_accuracy=0.992,
        ),
        Recipe(
            name="best",
            batch_size=32,
            epochs=20,
            learning_rate=2e-3,
            schedule="cosine",
            warmup_fraction=0.1,
            patience=None,
            l2=1e-5,
            dropout=0.0,
            label_smoothing=0.03,
            average_decay=0.999,
            rotation_degrees=8.0,
            shear_degrees=5.0,
            scaling=0.12,
            shift_pixels=1.0,
            adam_beta_2=0.99,
            min_accuracy=0.99,
            max_accuracy=0.998,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """Returns the recipe of this name.

    Raises:
        InputError: no recipe has this name.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise InputError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}") from None
