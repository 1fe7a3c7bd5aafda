"""Breakages of early stopping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.mutations.framework.breakage import Breakage, Install, around


def _stopping(method: str, change: Callable[..., Any]) -> Install:
    """Replaces a method of `EarlyStopping`; `change` receives the original and its arguments."""

    def install(patch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        def make(original: Any) -> Any:
            def broken(self: Any, *arguments: Any, **options: Any) -> Any:
                return change(original, self, *arguments, **options)

            return broken

        around(patch, tf.keras.callbacks.EarlyStopping, method, make)

    return install


def _made_with(change: Callable[[Any], None]) -> Install:
    """Changes every new `EarlyStopping` after its construction."""

    def init(original: Any, self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        change(self)

    return _stopping("__init__", init)


def _last_weights(callback: Any) -> None:
    callback.restore_best_weights = False


def _one_epoch_longer(callback: Any) -> None:
    callback.patience += 1


def _training_loss(callback: Any) -> None:
    callback.monitor = callback.monitor.removeprefix("val_")


def _never_stops(original: Any, self: Any, epoch: int, logs: Any = None) -> None:
    original(self, epoch, logs)
    self.model.stop_training = False


def _goes_on(original: Any, self: Any, logs: Any = None) -> None:
    """Keeps the state of the previous training at the start of the next."""
    if not self.__dict__.get("_begun"):
        original(self, logs)
    self.__dict__["_begun"] = True


BREAKAGES = (
    Breakage("EarlyStopping keeps the last weights", "callback", _made_with(_last_weights)),
    Breakage("EarlyStopping waits one epoch longer", "callback", _made_with(_one_epoch_longer)),
    Breakage("EarlyStopping watches the training loss", "callback", _made_with(_training_loss)),
    Breakage("EarlyStopping never stops", "callback", _stopping("on_epoch_end", _never_stops)),
    Breakage(
        "EarlyStopping goes on where the last fit ended",
        "callback",
        _stopping("on_train_begin", _goes_on),
    ),
)
