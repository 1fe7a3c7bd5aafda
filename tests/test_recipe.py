"""Recipes have the intended values, refuse invalid ones, and adapt to their epochs."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict

import numpy as np
import pytest

from lenet5.errors import InputError
from lenet5.recipe import ENGINES, Recipe, check_engine
from lenet5.recipes import RECIPES, find_recipe


def test_original_has_the_original_projects_settings() -> None:
    original = RECIPES["original"]
    assert (original.batch_size, original.epochs, original.patience) == (32, 20, 3)
    assert (original.learning_rate, original.schedule) == (1e-3, "constant")
    assert (original.l2, original.dropout) == (1e-3, 0.5)
    assert (original.adam_beta_1, original.adam_beta_2) == (0.9, 0.999)
    assert original.adam_epsilon == 1e-7
    assert original.min_accuracy == 0.97


def test_fast_has_the_same_model_and_fewer_epochs_and_must_reach_98_percent() -> None:
    fast = RECIPES["fast"]
    assert fast.epochs < RECIPES["original"].epochs / 2
    assert (fast.l2, fast.dropout) == (1e-3, 0.5)
    assert fast.min_accuracy == 0.98
    assert fast.max_accuracy < 1


def test_constant_schedule() -> None:
    rates = RECIPES["original"].learning_rates(4)
    assert rates.dtype == np.float32
    np.testing.assert_array_equal(rates, np.full(4, 1e-3, np.float32))


def test_linear_schedule_rises_to_the_peak_and_falls_to_zero() -> None:
    recipe = RECIPES["fast"].with_overrides({"learning_rate": 1.0, "warmup_fraction": 0.4})
    expected = [0.25, 0.5, 0.75, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    np.testing.assert_allclose(recipe.learning_rates(10), expected, rtol=1e-6)


def test_cosine_schedule_falls_by_half_a_wave() -> None:
    recipe = RECIPES["fast"].with_overrides(
        {"schedule": "cosine", "learning_rate": 1.0, "warmup_fraction": 0.2}
    )
    expected = [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]
    rates = recipe.with_overrides({"warmup_fraction": 2 / 6}).learning_rates(6)
    assert rates == pytest.approx(expected, abs=1e-6)


def test_schedule_adapts_to_the_number_of_steps() -> None:
    fast = RECIPES["fast"]
    short, long = fast.learning_rates(100), fast.learning_rates(1000)
    assert short.argmax() == pytest.approx(10, abs=1)
    assert long.argmax() == pytest.approx(100, abs=1)
    assert short.max() == long.max() == np.float32(fast.learning_rate)
    assert (long > 0).all()


def test_a_run_of_one_step_has_a_learning_rate() -> None:
    assert RECIPES["fast"].learning_rates(1)[0] > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("batch_size", True),
        ("epochs", 0),
        ("patience", 0),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("schedule", "stepwise"),
        ("warmup_fraction", 1.0),
        ("l2", -1e-3),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("label_smoothing", 1.0),
        ("average_decay", 1.0),
        ("rotation_degrees", -1),
        ("shear_degrees", 61),
        ("scaling", 1.0),
        ("shift_pixels", 29),
        ("adam_epsilon", 0),
        ("adam_beta_1", 1.0),
        ("min_accuracy", 1.1),
        ("max_accuracy", 0.5),
        ("min_accuracy", "98 %"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        RECIPES["fast"].with_overrides({field: value})


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(InputError, match="momentum"):
        RECIPES["fast"].with_overrides({"momentum": 0.9})


def test_an_unknown_recipe_is_refused_with_the_known_names() -> None:
    with pytest.raises(InputError, match="unknown recipe 'slow': choose one of original, fast"):
        find_recipe("slow")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_engines_are_known(engine: str) -> None:
    check_engine(engine)


@pytest.mark.parametrize("engine", ["products", "", "Keras", None, ["keras"], {"keras"}])
def test_an_unknown_engine_is_refused_with_the_known_names(engine: object) -> None:
    with pytest.raises(InputError) as caught:
        check_engine(engine)
    assert str(caught.value) == f"unknown engine {engine!r}: choose keras or graph"


def test_a_recipe_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPES["fast"].epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_survives_serialisation(recipe: Recipe) -> None:
    assert Recipe.from_dict(asdict(recipe)) == recipe


def test_a_serialised_recipe_without_a_required_field_is_refused() -> None:
    values = asdict(RECIPES["fast"])
    del values["learning_rate"]
    with pytest.raises(InputError, match="learning_rate"):
        Recipe.from_dict(values)


def test_a_serialised_recipe_without_a_newer_field_is_read() -> None:
    values = asdict(RECIPES["fast"])
    del values["label_smoothing"]
    assert Recipe.from_dict(values) == RECIPES["fast"]
