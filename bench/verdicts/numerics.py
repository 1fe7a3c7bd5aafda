"""Comparison of TensorFlow's arithmetic with NumPy float64.

Tolerances belong to a mode: a device, TF32 on or off, deterministic operations or not. Each is at
most ten times the largest deviation seen, relative to the largest true value of its quantity:

| quantity | CPU, 20 environments | GPU, TF32 off | GPU, TF32 on | emulated TF32 |
|---|---|---|---|---|
| logits | 7.7e-7 | 4.5e-7 | 9.4e-4 | 7.9e-4 |
| loss | 1.6e-7 | within the CPU's | not recorded | 4.7e-6 |
| gradients of kernels | 5.2e-7 to 2.6e-6 | 3e-7 to 6e-7 | 5e-4 to 9e-4 | 4.9e-4 to 8.1e-4 |
| gradients of biases | 2.9e-7 to 9.2e-6 | within the CPU's | not recorded | 1.9e-4 to 7.5e-4 |
| losses of 50 steps | 2.8e-7 | within the CPU's | not recorded | 4.2e-5 |

With `TF_DETERMINISTIC_OPS=1` and TF32 off, the gradient of the first convolution's kernel deviates
by 1.4e-4, all else as without.

Sources: CPU, TensorFlow 2.12 to 2.21 (bench/results/numerics.md). GPU: one NVIDIA H200, TensorFlow
2.21.0, Keras 3.15.1, CUDA 12.5, cuDNN 9.3, Python 3.12, n = 1. Emulation: `numpy_lenet5.to_tf32`
rounds both factors of every product and convolution to 10 bits, to nearest, and sums in float64.
It predicts both of the recorded figures within a factor of 1.2; rounding toward zero predicts
3.4e-3 for the logits. The tolerances of quantities without a record follow from the prediction.

TF32 has the 10 bits of float16. Its tolerances therefore cannot see weights rounded to float16, or
another error of that size: only TF32 off shows those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.records.numerics import (
    BATCH_SIZE,
    GRADIENTS,
    QUANTITIES,
    STEPS,
    Computed,
    Mode,
    Problem,
    Quantities,
)
from bench.verdicts import numpy_lenet5
from lenet5.recipes import find_recipe

# Also a tenth of the effect of rounding the weights to float16, the smallest of the mutations.
TOLERANCES = {
    "logits": 5e-6,
    "loss": 3e-7,
    "gradient conv1 kernel": 2e-5,
    "gradient conv1 bias": 3e-5,
    "gradient conv2 kernel": 1e-5,
    "gradient conv2 bias": 2e-5,
    "gradient dense1 kernel": 3e-6,
    "gradient dense1 bias": 2e-6,
    "gradient dense2 kernel": 3e-6,
    "gradient dense2 bias": 2e-6,
    "gradient dense3 kernel": 2e-6,
    "gradient dense3 bias": 2e-6,
    "losses": 2e-6,
}
"""On a CPU, and on a GPU with TF32 off."""

DETERMINISTIC_TOLERANCES = {**TOLERANCES, "gradient conv1 kernel": 1e-3}
"""On a GPU with TF32 off and deterministic operations."""

TF32_TOLERANCES = {
    "logits": 5e-3,
    "loss": 3e-5,
    # The record does not say which layer had which deviation: ten times the smallest.
    **{name: 5e-3 for name in GRADIENTS if name.endswith("kernel")},
    "gradient conv1 bias": 5e-3,
    "gradient conv2 bias": 4e-3,
    "gradient dense1 bias": 2e-3,
    "gradient dense2 bias": 3e-3,
    "gradient dense3 bias": 1e-3,
    "losses": 3e-4,
}
"""On a GPU with TF32 on, deterministic operations or not."""


def tolerances(mode: Mode) -> Mapping[str, float]:
    """Returns the tolerances of the mode in force, by quantity."""
    if mode.tf32:
        return TF32_TOLERANCES
    is_deterministic_gpu = mode.device != "cpu" and mode.deterministic_ops
    return DETERMINISTIC_TOLERANCES if is_deterministic_gpu else TOLERANCES


def solve(
    problem: Problem, rounded: numpy_lenet5.Rounding = numpy_lenet5.exactly
) -> dict[str, list[float]]:
    """Returns the true values of a problem: flat lists by quantity.

    Args:
        problem: the problem.
        rounded: rounding of the factors of products, to emulate a device.
    """
    recipe = find_recipe("original")
    weights = [weight.astype(np.float64) for weight in problem.weights]
    adam = numpy_lenet5.Adam(recipe.adam_beta_1, recipe.adam_beta_2, recipe.adam_epsilon)
    moments = adam.start(weights)
    found: dict[str, np.ndarray] = {}
    losses = []
    for number, batch in enumerate(problem.order.reshape(STEPS, BATCH_SIZE), start=1):
        labels = problem.labels[batch]
        activations = numpy_lenet5.forward(weights, problem.images[batch], rounded=rounded)
        gradients = numpy_lenet5.gradients(weights, activations, labels, recipe.l2, rounded=rounded)
        losses.append(numpy_lenet5.loss(weights, activations.probabilities, labels, recipe.l2))
        if number == 1:
            logarithms = np.log(activations.probabilities)
            found["logits"] = logarithms - logarithms.mean(axis=1, keepdims=True)
            found["loss"] = np.array(losses)
            found.update(zip(GRADIENTS, gradients, strict=True))
        rate = float(problem.rates[number - 1])
        weights = adam.step(weights, gradients, moments, number, rate)
    found["losses"] = np.array(losses)
    return {name: np.asarray(value).ravel().tolist() for name, value in found.items()}


def deviations(found: Quantities, truth: Quantities) -> dict[str, float]:
    """Returns each quantity's largest deviation, relative to its largest true magnitude.

    The deviation is infinite if a quantity is missing, of another size or not finite.
    """
    result = {}
    for name in QUANTITIES:
        ours, right = np.asarray(found.get(name, [])), np.asarray(truth[name])
        if ours.shape != right.shape or not np.isfinite(ours).all():
            result[name] = math.inf
        else:
            result[name] = float(np.abs(ours - right).max() / np.abs(right).max())
    return result


def beyond(found: Mapping[str, float], tolerances: Mapping[str, float]) -> list[str]:
    """Returns a sentence for each quantity that deviates by more than its tolerance."""
    return [
        f"{name} deviates by {found[name]:.2g} of its largest, tolerance {tolerances[name]:.2g}"
        for name in QUANTITIES
        if not found[name] <= tolerances[name]
    ]


@dataclass(frozen=True)
class Held:
    """Findings about a computed problem or its mode.

    Attributes:
        wrong: a sentence for each reason of a FAIL; none: PASS.
        notes: sentences that fail nothing.
    """

    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def hold(computed: Computed, truth: Quantities) -> Held:
    """Holds a computed problem against the truth, by the tolerances of the mode in force."""
    of_mode = hold_mode(computed.asked, computed.mode)
    far = beyond(deviations(computed.quantities, truth), tolerances(computed.mode))
    return Held((*of_mode.wrong, *far), of_mode.notes)


def hold_mode(asked: Mode, mode: Mode) -> Held:
    """Holds the mode in force against the one that was asked for.

    TF32 is a permission, so a device without it is no fault; all other differences are.
    """
    wrong, notes = [], []
    if asked.tf32 and not mode.tf32:
        notes.append(
            "TF32 is allowed, but not in force (a GPU before Ampere, or NVIDIA_TF32_OVERRIDE=0): "
            "judged as TF32 off"
        )
    if mode.tf32 and not asked.tf32:
        wrong.append("TF32 is switched off, but in force")
    if asked.deterministic_ops and not mode.deterministic_ops:
        wrong.append("TF_DETERMINISTIC_OPS=1 is set, but operations are not deterministic")
    if mode.deterministic_ops and not asked.deterministic_ops:
        wrong.append("operations are deterministic, but nothing has asked for it")
    return Held(tuple(wrong), tuple(notes))
