"""Distortions of hand-made training images with exactly known transformations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lenet5.augmentation import augment, distort, distort_randomly, distorts
from lenet5.recipes import RECIPES

PLAIN = RECIPES["fast"]
INNER = slice(8, 20)  # pixels without influence of the border in these tests
ROWS, COLUMNS = np.mgrid[0:28, 0:28] - 13.5  # relative to the centre


def distorted(image: np.ndarray, **amounts: float) -> np.ndarray:
    """Returns one image (28, 28), transformed by these amounts."""
    usual = {"rotation": 0.0, "shear": 0.0, "scale_x": 1.0, "scale_y": 1.0}
    usual |= {"shift_x": 0.0, "shift_y": 0.0}
    each = {name: tf.constant([value], tf.float32) for name, value in (usual | amounts).items()}
    images = tf.constant(image[None, :, :, None], tf.float32)
    result: np.ndarray = distort(images, **each).numpy()[0, :, :, 0]
    return result


def noise(count: int = 6) -> Any:
    return tf.constant(np.random.RandomState(0).rand(count, 28, 28, 1), tf.float32)


def step(number: int) -> Any:
    return tf.constant(number, tf.int64)


def test_zero_amounts_change_nothing() -> None:
    image = noise(1).numpy()[0, :, :, 0]
    np.testing.assert_array_equal(distorted(image), image)


def test_a_recipe_without_distortions_returns_the_same_images() -> None:
    images = noise()
    assert not distorts(PLAIN)
    assert augment(images, PLAIN, seed=0, step=step(0)) is images


def test_a_shift_moves_right_and_down_and_leaves_black() -> None:
    image = noise(1).numpy()[0, :, :, 0] + 0.5
    moved = distorted(image, shift_x=3.0, shift_y=2.0)
    np.testing.assert_allclose(moved[2:, 3:], image[:-2, :-3], atol=1e-6)
    assert not moved[:2].any()
    assert not moved[:, :3].any()


def test_a_shift_by_half_a_pixel_averages_two_pixels() -> None:
    image = np.zeros((28, 28))
    image[10, 10] = 1.0
    moved = distorted(image, shift_x=0.5)
    assert moved[10, 10:12] == pytest.approx([0.5, 0.5])
    assert moved.sum() == pytest.approx(1.0)


def test_a_quarter_turn_is_clockwise() -> None:
    image = noise(1).numpy()[0, :, :, 0]
    turned = distorted(image, rotation=np.pi / 2)
    np.testing.assert_allclose(turned, np.rot90(image, -1), atol=1e-4)


@pytest.mark.parametrize(
    ("amounts", "source_x", "source_y"),
    [
        ({"scale_x": 2.0}, COLUMNS / 2, ROWS),
        ({"scale_y": 0.8}, COLUMNS, ROWS / 0.8),
        ({"shear": np.arctan(0.25)}, COLUMNS - 0.25 * ROWS, ROWS),
        (
            {"rotation": np.pi / 2, "scale_x": 2.0, "shift_x": 1.0},  # scaled, rotated, shifted
            ROWS / 2,
            -(COLUMNS - 1),
        ),
    ],
)
def test_pixels_come_from_their_expected_positions(
    amounts: dict[str, float], source_x: np.ndarray, source_y: np.ndarray
) -> None:
    """Bilinear interpolation is exact on a ramp, whose values encode the source of a pixel."""
    for ramp, expected in ((COLUMNS, source_x), (ROWS, source_y)):
        found = distorted(ramp, **amounts)
        np.testing.assert_allclose(found[INNER, INNER], expected[INNER, INNER], atol=1e-4)


@pytest.mark.parametrize("amount", ["rotation_degrees", "shear_degrees", "scaling", "shift_pixels"])
def test_amounts_depend_on_seed_step_and_image(amount: str) -> None:
    recipe = PLAIN.with_overrides({amount: 0.2 if amount == "scaling" else 5.0})
    assert distorts(recipe)
    same = tf.repeat(noise(1), 4, axis=0)
    first = augment(same, recipe, 1, step(7)).numpy()
    np.testing.assert_array_equal(first, augment(same, recipe, 1, step(7)).numpy())
    assert len({image.tobytes() for image in first}) == 4
    for seed, number in ((1, 8), (2, 7)):
        assert not np.array_equal(first, augment(same, recipe, seed, step(number)).numpy())


def test_distortions_use_the_last_of_a_seeds_eight_streams() -> None:
    """No other seed, kernel or dropout layer draws from this stream."""
    recipe = PLAIN.with_overrides({"shift_pixels": 3.0})
    key = tf.constant([5 * 8 + 7, 9], tf.int64)
    expected = distort_randomly(noise(), recipe, key).numpy()
    np.testing.assert_array_equal(augment(noise(), recipe, 5, step(9)).numpy(), expected)


def test_amounts_stay_within_the_recipes_maximum() -> None:
    """A dot moves by at most 2 pixels along each axis; 300 draws nearly reach both limits."""
    recipe = PLAIN.with_overrides({"shift_pixels": 2.0})
    dots = np.zeros((300, 28, 28, 1), np.float32)
    dots[:, 14, 14] = 1.0
    moved = augment(tf.constant(dots), recipe, 0, step(0)).numpy()[..., 0]
    rows = (moved.sum(axis=2) * np.arange(28)).sum(axis=1) - 14
    columns = (moved.sum(axis=1) * np.arange(28)).sum(axis=1) - 14
    for shifts in (rows, columns):
        assert -2 <= shifts.min() < -1.9
        assert 1.9 < shifts.max() <= 2
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.2
