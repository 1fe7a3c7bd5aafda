"""The numerics problem: stored weights, images, batches, computed quantities and their mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lenet5.data import Subset, normalise
from lenet5.recipes import find_recipe

STEPS = 50
BATCH_SIZE = 32
DETERMINISTIC_OPS = "TF_DETERMINISTIC_OPS"
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

Quantities = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Problem:
    """Inputs of the numerics problem: stored weights, images, and the order of fifty batches.

    Attributes:
        weights: ten float32 arrays in Keras's order; kernels follow Glorot and Bengio (2010).
        images: float32 (n, 28, 28, 1) in [0, 1].
        labels: int32 (n,).
        order: int32 indices of all batches in sequence.
        rates: float32, learning rate of each step.
    """

    weights: tuple[np.ndarray, ...]
    images: np.ndarray
    labels: np.ndarray
    order: np.ndarray
    rates: np.ndarray

    def save(self, folder: Path) -> None:
        """Writes `numerics.npz` for `bench.worker.numerics`."""
        arrays: dict[str, Any] = {
            f"weight_{place}": weight for place, weight in enumerate(self.weights)
        }
        for name in ("images", "labels", "order", "rates"):
            arrays[name] = getattr(self, name)
        np.savez(folder / "numerics.npz", **arrays)


def make_problem(training: Subset) -> Problem:
    """Creates the problem from the first training images, equal for every environment."""
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


def by_name(computed: Mapping[str, Any]) -> Quantities:
    """Returns the output of `bench.worker.numerics` with named gradients and without the bits."""
    rest = {name: values for name, values in computed.items() if name in QUANTITIES}
    return {**rest, **dict(zip(GRADIENTS, computed["gradients"], strict=True))}


@dataclass(frozen=True)
class Mode:
    """The device of a process, and the arithmetic that it was asked for or that is in force.

    Attributes:
        device: `cpu` or `gpu:N`.
        tf32: whether a GPU rounds factors of products to TF32, which is TensorFlow's default.
        deterministic_ops: whether a GPU computes the same bits in every run; CPUs do anyway.
    """

    device: str = "cpu"
    tf32: bool = False
    deterministic_ops: bool = False

    def __str__(self) -> str:
        """`cpu`, or `gpu:0, TF32 off, deterministic`."""
        if self.device == "cpu":
            return self.device
        return f"{self.device}, {self.arithmetic}"

    @property
    def arithmetic(self) -> str:
        """`TF32 off, deterministic`."""
        state = f"TF32 {'on' if self.tf32 else 'off'}"
        return f"{state}, deterministic" if self.deterministic_ops else state

    def shown(self, asked: Mode) -> str:
        """Returns the mode in force, with the one that was asked for if it differs."""
        return f"{self}" if self == asked else f"{self} (asked for: {asked.arithmetic})"


def modes_of(device: str, settings: Mapping[str, str]) -> tuple[Mode, ...]:
    """Returns the modes to compute an environment in, each in a process of its own.

    Args:
        device: `cpu` or `gpu:N`.
        settings: variables of the environment; `TF_DETERMINISTIC_OPS` among them holds for all.
    """
    if device == "cpu":
        return (Mode(),)
    default = default_mode(device, settings)
    of_settings = (default, replace(default, tf32=False))
    if DETERMINISTIC_OPS in settings:
        return of_settings
    return *of_settings, Mode(device, deterministic_ops=True)


def default_mode(device: str, settings: Mapping[str, str]) -> Mode:
    """Returns TensorFlow's default mode on a device with the variables of an environment."""
    if device == "cpu":
        return Mode()
    is_on = settings.get(DETERMINISTIC_OPS, "").lower() in ("1", "true")
    return Mode(device, tf32=True, deterministic_ops=is_on)


@dataclass(frozen=True)
class Computed:
    """The numerics problem as computed by a worker.

    Attributes:
        asked: mode that was asked for.
        mode: mode in force.
        answer: output of `bench.worker.numerics.compute`, with the bits of trained weights.
    """

    asked: Mode
    mode: Mode
    answer: Mapping[str, Any]

    @property
    def quantities(self) -> Quantities:
        """Quantities by name, without the bits."""
        return by_name(self.answer)
