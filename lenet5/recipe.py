"""What a training run is: everything that determines it but the seed, the data and TensorFlow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lenet5.errors import InputError

SCHEDULES = ("constant", "linear", "cosine")

# What trains a recipe: `compile` and `fit`, or a loop inside the graph through the same layers.
ENGINES = ("keras", "graph")
DEFAULT_ENGINE = "keras"

# Every seed has eight streams of random numbers of its own: five kernels, two dropout layers, and
# the distortions of the training images.
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
    """How a model is trained, and between which accuracies its result is believed.

    The optimiser is Adam (Kingma and Ba 2015, in the form of its section 2's last paragraph, as in
    Keras). Attributes that need words:

    Attributes:
        name: short name, as `--recipe` takes it.
        batch_size: training images per step; the last batch of an epoch may be smaller.
        epochs: most epochs to train; `patience` may end training earlier.
        learning_rate: the constant rate, or the peak of another schedule.
        schedule: `constant`, or a linear warm-up to the peak over the first `warmup_fraction` of
            all steps, then a decay to 0: `linear`, or `cosine` (half a wave: Loshchilov and
            Hutter 2017).
        warmup_fraction: share of all steps in [0, 1).
        patience: epochs without a lower validation loss after which training stops; None: never.
        l2: strength of the L2 penalty, l2 * sum(kernel ** 2), on every kernel but the output's.
        dropout: rate of both dropout layers in [0, 1).
        label_smoothing: share in [0, 1) of each training label that is spread evenly over all ten
            classes (Szegedy et al. 2016).
        average_decay: of the exponential moving average of the weights that the model ends with,
            in [0, 1), the optimiser's `ema_momentum`; 0: none.
        rotation_degrees: largest rotation of a training image, either way; drawn anew each time.
        shear_degrees: largest slant.
        scaling: largest share in [0, 1) by which width and height, each by itself, change.
        shift_pixels: largest shift along each axis.
        min_accuracy: test accuracy in [0, 1] below which the accuracy gate fails.
        max_accuracy: test accuracy in [0, 1] above which it fails: too good to be true.

    Raises:
        InputError: a value is out of its range.
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
        """Learning rate of every step of a run of `steps` steps.

        Args:
            steps: number of steps of the whole run, epochs * steps per epoch.

        Returns:
            float32 array of shape (steps,). Step k (from 0) of w warm-up steps has
            peak * (k + 1) / w. After them, with the share r = (steps - k) / (steps - w) left, step
            k has peak * r in the linear schedule and peak * (1 - cos(pi * r)) / 2 in the cosine's.
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
        """The same recipe with some fields replaced; the schedule stretches over new `epochs`.

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
        """The recipe that `dataclasses.asdict` wrote.

        Raises:
            InputError: a field is missing, unknown or out of range.
        """
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        needed = {name for name, default in fields.items() if default is dataclasses.MISSING}
        # An older run's recipe lacks what was not thought of yet, and had the default's effect.
        if not needed <= set(values) <= set(fields):
            wrong = ", ".join(sorted((needed - set(values)) | (set(values) - set(fields))))
            raise InputError(f"the recipe lacks or does not know the field(s) {wrong}")
        return cls(**values)


def check_seed(seed: object) -> None:
    """Raises InputError unless the seed is a whole number from 0 to `MAX_SEED`."""
    if not _is_whole_number(seed) or not 0 <= seed <= MAX_SEED:  # type: ignore[operator]
        raise InputError(f"seed is {seed!r}, expected a whole number from 0 to {MAX_SEED}")


def check_engine(engine: object) -> None:
    """Raises InputError unless it is the name of an engine."""
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}: choose {' or '.join(ENGINES)}")


def _require(condition: bool, field: str, value: object, expected: str) -> None:
    if not condition:
        raise InputError(f"recipe: {field} is {value!r}, expected {expected}")


def _is_whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
