"""Reports of training, the same for both engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Epoch:
    """Losses, accuracies and time of one epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        training_loss: mean loss over the epoch's images, with dropout, plus L2.
        training_accuracy: share in [0, 1] of correct training images, with dropout.
        validation_loss: mean loss after the epoch, without dropout, plus L2. As in training, the
            loss is the cross-entropy with the recipe's label smoothing.
        validation_accuracy: share in [0, 1] of correct validation images after the epoch.
        learning_rate: learning rate of the epoch's last step.
        train_seconds: wall time of the epoch's steps, without validation; with the engine `keras`,
            the first epoch includes graph tracing.
    """

    epoch: int
    training_loss: float
    training_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    train_seconds: float


@dataclass(frozen=True)
class History:
    """The epochs of a run.

    Attributes:
        epochs: finished epochs, in order.
        best_epoch: epoch with the lowest validation loss, source of the model's weights; 0: none.
        train_seconds: wall time of the run with validation; the engine `graph` traces before it.
        stopped_early: whether patience ended training before the last epoch.
        interrupted: whether training was interrupted; `epochs` has the finished ones.
    """

    epochs: tuple[Epoch, ...] = ()
    best_epoch: int = 0
    train_seconds: float = 0.0
    stopped_early: bool = False
    interrupted: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """State of a training after its last finished epoch.

    A training that continues from it ends with the same weights as without a pause.

    Attributes:
        epochs: finished epochs, in order.
        train_seconds: wall time so far, with validation.
        best_weights: the model's weights after its best epoch, float32.
        variables: weights, optimiser's variables and random states, in the engine's order; empty
            once the training has ended.
    """

    epochs: tuple[Epoch, ...]
    train_seconds: float
    best_weights: tuple[np.ndarray, ...]
    variables: tuple[np.ndarray, ...]

    @property
    def ended(self) -> bool:
        """Whether the training has ended, so that only its best weights are needed."""
        return not self.variables


@dataclass(frozen=True)
class Progress:
    """Progress in an epoch: trained images of all, loss and accuracy over the trained images."""

    epoch: int
    epochs: int
    images: int
    images_in_epoch: int
    loss: float
    accuracy: float


class DivergenceError(Exception):
    """The loss became NaN or infinite."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training, with the results of the finished epochs.

    Attributes:
        model: model with the weights of the best finished epoch.
        history: history of the finished epochs.
        directory: folder of the saved results; None if they are not saved.
    """

    def __init__(self, model: Any, history: History) -> None:
        super().__init__("training was interrupted")
        self.model = model
        self.history = history
        self.directory: Path | None = None
