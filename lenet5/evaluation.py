"""Evaluation of a trained model on every image of a subset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf
from sklearn.metrics import auc, confusion_matrix, roc_curve

from lenet5.accuracy import describe_accuracy, wilson_interval
from lenet5.data import CLASSES, Subset, normalise

_SMALLEST_PROBABILITY = 1e-7  # as in Keras's cross-entropy


@dataclass(frozen=True)
class RocCurve:
    """ROC curve of one class against all others.

    Attributes:
        false_positive_rate: float array in [0, 1], rising from 0 to 1.
        true_positive_rate: float array in [0, 1], of the same length.
        auc: area under the curve in [0, 1].
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    auc: float


@dataclass(frozen=True)
class Evaluation:
    """Output of a model on a subset, with its statistics.

    Attributes:
        labels: uint8 array (n,), true digits.
        probabilities: float32 array (n, 10), output of the model.
        penalty: sum of the model's L2 losses.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    penalty: float

    @cached_property
    def predictions(self) -> np.ndarray:
        """Digits with the largest probability: int64 array (n,)."""
        return np.asarray(np.argmax(self.probabilities, axis=1))

    @cached_property
    def wrong(self) -> np.ndarray:
        """Indices of misclassified images, ascending."""
        return np.flatnonzero(self.predictions != self.labels)

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def errors(self) -> int:
        """Number of misclassified images."""
        return len(self.wrong)

    @property
    def accuracy(self) -> float:
        """Share of correctly classified images, in [0, 1]."""
        return (self.images - self.errors) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy by Wilson's score method."""
        return wilson_interval(self.images - self.errors, self.images)

    @property
    def loss(self) -> float:
        """Mean cross-entropy plus the L2 penalty, as in Keras."""
        right = self.probabilities[np.arange(self.images), self.labels].astype(np.float64)
        entropy = -np.log(np.clip(right, _SMALLEST_PROBABILITY, 1)).mean()
        return float(entropy) + self.penalty

    def __str__(self) -> str:
        """Returns, for example, `98.52 % (148 wrong of 10,000; 95 % interval 98.26-98.74 %)`."""
        return describe_accuracy(self.errors, self.images, self.interval)

    @cached_property
    def confusion(self) -> np.ndarray:
        """Counts, int64 array (10, 10): true digits in rows, predictions in columns."""
        counts = confusion_matrix(self.labels, self.predictions, labels=np.arange(CLASSES))
        return np.asarray(counts)

    @cached_property
    def roc_curves(self) -> tuple[RocCurve | None, ...]:
        """One curve per digit; None if no image or every image shows the digit."""
        return tuple(self._roc_curve(digit) for digit in range(CLASSES))

    def _roc_curve(self, digit: int) -> RocCurve | None:
        positive = self.labels == digit
        if positive.all() or not positive.any():
            return None
        false_positive, true_positive, _ = roc_curve(positive, self.probabilities[:, digit])
        return RocCurve(false_positive, true_positive, float(auc(false_positive, true_positive)))


def evaluate(model: tf.keras.Model, subset: Subset, batch_size: int = 500) -> Evaluation:
    """Evaluates a model on every image of a subset, also in a smaller last batch.

    Args:
        model: maps float32 images (n, 28, 28, 1) in [0, 1] to probabilities (n, 10).
        subset: images and labels, at least one.
        batch_size: images per prediction step.

    Returns:
        The evaluation.
    """
    images = normalise(subset.images)
    probabilities = model.predict(images, batch_size=batch_size, verbose=0)
    penalty = sum(float(loss) for loss in model.losses)
    return Evaluation(np.asarray(subset.labels), probabilities, penalty)
