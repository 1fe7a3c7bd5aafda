"""Comparison of TensorFlow's arithmetic with NumPy float64."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bench.records.numerics import BATCH_SIZE, GRADIENTS, QUANTITIES, STEPS, Problem, Quantities
from bench.verdicts import numpy_lenet5
from lenet5.recipes import find_recipe

# At most ten times the largest deviations of TensorFlow 2.12 to 2.21 (bench/RESULTS.md), and a
# tenth of the effect of rounding the weights to float16, the smallest of the mutations.
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


def solve(problem: Problem) -> dict[str, list[float]]:
    """Returns the true values of a problem: flat lists by quantity."""
    recipe = find_recipe("original")
    weights = [weight.astype(np.float64) for weight in problem.weights]
    adam = numpy_lenet5.Adam(recipe.adam_beta_1, recipe.adam_beta_2, recipe.adam_epsilon)
    moments = adam.start(weights)
    found: dict[str, np.ndarray] = {}
    losses = []
    for number, batch in enumerate(problem.order.reshape(STEPS, BATCH_SIZE), start=1):
        labels = problem.labels[batch]
        activations = numpy_lenet5.forward(weights, problem.images[batch])
        gradients = numpy_lenet5.gradients(weights, activations, labels, recipe.l2)
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
