"""Breakages of saved models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.mutations.framework.breakage import Breakage, Install, around, everywhere


def _loading(change: Any) -> Install:
    """Changes a model's weights after loading."""

    def install(patch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        def make_model(original: Any) -> Any:
            def load_model(*arguments: Any, **options: Any) -> Any:
                model = original(*arguments, **options)
                model.set_weights(change(model.get_weights()))
                return model

            return load_model

        def make_weights(original: Any) -> Any:
            def load_weights(self: Any, *arguments: Any, **options: Any) -> Any:
                done = original(self, *arguments, **options)
                self.set_weights(change(self.get_weights()))
                return done

            return load_weights

        everywhere(patch, tf.keras.models.load_model, make_model)
        around(patch, tf.keras.Model, "load_weights", make_weights)

    return install


def _rounded(weights: list[Any]) -> list[Any]:
    return [weight.astype(np.float16).astype(weight.dtype) for weight in weights]


def _first_bias_lost(weights: list[Any]) -> list[Any]:
    first = next(place for place, weight in enumerate(weights) if weight.ndim == 1)
    return [0 * weight if place == first else weight for place, weight in enumerate(weights)]


def _last_bias_not_saved(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def save(model: Any, *arguments: Any, **options: Any) -> Any:
            weights = model.get_weights()
            model.set_weights([*weights[:-1], 0 * weights[-1]])
            try:
                return original(model, *arguments, **options)
            finally:
                model.set_weights(weights)

        return save

    everywhere(patch, tf.keras.models.save_model, make)
    around(patch, tf.keras.Model, "save_weights", make)


BREAKAGES = (
    Breakage("loaded weights rounded to float16", "saving", _loading(_rounded)),
    Breakage("loading loses the first bias", "saving", _loading(_first_bias_lost)),
    Breakage("saving leaves the last bias out", "saving", _last_bias_not_saved),
)
