"""LeNet-5 in plain NumPy float64: the truth for TensorFlow's arithmetic.

Weights are a list in Keras's order: kernel and bias of two convolutions (5, 5, in, out) and of
three dense layers (in, out).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Weights = list[np.ndarray]
Rounding = Callable[[np.ndarray], np.ndarray]

L2_KERNELS = (0, 2, 4, 6)  # every kernel but the output layer's
_TF32_BITS = 10  # explicit bits of a TF32 mantissa; float32 has 23, float16 has 10


def exactly(factors: np.ndarray) -> np.ndarray:
    """Returns factors of a product unchanged."""
    return factors


def to_tf32(factors: np.ndarray) -> np.ndarray:
    """Rounds factors of a product to TF32's mantissa, to nearest, ties to even: float64.

    Of a product in TF32 only the factors are rounded; the sum stays in float32. Its exponent is
    float32's, whose range no factor here leaves.
    """
    mantissas, exponents = np.frexp(factors)  # of 0.5 to 1: one implicit bit and the explicit ones
    scale = 2.0 ** (_TF32_BITS + 1)
    return np.asarray(np.ldexp(np.rint(mantissas * scale) / scale, exponents))


def convolve(images: np.ndarray, kernel: np.ndarray, rounded: Rounding = exactly) -> np.ndarray:
    """Valid cross-correlation: (n, h, w, in) with (k, k, in, out) to (n, h-k+1, w-k+1, out).

    Args:
        images: images or maps.
        kernel: kernel of a convolution.
        rounded: rounding of both factors.
    """
    windows = _windows(rounded(images), len(kernel))
    return np.asarray(np.einsum("nijcab,abco->nijo", windows, rounded(kernel), optimize=True))


def average_pool(maps: np.ndarray) -> np.ndarray:
    """Mean of each 2x2 square: (n, h, w, c) to (n, h/2, w/2, c)."""
    n, height, width, channels = maps.shape
    squares = maps.reshape(n, height // 2, 2, width // 2, 2, channels)
    return np.asarray(squares.mean(axis=(2, 4)))


@dataclass
class Activations:
    """Intermediate results of the forward pass for the backward pass."""

    images: np.ndarray
    conv1: np.ndarray
    pool1: np.ndarray
    conv2: np.ndarray
    flat: np.ndarray
    dense1: np.ndarray
    dropped1: np.ndarray
    dense2: np.ndarray
    dropped2: np.ndarray
    probabilities: np.ndarray


def forward(
    weights: Weights,
    images: np.ndarray,
    mask1: np.ndarray | float = 1,
    mask2: np.ndarray | float = 1,
    rounded: Rounding = exactly,
) -> Activations:
    """Returns all activations; masks are 0 or 1 / (1 - rate) per dense output.

    Args:
        weights: weights in Keras's order.
        images: (n, 28, 28, 1).
        mask1: mask of the first dropout.
        mask2: mask of the second dropout.
        rounded: rounding of the factors of every product and convolution.
    """
    w = [np.asarray(weight, np.float64) for weight in weights]
    images = np.asarray(images, np.float64)
    conv1 = np.tanh(convolve(images, w[0], rounded) + w[1])
    pool1 = average_pool(conv1)
    conv2 = np.tanh(convolve(pool1, w[2], rounded) + w[3])
    flat = average_pool(conv2).reshape(len(images), -1)
    dense1 = np.tanh(rounded(flat) @ rounded(w[4]) + w[5])
    dropped1 = dense1 * mask1
    dense2 = np.tanh(rounded(dropped1) @ rounded(w[6]) + w[7])
    dropped2 = dense2 * mask2
    logits = rounded(dropped2) @ rounded(w[8]) + w[9]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    return Activations(
        images, conv1, pool1, conv2, flat, dense1, dropped1, dense2, dropped2, probabilities
    )


def loss(weights: Weights, probabilities: np.ndarray, labels: np.ndarray, l2: float) -> float:
    """Mean cross-entropy plus l2 * sum(kernel ** 2) of the penalised kernels."""
    entropy = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    return float(entropy + l2 * sum((np.float64(weights[k]) ** 2).sum() for k in L2_KERNELS))


def gradients(
    weights: Weights,
    act: Activations,
    labels: np.ndarray,
    l2: float,
    mask1: np.ndarray | float = 1,
    mask2: np.ndarray | float = 1,
    rounded: Rounding = exactly,
) -> Weights:
    """Returns the derivative of `loss` with respect to each weight; arguments as of `forward`."""
    w = [np.asarray(weight, np.float64) for weight in weights]
    n = len(labels)
    d_logits = act.probabilities.copy()
    d_logits[np.arange(n), labels] -= 1
    d_logits /= n
    d_dense2 = (rounded(d_logits) @ rounded(w[8]).T) * mask2 * (1 - act.dense2**2)
    d_dense1 = (rounded(d_dense2) @ rounded(w[6]).T) * mask1 * (1 - act.dense1**2)
    d_pool2 = (rounded(d_dense1) @ rounded(w[4]).T).reshape(n, 4, 4, 16)
    d_conv2 = _unpool(d_pool2) * (1 - act.conv2**2)
    d_pool1 = _convolve_input_gradient(d_conv2, w[2], rounded)
    d_conv1 = _unpool(d_pool1) * (1 - act.conv1**2)
    result = [
        *_convolution_gradients(act.images, d_conv1, rounded),
        *_convolution_gradients(act.pool1, d_conv2, rounded),
        *(rounded(act.flat).T @ rounded(d_dense1), d_dense1.sum(axis=0)),
        *(rounded(act.dropped1).T @ rounded(d_dense2), d_dense2.sum(axis=0)),
        *(rounded(act.dropped2).T @ rounded(d_logits), d_logits.sum(axis=0)),
    ]
    for kernel in L2_KERNELS:
        result[kernel] = result[kernel] + 2 * l2 * w[kernel]
    return result


@dataclass
class Adam:
    """Adam (Kingma and Ba 2015), in the order of operations at the end of their section 2."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def start(self, weights: Weights) -> tuple[Weights, Weights]:
        """Returns both moments, zero."""
        zeros = [np.zeros(np.shape(weight)) for weight in weights]
        return zeros, [zero.copy() for zero in zeros]

    def step(
        self,
        weights: Weights,
        grads: Weights,
        moments: tuple[Weights, Weights],
        t: int,
        rate: float,
    ) -> Weights:
        """Returns the weights after step t (from 1) and updates the moments in place."""
        scale = rate * np.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        changed = []
        for index, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
            mean, square = moments[0][index], moments[1][index]
            mean[...] += (1 - self.beta_1) * (grad - mean)
            square[...] += (1 - self.beta_2) * (grad**2 - square)
            changed.append(weight - scale * mean / (np.sqrt(square) + self.epsilon))
        return changed


def _windows(images: np.ndarray, size: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))


def _unpool(d_pooled: np.ndarray) -> np.ndarray:
    return np.repeat(np.repeat(d_pooled, 2, axis=1), 2, axis=2) / 4


def _convolution_gradients(inputs: np.ndarray, d_outputs: np.ndarray, rounded: Rounding) -> Weights:
    factors = _windows(rounded(inputs), 5), rounded(d_outputs)
    kernel = np.einsum("nijcab,nijo->abco", *factors, optimize=True)
    return [kernel, d_outputs.sum(axis=(0, 1, 2))]


def _convolve_input_gradient(
    d_outputs: np.ndarray, kernel: np.ndarray, rounded: Rounding
) -> np.ndarray:
    padded = np.pad(d_outputs, ((0, 0), (4, 4), (4, 4), (0, 0)))
    return convolve(padded, kernel[::-1, ::-1].swapaxes(2, 3), rounded)
