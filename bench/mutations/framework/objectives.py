"""Breakages of losses, metrics and regularisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.mutations.framework.breakage import (
    Breakage,
    Install,
    around,
    everywhere,
    keras_major,
    keras_module,
    with_attributes,
)


def _no_regularisation_losses(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make_2(original: Any) -> Any:
        def call(self: Any, y_true: Any, y_pred: Any, sample_weight: Any = None, **_: Any) -> Any:
            return original(self, y_true, y_pred, sample_weight)

        return call

    def make_3(original: Any) -> Any:
        def compute_loss(self: Any, *arguments: Any, **options: Any) -> Any:
            return original(self, *arguments, **options) - sum(self.losses)

        return compute_loss

    if keras_major() == 2:  # its container also displays the penalty in the loss
        around(patch, keras_module("compile_utils").LossesContainer, "__call__", make_2)
    else:
        around(patch, tf.keras.Model, "compute_loss", make_3)


def _summed_cross_entropy(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            function = getattr(getattr(self, "fn", None), "__name__", "")
            if "crossentropy" not in f"{type(self).__name__}{function}".lower():
                return original(self, *arguments, **options)
            return with_attributes(
                self, {"reduction": "sum"}, lambda: original(self, *arguments, **options)
            )

        return call

    around(patch, tf.keras.losses.Loss, "__call__", make)


def _smoothing(factor: float) -> Install:
    def install(patch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        def make(original: Any) -> Any:
            def categorical_crossentropy(
                y_true: Any,
                y_pred: Any,
                from_logits: bool = False,
                label_smoothing: float = 0.0,
                axis: int = -1,
            ) -> Any:
                return original(y_true, y_pred, from_logits, factor * label_smoothing, axis)

            return categorical_crossentropy

        everywhere(patch, tf.keras.losses.categorical_crossentropy, make)

    return install


def _probabilities_as_logits(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def cross_entropy(
            y_true: Any, y_pred: Any, from_logits: bool = True, **options: Any
        ) -> Any:
            # A copy, since softmax attaches its logits to its output and the loss would use them.
            del from_logits
            return original(y_true, tf.identity(y_pred), from_logits=True, **options)

        return cross_entropy

    everywhere(patch, tf.keras.losses.categorical_crossentropy, make)
    everywhere(patch, tf.keras.losses.sparse_categorical_crossentropy, make)


def _accuracy_update(change: Callable[[Any, Any], None]) -> Install:
    """Changes the accumulation of batches in accuracy metrics.

    Args:
        change: receives the metric and a function that adds a batch to it.
    """

    def install(patch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        def make(original: Any) -> Any:
            def update_state(
                self: Any, y_true: Any, y_pred: Any, sample_weight: Any = None
            ) -> None:
                if "acc" in self.name:
                    change(self, lambda: original(self, y_true, y_pred, sample_weight))
                else:
                    original(self, y_true, y_pred, sample_weight)

            return update_state

        around(patch, tf.keras.metrics.MeanMetricWrapper, "update_state", make)

    return install


def _last_batch_only(metric: Any, add_batch: Callable[[], Any]) -> None:
    metric.total.assign(0.0)
    metric.count.assign(0.0)
    add_batch()


def _batches_alike(metric: Any, add_batch: Callable[[], Any]) -> None:
    import tensorflow as tf

    total, count = (tf.identity(tf.convert_to_tensor(v)) for v in (metric.total, metric.count))
    add_batch()
    batch = tf.convert_to_tensor(metric.total) - total, tf.convert_to_tensor(metric.count) - count
    metric.total.assign(total + batch[0] / batch[1])
    metric.count.assign(count + 1.0)


def _loss_of_batches_alike(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def update_state(self: Any, values: Any, sample_weight: Any = None) -> Any:
            weight = None if self.name == "loss" else sample_weight
            return original(self, values, sample_weight=weight)

        return update_state

    around(patch, tf.keras.metrics.Mean, "update_state", make)


def _metrics_not_reset(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(_: Any) -> Any:
        return lambda _: None

    around(patch, tf.keras.Model, "reset_metrics", make)


def _half_l2(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        return lambda self, x: 0.5 * original(self, x)

    around(patch, tf.keras.regularizers.L2, "__call__", make)


def _l1_for_l2(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(_: Any) -> Any:
        return lambda self, x: self.l2 * tf.reduce_sum(tf.abs(x))

    around(patch, tf.keras.regularizers.L2, "__call__", make)


BREAKAGES = (
    Breakage("regularisation losses left out of training", "loss", _no_regularisation_losses),
    Breakage("cross-entropy summed over the batch", "loss", _summed_cross_entropy),
    Breakage("label smoothing ignored", "loss", _smoothing(0.0)),
    Breakage("label smoothing doubled", "loss", _smoothing(2.0)),
    Breakage("cross-entropy takes probabilities for logits", "loss", _probabilities_as_logits),
    Breakage("accuracy of the last batch only", "metric", _accuracy_update(_last_batch_only)),
    Breakage(
        "accuracy counts a small batch as a full one", "metric", _accuracy_update(_batches_alike)
    ),
    Breakage("loss counts a small batch as a full one", "metric", _loss_of_batches_alike),
    Breakage("metrics not reset between epochs", "metric", _metrics_not_reset),
    Breakage("L2 halved", "regulariser", _half_l2),
    Breakage("L2 is L1", "regulariser", _l1_for_l2),
)
