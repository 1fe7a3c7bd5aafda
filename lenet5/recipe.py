"""The recipe of a training run: all settings except seed, engine, data and environment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lenet5.errors import InputError

SCHEDULES = ("constant", "linear", "cosine")

# Training by `compile` and `fit`, or by a loop inside the graph with the same layers.
ENGINES = ("keras", "graph")
DEFAULT_ENGINE = "keras"

# Every seed has eight separate random streams: five kernels, two dropout layers, and the
# distortions of the training images.
STREAMS_PER_SEED = 8
DROPOUT_STREAM = 5
AUGMENTATION_STREAM = 7
MAX_SEED = 2**32 // STREAMS_PER_SEED - 1  # Keras draws kernels from 32-bit seeds

_SHARES = (
    *("warmup_fraction", "dropout", "label_smoothing", "average_decay", "scaling"),
    *("adam_beta_1", "adam_beta_2"),
)


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run, and bounds for its accuracy.

    The optimiser is Adam (Kingma and Ba 2015, in the form of the last paragraph of section 2, as in
    Keras).

    Attributes:
        name: short name, the value of `--recipe`.
        batch_size: training images per step; the last batch of an epoch may be smaller.
        epochs: maximum number of epochs; `patience` may end training earlier.
        learning_rate: constant rate, or peak of another schedule.
        schedule: `constant`, `linear` or `cosine`. The last two rise linearly to the peak over the
            first `warmup_fraction` of all steps. They then decay to 0, linearly or by half a cosine
            wave (Loshchilov and Hutter 2017).
        warmup_fraction: share of all steps in [0, 1).
        patience: number of epochs without a lower validation loss that ends training; None: never.
        l2: strength of the L2 penalty, l2 * sum(kernel ** 2), on every kernel except the output's.
        dropout: rate of both dropout layers in [0, 1).
        label_smoothing: share in [0, 1) of each training label, spread evenly over all ten classes
            (Szegedy et al. 2016).
        average_decay: decay in [0, 1) of the exponential moving average of the weights, the model's
            final weights; the optimiser's `ema_momentum`; 0: no average.
        rotation_degrees: maximum rotation of a training image in either direction; drawn anew each
            time.
        shear_degrees: maximum slant.
        scaling: maximum relative change in [0, 1) of width and of height, drawn separately.
        shift_pixels: maximum shift along each axis.
        min_accuracy: lower bound of the accuracy gate, a test accuracy in [0, 1].
        max_accuracy: upper bound of the accuracy gate in [0, 1]; a higher accuracy is implausible.

    Raises:
        InputError: a value is out of range.
    """

    name: str
    batch_size: int
    epochs: int
    learning_rate: float
    schedule: str
    patience: int | None
    min_accuracy: float
    max_accuracy: float
    warmup_fraction: float = 0.0
    l2: float = 1e-3
    dropout: float = 0.5
    label_smoothing: float = 0.0
    average_decay: float = 0.0
    rotation_degrees: float = 0.0
    shear_degrees: float = 0.0
    scaling: float = 0.0
    shift_pixels: float = 0.0
    adam_beta_1: float = 0.9
    adam_beta_2: float = 0.999
    adam_epsilon: float = 1e-7

    def __post_init__(self) -> None:
        whole = _is_whole_number
        number = _is_number
        _require(isinstance(self.name, str) and bool(self.name), "name", self.name, "a name")
        for field in ("batch_size", "epochs"):
            value = getattr(self, field)
            _require(whole(value) and value >= 1, field, value, "a whole number of at least 1")
        _require(
            self.patience is None or (whole(self.patience) and self.patience >= 1),
            "patience",
            self.patience,
            "a whole number of at least 1, or None",
        )
        _require(self.schedule in SCHEDULES, "schedule", self.schedule, " or ".join(SCHEDULES))
        for field in ("learning_rate", "adam_epsilon"):
            value = getattr(self, field)
            _require(number(value) and value > 0, field, value, "a number above 0")
        _require(number(self.l2) and self.l2 >= 0, "l2", self.l2, "a number of at least 0")
        for field in _SHARES:
            value = getattr(self, field)
            _require(number(value) and 0 <= value < 1, field, value, "at least 0 and below 1")
        for field, most in (("rotation_degrees", 180), ("shear_degrees", 60), ("shift_pixels", 28)):
            value = getattr(self, field)
            _require(number(value) and 0 <= value <= most, field, value, f"0 to {most}")
        low, high = self.min_accuracy, self.max_accuracy
        _require(
            number(low) and number(high) and 0 <= low <= high <= 1,
            "min_accuracy and max_accuracy",
            (low, high),
            "in order within 0 to 1",
        )

    def learning_rates(self, steps: int) -> np.ndarray:
        """Returns the learning rate of every step of a run of `steps` steps.

        Args:
            steps: number of steps of the whole run, epochs * steps per epoch.

        Returns:
            float32 array of shape (steps,). Step k (from 0) of w warm-up steps has the rate
            peak * (k + 1) / w. After the warm-up, let r = (steps - k) / (steps - w). Step k has
            peak * r in the linear schedule, and peak * (1 - cos(pi * r)) / 2 in the cosine's.
        """
        if self.schedule == "constant":
            return np.full(steps, self.learning_rate, np.float32)
        warmup = round(self.warmup_fraction * steps)
        step = np.arange(steps)
        rising = (step + 1) / max(warmup, 1)
        falling = (steps - step) / (steps - warmup)
        if self.schedule == "cosine":
            falling = (1 - np.cos(np.pi * falling)) / 2
        return (self.learning_rate * np.where(step < warmup, rising, falling)).astype(np.float32)

    def with_overrides(self, overrides: Mapping[str, Any]) -> Recipe:
        """Returns the recipe with some fields replaced; the schedule adapts to new `epochs`.

        Raises:
            InputError: a name is not a field of a recipe, or its value is out of range.
        """
        known = {field.name for field in dataclasses.fields(self)}
        for name in overrides:
            if name not in known:
                raise InputError(f"a recipe has no field {name!r}")
        return dataclasses.replace(self, **overrides)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Returns the recipe from the output of `dataclasses.asdict`.

        Raises:
            InputError: a field is missing, unknown or out of range.
        """
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        needed = {name for name, default in fields.items() if default is dataclasses.MISSING}
        # An older run's recipe lacks newer fields; their defaults keep its behaviour.
        if not needed <= set(values) <= set(fields):
            wrong = ", ".join(sorted((needed - set(values)) | (set(values) - set(fields))))
            raise InputError(f"missing or unknown recipe field(s): {wrong}")
        return cls(**values)


def check_seed(seed: object) -> None:
    """Raises InputError unless the seed is a whole number from 0 to `MAX_SEED`."""
    if not _is_whole_number(seed) or not 0 <= seed <= MAX_SEED:  # type: ignore[operator]
        raise InputError(f"seed is {seed!r}, expected a whole number from 0 to {MAX_SEED}")


def check_engine(engine: object) -> None:
    """Raises InputError unless the value is the name of an engine."""
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}: choose {' or '.join(ENGINES)}")


def _require(condition: bool, field: str, value: object, expected: str) -> None:
    if not condition:
        raise InputError(f"recipe: {field} is {value!r}, expected {expected}")


def _is_whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
