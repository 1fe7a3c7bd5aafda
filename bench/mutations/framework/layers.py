"""Breakages of layers, their gradients, dropout and initial weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.mutations.framework.breakage import (
    Breakage,
    Install,
    around,
    around_gradient,
    everywhere,
    with_attributes,
)


def _gradient(operation: str, change: Callable[[Any, list[Any]], list[Any]]) -> Install:
    """Replaces the gradient of a TensorFlow operation.

    Args:
        operation: TensorFlow's name of the operation.
        change: receives the operation and the gradients of its inputs, and returns new ones.
    """

    def install(patch: pytest.MonkeyPatch) -> None:
        def make(original: Any) -> Any:
            def gradient(operation: Any, *of_outputs: Any) -> Any:
                gradients = original(operation, *of_outputs)
                if not isinstance(gradients, list | tuple):
                    return change(operation, [gradients])[0]
                return change(operation, list(gradients))

            return gradient

        around_gradient(patch, operation, make)

    return install


def _tanh_gradient(patch: pytest.MonkeyPatch) -> None:
    def make(_: Any) -> Any:
        def gradient(operation: Any, of_output: Any) -> Any:
            return of_output * (1.0 - operation.outputs[0])

        return gradient

    around_gradient(patch, "Tanh", make)


def _with_bias(layer: str, change: Callable[[Any], Any]) -> Install:
    """Changes a layer's bias, keeping a gradient: training fails without any gradient."""

    def install(patch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        def make(original: Any) -> Any:
            def call(self: Any, inputs: Any) -> Any:
                if self.bias is None:
                    return original(self, inputs)
                other = {"bias": change(tf.convert_to_tensor(self.bias))}
                return with_attributes(self, other, lambda: original(self, inputs))

            return call

        around(patch, getattr(tf.keras.layers, layer), "call", make)

    return install


def _constant(value: Any) -> Any:
    import tensorflow as tf

    return tf.stop_gradient(value) + 0.0 * value


def _dropout_straight_through(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def call(self: Any, inputs: Any, training: Any = None) -> Any:
            return inputs + tf.stop_gradient(original(self, inputs, training=training) - inputs)

        return call

    around(patch, tf.keras.layers.Dropout, "call", make)


def _max_for_average(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(_: Any) -> Any:
        def call(self: Any, inputs: Any) -> Any:
            return tf.nn.max_pool2d(inputs, self.pool_size, self.strides, self.padding.upper())

        return call

    around(patch, tf.keras.layers.AveragePooling2D, "call", make)


def _flipped_kernels(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def convolution_op(self: Any, inputs: Any, kernel: Any) -> Any:
            return original(self, inputs, tf.convert_to_tensor(kernel)[::-1, ::-1])

        return convolution_op

    around(patch, tf.keras.layers.Conv2D, "convolution_op", make)


def _bfloat16(patch: pytest.MonkeyPatch) -> None:
    """Rounds the inputs of matrix products like a processor's "fast" mode."""
    import tensorflow as tf

    def make(original: Any) -> Any:
        def call(self: Any, inputs: Any) -> Any:
            return original(self, tf.cast(tf.cast(inputs, tf.bfloat16), inputs.dtype))

        return call

    around(patch, tf.keras.layers.Dense, "call", make)
    around(patch, tf.keras.layers.Conv2D, "call", make)


def _flatten_channels_first(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def call(self: Any, inputs: Any) -> Any:
            last = len(inputs.shape) - 1
            return original(self, tf.transpose(inputs, [0, last, *range(1, last)]))

        return call

    around(patch, tf.keras.layers.Flatten, "call", make)


def _soft_softmax(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        return lambda x, axis=-1: original(x / 1.1, axis)

    everywhere(patch, tf.keras.activations.softmax, make)


def _low_tanh(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        return lambda x: 0.99 * original(x)

    everywhere(patch, tf.keras.activations.tanh, make)


def _dropout_call(training_or_inputs: Callable[[Any, Any, Any, Any], Any]) -> Install:
    def install(patch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        def make(original: Any) -> Any:
            def call(self: Any, inputs: Any, training: Any = None) -> Any:
                return training_or_inputs(original, self, inputs, training)

            return call

        around(patch, tf.keras.layers.Dropout, "call", make)

    return install


def _dropout_arithmetic(change: Callable[[Any, Any, dict[str, Any]], Any]) -> Install:
    """Replaces the common implementation of TensorFlow's dropouts.

    Args:
        change: receives the original, the rate, and all other arguments by name.
    """

    def install(patch: pytest.MonkeyPatch) -> None:
        from tensorflow.python.ops import nn_ops

        def make(original: Any) -> Any:
            def dropout(*, rate: Any, **others: Any) -> Any:
                return change(original, rate, others)

            return dropout

        around(patch, nn_ops, "_dropout", make)

    return install


def _same_mask(original: Any, rate: Any, others: dict[str, Any]) -> Any:
    import tensorflow as tf

    def uniform_sampler(shape: Any, dtype: Any) -> Any:
        return tf.random.stateless_uniform(shape, seed=[1, 2], dtype=dtype)

    return original(rate=rate, **{**others, "uniform_sampler": uniform_sampler})


def _one_key(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def stateless_dropout(x: Any, rate: Any, seed: Any, *arguments: Any, **options: Any) -> Any:
            return original(x, rate, tf.zeros_like(seed), *arguments, **options)

        return stateless_dropout

    everywhere(patch, tf.nn.experimental.stateless_dropout, make)


def _glorot_of_twice_the_variance(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            return with_attributes(
                self, {"scale": 2.0}, lambda: original(self, *arguments, **options)
            )

        return call

    around(patch, tf.keras.initializers.GlorotUniform, "__call__", make)


def _glorot_of_one_seed(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def call(_: Any, *arguments: Any, **options: Any) -> Any:
            return original(tf.keras.initializers.GlorotUniform(seed=1), *arguments, **options)

        return call

    around(patch, tf.keras.initializers.GlorotUniform, "__call__", make)


def _biases_of_one(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def add_weight(self: Any, *arguments: Any, **options: Any) -> Any:
            if "bias" in (*arguments[:1], options.get("name")):
                options["initializer"] = "ones"
            return original(self, *arguments, **options)

        return add_weight

    around(patch, tf.keras.layers.Layer, "add_weight", make)


def _no_seed(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(_: Any) -> Any:
        return lambda seed: None  # noqa: ARG005  # Keras's signature

    everywhere(patch, tf.keras.utils.set_random_seed, make)


BREAKAGES = (
    Breakage(
        "gradients of convolution kernels halved",
        "gradient",
        _gradient("Conv2D", lambda _, of: [of[0], 0.5 * of[1]]),
    ),
    Breakage(
        "gradient of average pooling halved",
        "gradient",
        _gradient("AvgPool", lambda _, of: [0.5 * of[0]]),
    ),
    Breakage("gradient of tanh is 1 - y", "gradient", _tanh_gradient),
    Breakage("gradient of Dense biases is 0", "gradient", _with_bias("Dense", _constant)),
    Breakage("gradient of dropout is that of its input", "gradient", _dropout_straight_through),
    Breakage("average pooling takes the maximum", "layer", _max_for_average),
    Breakage("Conv2D without bias", "layer", _with_bias("Conv2D", lambda bias: 0.0 * bias)),
    Breakage("Conv2D turns its kernels around", "layer", _flipped_kernels),
    Breakage("inputs of Dense and Conv2D rounded to bfloat16", "layer", _bfloat16),
    Breakage("Flatten takes channels first", "layer", _flatten_channels_first),
    Breakage("softmax of logits divided by 1.1", "layer", _soft_softmax),
    Breakage("tanh 1 % low", "layer", _low_tanh),
    Breakage("Dropout drops nothing", "dropout", _dropout_call(lambda _, __, inputs, ___: inputs)),
    Breakage(
        "Dropout active in prediction",
        "dropout",
        _dropout_call(lambda original, self, inputs, _: original(self, inputs, True)),
    ),
    Breakage(
        "dropout of 0.6 of its rate",
        "dropout",
        _dropout_arithmetic(lambda original, rate, others: original(rate=0.6 * rate, **others)),
    ),
    Breakage(
        "dropout does not scale what it keeps",
        "dropout",
        _dropout_arithmetic(
            lambda original, rate, others: (1 - rate) * original(rate=rate, **others)
        ),
    ),
    Breakage("dropout has the same mask in each step", "dropout", _dropout_arithmetic(_same_mask)),
    Breakage("stateless_dropout takes every key for 0", "dropout", _one_key),
    Breakage("GlorotUniform with twice the variance", "initialiser", _glorot_of_twice_the_variance),
    Breakage("GlorotUniform of one seed", "initialiser", _glorot_of_one_seed),
    Breakage("biases begin at 1", "initialiser", _biases_of_one),
    Breakage("set_random_seed sets nothing", "initialiser", _no_seed),
)
