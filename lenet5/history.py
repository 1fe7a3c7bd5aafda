"""What training reports while it runs and when it ends, whichever engine trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        epoch: counted from 1.
        training_loss: mean over the epoch's images of the loss with dropout, plus L2.
        training_accuracy: share in [0, 1] of training images right, with dropout.
        validation_loss: mean loss without dropout after the epoch, plus L2. The loss is the
            cross-entropy with the recipe's label smoothing, here as in training.
        validation_accuracy: share in [0, 1] of validation images right after the epoch.
        learning_rate: of the epoch's last step.
        train_seconds: wall time of the epoch's steps, without validation; with the engine `keras`
            the first epoch's contains the tracing of the graph.
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
        epochs: in order.
        best_epoch: the one of the lowest validation loss, whose weights the model has; 0: none.
        train_seconds: wall time of the run with validation; the engine `graph` traces before.
        stopped_early: whether patience ran out before the epochs did.
        interrupted: whether training was cut off; the epochs are those that were finished.
    """

    epochs: tuple[Epoch, ...] = ()
    best_epoch: int = 0
    train_seconds: float = 0.0
    stopped_early: bool = False
    interrupted: bool = False


@dataclass(frozen=True)
class Progress:
    """How far an epoch is: images trained of all, loss and accuracy over those images."""

    epoch: int
    epochs: int
    images: int
    images_in_epoch: int
    loss: float
    accuracy: float


class DivergenceError(Exception):
    """The loss became NaN or infinite."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training; carries what was finished.

    Attributes:
        model: with the weights of the best epoch that was finished.
        history: of the finished epochs.
        directory: where a run has kept them, if it has.
    """

    def __init__(self, model: Any, history: History) -> None:
        super().__init__("training was interrupted")
        self.model = model
        self.history = history
        self.directory: Path | None = None
