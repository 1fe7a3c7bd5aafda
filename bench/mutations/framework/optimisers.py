"""Breakages of Adam, of the moving average of the weights, and of learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.mutations.framework.breakage import (
    Breakage,
    Install,
    arguments_of,
    around,
    everywhere,
    keras_major,
    with_attributes,
)


def _adam_with(attributes: Callable[[Any], dict[str, Any]]) -> Install:
    """Changes attributes of Adam during each step."""

    def install(patch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        def make(original: Any) -> Any:
            # Keras 3 also passes the learning rate.
            def update_step(self: Any, gradient: Any, variable: Any, *rate: Any) -> Any:
                return with_attributes(
                    self, attributes(self), lambda: original(self, gradient, variable, *rate)
                )

            return update_step

        around(patch, tf.keras.optimizers.Adam, "update_step", make)

    return install


def _long_after_the_start(optimiser: Any) -> dict[str, Any]:
    """A late step, at which both bias corrections are 1."""
    import tensorflow as tf

    return {_counter(optimiser): tf.constant(10**6, tf.int64)}


def _counter(optimiser: Any) -> str:
    """Name of the attribute that counts steps; Keras 3.4 has no property for it."""
    return "iterations" if "iterations" in optimiser.__dict__ else "_iterations"


def _steps(optimiser: Any) -> Any:
    import tensorflow as tf

    return tf.convert_to_tensor(optimiser.__dict__[_counter(optimiser)])


def _a_tenth_of_the_rate(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def update_step(self: Any, gradient: Any, variable: Any, *rate: Any) -> None:
            before = tf.identity(variable)
            original(self, gradient, variable, *rate)
            variable.assign(before + 0.1 * (variable - before))

        return update_step

    around(patch, tf.keras.optimizers.Adam, "update_step", make)


def _clipped(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def update_step(self: Any, gradient: Any, variable: Any, *rate: Any) -> None:
            original(self, tf.clip_by_norm(gradient, 10.0), variable, *rate)

        return update_step

    around(patch, tf.keras.optimizers.Adam, "update_step", make)


def _biases_stay(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def update_step(self: Any, gradient: Any, variable: Any, *rate: Any) -> None:
            if len(variable.shape) != 1:
                original(self, gradient, variable, *rate)

        return update_step

    around(patch, tf.keras.optimizers.Adam, "update_step", make)


def _fused_adam(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def resource_apply_adam(**arguments: Any) -> Any:
            return original(**{**arguments, "lr": 0.1 * arguments["lr"]})

        return resource_apply_adam

    everywhere(patch, tf.raw_ops.ResourceApplyAdam, make)


def _average_with(momentum: Callable[[float], float]) -> Install:
    """Changes the momentum of the optimiser's moving averages."""

    def install(patch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        def make(original: Any) -> Any:
            def update(self: Any, variables: Any) -> Any:
                other = {"ema_momentum": momentum(self.ema_momentum)}
                return with_attributes(self, other, lambda: original(self, variables))

            return update

        around(patch, tf.keras.optimizers.Optimizer, "_update_model_variables_moving_average", make)

    return install


def _schedule_at(step: Callable[[Any], Any]) -> Install:
    """Evaluates every schedule at another step than the optimiser's."""

    def install(patch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        def make(original: Any) -> Any:
            def current_rate(self: Any) -> Any:
                return with_attributes(self, {_counter(self): step(self)}, lambda: original(self))

            return current_rate

        name = {2: "_compute_current_learning_rate", 3: "_get_current_learning_rate"}
        around(patch, tf.keras.optimizers.Optimizer, name[keras_major()], make)

    return install


def _one_step_back(optimiser: Any) -> Any:
    import tensorflow as tf

    return tf.maximum(_steps(optimiser) - 1, 0)


def _first_step(_: Any) -> Any:
    import tensorflow as tf

    return tf.constant(0, tf.int64)


def _epoch_start(optimiser: Any) -> Any:
    """The first step of the epoch; the current step if no `fit` counts epochs."""
    return optimiser.__dict__.get("_epoch_start", _steps(optimiser))


def _once_an_epoch(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    class NoteStart(tf.keras.callbacks.Callback):  # type: ignore[misc]  # TensorFlow has no types
        """Records the step at the start of each epoch."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002  # Keras's
            optimiser = self.model.optimizer
            optimiser.__dict__["_epoch_start"].assign(_steps(optimiser))

    def make(original: Any) -> Any:
        def fit(self: Any, *arguments: Any, **options: Any) -> Any:
            named = arguments_of(original, (self, *arguments), options)
            if getattr(self, "optimizer", None) is None:  # not compiled: the original raises
                return original(**named)
            start = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.optimizer.__dict__.setdefault("_epoch_start", start)
            named["callbacks"] = [*(named.get("callbacks") or []), NoteStart()]
            return original(**named)

        return fit

    around(patch, tf.keras.Model, "fit", make)
    _schedule_at(_epoch_start)(patch)


def _twice_the_steps(schedule: str) -> Install:
    def install(patch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        def make(original: Any) -> Any:
            def call(self: Any, step: Any) -> Any:
                longer = {"decay_steps": 2 * self.decay_steps}
                return with_attributes(self, longer, lambda: original(self, step))

            return call

        around(patch, getattr(tf.keras.optimizers.schedules, schedule), "__call__", make)

    return install


BREAKAGES = (
    Breakage("Adam with a tenth of its rate", "optimiser", _a_tenth_of_the_rate),
    Breakage("Adam without bias correction", "optimiser", _adam_with(_long_after_the_start)),
    Breakage("Adam with epsilon 1e-3", "optimiser", _adam_with(lambda _: {"epsilon": 1e-3})),
    Breakage("Adam with beta_2 0.9", "optimiser", _adam_with(lambda _: {"beta_2": 0.9})),
    Breakage("Adam without momentum", "optimiser", _adam_with(lambda _: {"beta_1": 0.0})),
    Breakage("Adam skips biases", "optimiser", _biases_stay),
    Breakage("Adam clips gradients at a norm of 10", "optimiser", _clipped),
    Breakage("fused Adam with a tenth of its rate", "optimiser", _fused_adam),
    Breakage("weights not averaged", "optimiser", _average_with(lambda _: 0.0)),
    Breakage(
        "weights averaged over a tenth of the steps",
        "optimiser",
        _average_with(lambda momentum: max(0.0, 1 - 10 * (1 - momentum))),
    ),
    Breakage("schedules one step late", "schedule", _schedule_at(_one_step_back)),
    Breakage("schedules stay at their first rate", "schedule", _schedule_at(_first_step)),
    Breakage("schedules read once an epoch", "schedule", _once_an_epoch),
    Breakage(
        "PolynomialDecay takes twice its steps", "schedule", _twice_the_steps("PolynomialDecay")
    ),
    Breakage("CosineDecay takes twice its steps", "schedule", _twice_the_steps("CosineDecay")),
)
