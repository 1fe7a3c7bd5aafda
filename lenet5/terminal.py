"""What the command prints: messages, scores, progress."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

from lenet5.printable import in_one_line

if TYPE_CHECKING:
    from lenet5.evaluation import Evaluation
    from lenet5.history import Epoch, Progress


def prepare_streams() -> None:
    """Opens missing standard streams, and makes every file name printable."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed: the next opened file would take its number
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def tell(line: str) -> None:
    """Prints a message to standard error, in one line."""
    print(f"lenet5: {in_one_line(line)}", file=sys.stderr, flush=True)


def print_accuracy(evaluation: Evaluation, bar: ProgressBar | None = None) -> None:
    """Prints the test scores, below the progress bar."""
    if bar is not None:
        bar.close()
    print(f"test accuracy {evaluation}", flush=True)


class ProgressBar:
    """Progress bar over the whole run on a terminal; one line per epoch everywhere."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._bar: tqdm[NoReturn] | None = None

    def update(self, progress: Progress) -> None:
        """Shows the progress of an epoch."""
        if self._bar is None:
            total = progress.images_in_epoch * progress.epochs
            self._bar = tqdm(
                total=total,
                unit=" images",
                unit_scale=True,
                disable=None,  # off if standard error is not a terminal
                leave=False,
                dynamic_ncols=True,
            )
        self._bar.set_description(f"epoch {progress.epoch}/{progress.epochs}", refresh=False)
        self._bar.set_postfix_str(
            f"loss {progress.loss:.4f}, accuracy {100 * progress.accuracy:.2f} %", refresh=False
        )
        done = (progress.epoch - 1) * progress.images_in_epoch + progress.images
        self._bar.update(done - self._bar.n)
        self._images_in_epoch = progress.images_in_epoch

    def write_epoch(self, epoch: Epoch) -> None:
        """Prints the line of a finished epoch."""
        speed = self._images_in_epoch / epoch.train_seconds
        tqdm.write(
            f"epoch {epoch.epoch:2}/{self._epochs}  loss {epoch.training_loss:.4f}  "
            f"accuracy {100 * epoch.training_accuracy:.2f} %  "
            f"validation loss {epoch.validation_loss:.4f}  "
            f"accuracy {100 * epoch.validation_accuracy:.2f} %  {speed:,.0f} images/s"
        )
        sys.stdout.flush()

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
