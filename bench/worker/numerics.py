"""The numerics problem in a worker, without dropout, for comparison with NumPy.

It computes logits, loss and gradients of one batch, and fifty steps of the engine `graph`, all
through Keras's layers.

It also hashes the bits of the weights after training with dropout and distorted images, for
comparison with another process.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lenet5.devices import ops_are_deterministic, tf32_is_in_force
from lenet5.model import build_for
from lenet5.recipes import find_recipe
from lenet5.runtime import trainable_tensors
from lenet5.steps import build_step_loop, forward, total_loss

_SEED = 0


def compute(folder: Path) -> dict[str, Any]:
    """Computes logits, loss and gradients of the first batch, and the loss of every step.

    Args:
        folder: folder of `numerics.npz`, written by `bench.records.numerics.Problem`.

    Returns:
        Flat lists `logits`, `loss` and `losses`; `gradients`, one flat list per weight array; and
        `bits`, the SHA-256 of the weights after the same steps with all random operations.
    """
    with np.load(folder / "numerics.npz") as file:
        problem = dict(file)
    weights = [problem[f"weight_{place}"] for place in range(10)]
    images, labels, order = problem["images"], problem["labels"], problem["order"]
    rates = problem["rates"]
    batch_size = len(order) // len(rates)
    recipe = find_recipe("original").with_overrides({"dropout": 0.0, "batch_size": batch_size})
    model = build_for(recipe, _SEED)
    model.set_weights(weights)

    @tf.function
    def first_batch(batch: Any, batch_labels: Any) -> tuple[Any, Any, Any]:
        with tf.GradientTape() as tape:
            probabilities = forward(model, batch, _SEED, tf.constant(0, tf.int64))
            loss = total_loss(model, batch_labels, probabilities)
        return probabilities, loss, tape.gradient(loss, trainable_tensors(model))

    first = order[:batch_size]
    probabilities, loss, gradients = first_batch(images[first], labels[first])
    # Logits from log-probabilities: softmax only subtracts one number from all ten.
    logarithms = np.log(probabilities.numpy().astype(np.float64))
    run_steps = build_step_loop(model, recipe, images, labels, _SEED)
    losses, _ = run_steps(order, rates, 0, len(rates))
    found = {
        "logits": logarithms - logarithms.mean(axis=1, keepdims=True),
        "loss": loss.numpy(),
        "losses": losses,
    }
    return {
        **{name: _flat(value) for name, value in found.items()},
        "gradients": [_flat(gradient.numpy()) for gradient in gradients],
        "bits": _trained_bits(images, labels, order, rates),
    }


def mode_in_force() -> dict[str, bool]:
    """Returns `tf32` and `deterministic_ops` of a GPU, by its results; empty on a CPU."""
    if not tf.config.get_visible_devices("GPU"):
        return {}
    return {"tf32": tf32_is_in_force(), "deterministic_ops": ops_are_deterministic()}


def _trained_bits(images: Any, labels: Any, order: Any, rates: Any) -> str:
    changes = {"batch_size": len(order) // len(rates), "rotation_degrees": 10.0, "scaling": 0.1}
    recipe = find_recipe("original").with_overrides(changes)
    model = build_for(recipe, _SEED)
    build_step_loop(model, recipe, images, labels, _SEED)(order, rates, 0, len(rates))
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def _flat(values: Any) -> list[float]:
    flat: list[float] = np.asarray(values, np.float64).ravel().tolist()
    return flat
