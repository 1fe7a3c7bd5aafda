"""Random distortions of training images, inside the graph."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from lenet5.recipe import AUGMENTATION_STREAM, STREAMS_PER_SEED, Recipe

_CENTRE = 13.5  # of 28 pixels, counted from 0


def augment(images: Any, recipe: Recipe, seed: int, step: Any) -> Any:
    """Distorts each image by amounts of its own, which depend on nothing but seed and step.

    Args:
        images: float32 tensor (n, 28, 28, 1).
        recipe: the largest amounts.
        seed: of the run.
        step: int64 scalar tensor, the step of the run from 0.

    Returns:
        The distorted images in the same shape; the very same tensor if the recipe distorts nothing.
    """
    if not distorts(recipe):
        return images
    stream = tf.constant(seed * STREAMS_PER_SEED + AUGMENTATION_STREAM, tf.int64)
    return distort_randomly(images, recipe, tf.stack([stream, step]))


def distorts(recipe: Recipe) -> bool:
    """Whether the recipe distorts its training images at all."""
    return any(_largest(recipe))


def distort_randomly(images: Any, recipe: Recipe, key: Any) -> Any:
    """Rotates, scales, shears and shifts each image by amounts of its own, as the recipe allows.

    Args:
        images: float32 tensor (n, 28, 28, 1).
        recipe: the largest amounts; each is drawn uniformly between plus and minus that.
        key: int64 tensor (2,), of the draw.

    Returns:
        The distorted images in the same shape.
    """
    largest = _largest(recipe)
    shape = tf.stack([tf.shape(images)[0], len(largest)])
    drawn = tf.random.stateless_uniform(shape, seed=key, minval=-1.0, maxval=1.0, alg="philox")
    rotation, shear, scale_x, scale_y, shift_x, shift_y = tf.unstack(drawn * largest, axis=1)
    return distort(images, rotation, shear, 1 + scale_x, 1 + scale_y, shift_x, shift_y)


def _largest(recipe: Recipe) -> tuple[float, ...]:
    """Rotation and shear in radians, scaling of width and height, shift along x and y in pixels."""
    return (
        math.radians(recipe.rotation_degrees),
        math.radians(recipe.shear_degrees),
        *(recipe.scaling, recipe.scaling),
        *(recipe.shift_pixels, recipe.shift_pixels),
    )


def distort(
    images: Any, rotation: Any, shear: Any, scale_x: Any, scale_y: Any, shift_x: Any, shift_y: Any
) -> Any:
    """Affine transformations about the centre, with bilinear interpolation and black outside.

    A pixel at (x, y) from the centre, y downwards, goes to R S (scale_x x, scale_y y) plus the
    shift, where S slants by `shear` along x and R rotates clockwise as seen on the screen.

    Args:
        images: float32 tensor (n, 28, 28, 1).
        rotation: radians, float32 tensor (n,), as all that follow.
        shear: radians.
        scale_x: above 1 makes wider.
        scale_y: above 1 makes higher.
        shift_x: pixels to the right.
        shift_y: pixels downwards.
    """
    cosine, sine, slant = tf.cos(rotation), tf.sin(rotation), tf.tan(shear)
    # The operation asks where each output pixel comes from: the inverse, row by row.
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
