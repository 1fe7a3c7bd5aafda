"""A convolution and the pooling behind it as one matrix product, which gives the same, sooner.

With 1 and 6 input channels TensorFlow's own convolutions use a small part of a core, and oneDNN's,
which TensorFlow turns on by itself on CPUs with AVX512_VNNI and the like, a larger one. By
`python -m pytest bench -k train_step` on an AMD EPYC with AVX2, oneDNN off, a training step at
batch 32 took 2.5 ms so and 6.7 ms through the layers, at batch 128 8.3 and 25.5 ms (TensorFlow
2.21.0, one thread, median of 3 rounds of 4,800 images).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

_SIDE = 5  # of a kernel
_ROWS = 2  # of a window's outputs: those that are pooled together


def is_fusible(layer: Any, following: Any) -> bool:
    """Whether the two are a convolution and a pooling that `convolve_and_pool` computes."""
    return (
        isinstance(layer, tf.keras.layers.Conv2D)
        and isinstance(following, tf.keras.layers.AveragePooling2D)
        and layer.use_bias
        and _is(layer, kernel_size=(_SIDE, _SIDE), strides=(1, 1), padding="valid")
        and _is(layer, dilation_rate=(1, 1), groups=1, data_format="channels_last")
        and _is(following, pool_size=(2, 2), strides=(2, 2), padding="valid")
    )


def convolve_and_pool(images: Any, layer: Any) -> Any:
    """What a fusible convolution and the pooling behind it give.

    The image is cut into windows that overlap; each becomes a row of a matrix. Times a matrix in
    which the kernel stands as often as it fits, among zeros, a row gives the outputs before
    the activation; the four that are pooled together stand a quarter of the row apart.

    Args:
        images: float32 tensor (n, height, width, channels), height and width even.
        layer: the convolution.

    Returns:
        float32 tensor (n, (height - 4) / 2, (width - 4) / 2, filters).
    """
    _, height, width, channels = images.shape
    filters = layer.kernel.shape[-1]
    # Wider windows multiply by more zeros, narrower ones make smaller products: by measurement.
    columns = 8 if channels == 1 else 4
    outputs = tf.matmul(_windows(images, columns), _matrix(layer.kernel, columns))
    # Before bias and activation: oneDNN's product with both fused into it takes twice as long.
    quarters = tf.reshape(outputs, [-1, 4, columns // 2 * filters])
    quarters = tf.nn.bias_add(quarters, tf.tile(layer.bias, [columns // 2]))
    pooled = tf.reduce_mean(layer.activation(quarters), axis=1)
    return tf.reshape(pooled, [-1, (height - 4) // 2, (width - 4) // 2, filters])


def _windows(images: Any, columns: int) -> Any:
    """Rows of pixels (row, column, channel) of a window of 6 x (`columns` + 4) each."""
    _, height, width, channels = images.shape
    window_rows, window_columns = _ROWS + _SIDE - 1, columns + _SIDE - 1
    pairs = tf.reshape(images, [-1, height // _ROWS, _ROWS * width * channels])
    down = (height - _SIDE + 1) // _ROWS
    across = (width - _SIDE + 1) // columns
    shifted = [tf.slice(pairs, [0, row, 0], [-1, down, -1]) for row in range(window_rows // _ROWS)]
    strips = tf.reshape(tf.concat(shifted, axis=-1), [-1, down, window_rows, width * channels])
    parts = [
        tf.slice(
            strips, [0, 0, 0, place * columns * channels], [-1, -1, -1, window_columns * channels]
        )
        for place in range(across)
    ]
    return tf.reshape(tf.stack(parts, axis=2), [-1, window_rows * window_columns * channels])


def _matrix(kernel: Any, columns: int) -> Any:
    """The matrix (pixels of a window, its outputs) that a product with is the convolution."""
    *_, channels, filters = kernel.shape
    flat = tf.reshape(kernel, [_SIDE * _SIDE * channels, filters])
    with_zeros = tf.concat([flat, tf.zeros([1, filters])], axis=0)
    places = tf.constant(_places(channels, columns))
    return tf.reshape(tf.gather(with_zeros, places), [places.shape[0], -1])


@lru_cache
def _places(channels: int, columns: int) -> np.ndarray:
    """Which row of the flat kernel stands where in the matrix; the row after the last is zeros.

    Returns:
        int32 (pixels of a window, outputs but for the filters); outputs in the order
        (row, column's parity, pair of columns).
    """
    nothing = _SIDE * _SIDE * channels
    shape = (_ROWS + _SIDE - 1, columns + _SIDE - 1, channels, _ROWS, 2, columns // 2)
    places = np.full(shape, nothing, np.int32)
    for row, column in np.ndindex(_ROWS, columns):
        pair, parity = divmod(column, 2)
        kernel = np.arange(nothing).reshape(_SIDE, _SIDE, channels)
        places[row : row + _SIDE, column : column + _SIDE, :, row, parity, pair] = kernel
    return places.reshape(np.prod(shape[:3]), -1)


def _is(layer: Any, **expected: Any) -> bool:
    return all(getattr(layer, name) == value for name, value in expected.items())
