"""TensorFlow's arithmetic held against NumPy with float64: a table of deviations by version."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import numpy_lenet5
from bench.process import (
    NUMERICS_FILES,
    Interpreter,
    Worker,
    WorkerError,
    copy_code,
    private_folder,
)
from lenet5.data import Subset, normalise
from lenet5.recipes import find_recipe
from lenet5.run_directory import writing

STEPS = 50
BATCH_SIZE = 32
GRADIENTS = tuple(
    f"gradient {layer} {part}"
    for layer in ("conv1", "conv2", "dense1", "dense2", "dense3")
    for part in ("kernel", "bias")
)
QUANTITIES = ("logits", "loss", *GRADIENTS, "losses")
_SHAPES = (
    *((5, 5, 1, 6), (6,), (5, 5, 6, 16), (16,), (256, 120), (120,)),
    *((120, 84), (84,), (84, 10), (10,)),
)

# At most ten times the largest deviations seen with TensorFlow 2.12 to 2.21 (bench/RESULTS.md), and
# a tenth of what rounding the weights to float16 does, the smallest of the mutations.
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
_LIMIT_SECONDS = 300.0

Quantities = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Problem:
    """What is computed: stored weights, images, and the order of fifty batches.

    Attributes:
        weights: ten float32 arrays in Keras's order, kernels drawn as Glorot and Bengio (2010).
        images: float32 (n, 28, 28, 1) in [0, 1].
        labels: int32 (n,).
        order: int32 indices, batch after batch.
        rates: float32, the learning rate of each step.
    """

    weights: tuple[np.ndarray, ...]
    images: np.ndarray
    labels: np.ndarray
    order: np.ndarray
    rates: np.ndarray

    def save(self, folder: Path) -> None:
        """Writes `numerics.npz` for `bench.arithmetic`."""
        arrays: dict[str, Any] = {
            f"weight_{place}": weight for place, weight in enumerate(self.weights)
        }
        for name in ("images", "labels", "order", "rates"):
            arrays[name] = getattr(self, name)
        np.savez(folder / "numerics.npz", **arrays)


def make_problem(training: Subset) -> Problem:
    """The same problem for every environment, of the first training images."""
    random = np.random.RandomState(0)
    weights = []
    for shape in _SHAPES:
        area = math.prod(shape[:-2])
        limit = math.sqrt(6 / (area * sum(shape[-2:]))) if len(shape) > 1 else 0.0
        weights.append(random.uniform(-limit, limit, shape).astype(np.float32))
    count = STEPS * BATCH_SIZE
    return Problem(
        tuple(weights),
        normalise(training.images[:count]),
        training.labels[:count].astype(np.int32),
        random.permutation(count).astype(np.int32),
        np.full(STEPS, find_recipe("original").learning_rate, np.float32),
    )


def solve(problem: Problem) -> dict[str, list[float]]:
    """The truth: flat lists by quantity."""
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


def compute_in(
    interpreters: Sequence[Interpreter], training: Subset, threads: int = 1
) -> list[Mapping[str, Any] | str]:
    """Computes the problem in each environment, one after the other.

    Returns:
        What `bench.arithmetic.compute` gives in each, or in one line why there is nothing.

    Raises:
        InputError: there is no room for what is computed.
    """
    found: list[Mapping[str, Any] | str] = []
    with private_folder() as folder:
        with writing(folder):
            copy_code(folder, NUMERICS_FILES)
            make_problem(training).save(folder)
        for interpreter in interpreters:
            try:
                with Worker(interpreter, folder) as worker:
                    worker.ask(_LIMIT_SECONDS, "start", cores=[], threads=threads)
                    found.append(worker.ask(_LIMIT_SECONDS, "numerics")["quantities"])
            except WorkerError as error:
                found.append(error.reason)
    return found


def by_name(computed: Mapping[str, Any]) -> Quantities:
    """What `bench.arithmetic` gives, with the gradients under their names, without the bits."""
    rest = {name: values for name, values in computed.items() if name in QUANTITIES}
    return {**rest, **dict(zip(GRADIENTS, computed["gradients"], strict=True))}


def table(names: Sequence[str], found: Sequence[Quantities | str], truth: Quantities) -> str:
    """Markdown: an environment a row, the largest relative deviation of each quantity a column.

    Columns are logits, loss, the gradient of each layer's kernel and bias, and 50 steps' losses.
    The last column says whether an environment's figures are those of the row above, to the bit.
    """
    columns = [name.removeprefix("gradient ") for name in QUANTITIES]
    lines = [
        f"| environment | {' | '.join(columns)} | numerics |",
        f"|---|{'---|' * len(columns)}---|",
    ]
    before: Quantities | None = None
    for name, quantities in zip(names, found, strict=True):
        if isinstance(quantities, str):
            lines.append(f"| {name} | {quantities} |{' |' * len(columns)}")
            continue
        off = deviations(quantities, truth)
        cells = [off[quantity] for quantity in QUANTITIES]
        wrong = beyond(off, TOLERANCES)
        changed = "" if before is None else "the same" if quantities == before else "changed"
        text = "**beyond the tolerance**" if wrong else changed
        lines.append(f"| {name} | {' | '.join(f'{cell:.1e}' for cell in cells)} | {text} |")
        before = quantities
    return "\n".join(lines)


def deviations(found: Quantities, truth: Quantities) -> dict[str, float]:
    """Largest deviation of each quantity, relative to the largest true magnitude in it.

    A quantity that is missing, of another size or not finite deviates by infinity.
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
    """Which quantities deviate by more than their tolerance, in words."""
    return [
        f"{name} deviates by {found[name]:.2g} of its largest, tolerance {tolerances[name]:.2g}"
        for name in QUANTITIES
        if not found[name] <= tolerances[name]
    ]
