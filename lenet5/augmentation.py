"""Random distortions of training images, inside the graph."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from lenet5.recipe import AUGMENTATION_STREAM, STREAMS_PER_SEED, Recipe

_CENTRE = 13.5  # centre of 28 pixels, counted from 0


def augment(images: Any, recipe: Recipe, seed: int, step: Any) -> Any:
    """Distorts each image by its own random amounts, keyed by seed and step alone.

    Args:
        images: float32 tensor (n, 28, 28, 1).
        recipe: gives the maximum amounts.
        seed: seed of the run.
        step: int64 scalar tensor, step of the run from 0.

    Returns:
        Distorted images in the same shape; the input tensor itself without distortions in the
        recipe.
    """
    if not distorts(recipe):
        return images
    stream = tf.constant(seed * STREAMS_PER_SEED + AUGMENTATION_STREAM, tf.int64)
    return distort_randomly(images, recipe, tf.stack([stream, step]))


def distorts(recipe: Recipe) -> bool:
    """Whether the recipe distorts its training images."""
    return any(_largest(recipe))


def distort_randomly(images: Any, recipe: Recipe, key: Any) -> Any:
    """Rotates, scales, shears and shifts each image by its own random amounts.

    Args:
        images: float32 tensor (n, 28, 28, 1).
        recipe: gives the maximum amounts; each amount is uniform between plus and minus its
            maximum.
        key: int64 tensor (2,), key of the draw.

    Returns:
        Distorted images in the same shape.
    """
    largest = _largest(recipe)
    shape = tf.stack([tf.shape(images)[0], len(largest)])
    drawn = tf.random.stateless_uniform(shape, seed=key, minval=-1.0, maxval=1.0, alg="philox")
    rotation, shear, scale_x, scale_y, shift_x, shift_y = tf.unstack(drawn * largest, axis=1)
    return distort(images, rotation, shear, 1 + scale_x, 1 + scale_y, shift_x, shift_y)


def _largest(recipe: Recipe) -> tuple[float, ...]:
    """Maximum rotation and shear (radians), scaling in x and y, shift in x and y (pixels)."""
    return (
        math.radians(recipe.rotation_degrees),
        math.radians(recipe.shear_degrees),
        *(recipe.scaling, recipe.scaling),
        *(recipe.shift_pixels, recipe.shift_pixels),
    )


def distort(
    images: Any, rotation: Any, shear: Any, scale_x: Any, scale_y: Any, shift_x: Any, shift_y: Any
) -> Any:
    """Applies affine transformations about the centre; bilinear interpolation, black outside.

    A pixel at (x, y) from the centre, y downwards, moves to R S (scale_x x, scale_y y) plus the
    shift. S shears by `shear` along x, and R rotates clockwise on the screen.

    Args:
        images: float32 tensor (n, 28, 28, 1).
        rotation: radians, float32 tensor (n,), like all following amounts.
        shear: radians.
        scale_x: above 1 stretches horizontally.
        scale_y: above 1 stretches vertically.
        shift_x: pixels to the right.
        shift_y: pixels downwards.
    """
    cosine, sine, slant = tf.cos(rotation), tf.sin(rotation), tf.tan(shear)
    # The operation maps output pixels to source pixels: the inverse, row by row.
    xx, xy = (cosine + slant * sine) / scale_x, (sine - slant * cosine) / scale_x
    yx, yy = -sine / scale_y, cosine / scale_y
    from_x = -(shift_x + _CENTRE)
    from_y = -(shift_y + _CENTRE)
    none = tf.zeros_like(xx)
    transforms = tf.stack(
        [
            *(xx, xy, xx * from_x + xy * from_y + _CENTRE),
            *(yx, yy, yx * from_x + yy * from_y + _CENTRE),
            *(none, none),
        ],
        axis=1,
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=tf.constant([28, 28]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
