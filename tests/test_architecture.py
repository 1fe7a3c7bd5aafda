"""The model has LeNet-5's layers, shapes, activations and parameters."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from bench.verdicts import numpy_lenet5
from lenet5.errors import InputError
from lenet5.model import build_model, summarise

# kind, output shape, activation, parameters, L2, dropout rate
LAYERS = [
    ("Conv2D", (24, 24, 6), "tanh", 156, 1e-3, 0.0),
    ("AveragePooling2D", (12, 12, 6), "linear", 0, 0.0, 0.0),
    ("Conv2D", (8, 8, 16), "tanh", 2416, 1e-3, 0.0),
    ("AveragePooling2D", (4, 4, 16), "linear", 0, 0.0, 0.0),
    ("Flatten", (256,), "linear", 0, 0.0, 0.0),
    ("Dense", (120,), "tanh", 30840, 1e-3, 0.0),
    ("Dropout", (120,), "linear", 0, 0.0, 0.5),
    ("Dense", (84,), "tanh", 10164, 1e-3, 0.0),
    ("Dropout", (84,), "linear", 0, 0.0, 0.5),
    ("Dense", (10,), "softmax", 850, 0.0, 0.0),
]


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    return build_model(seed=3)


def test_every_layer_matches_the_table(model: tf.keras.Model) -> None:
    summaries = [
        (layer.kind, layer.output_shape, layer.activation, layer.parameters, layer.l2, layer.rate)
        for layer in summarise(model)
    ]
    assert summaries == LAYERS


def test_the_model_takes_28x28_images_and_has_44426_parameters(model: tf.keras.Model) -> None:
    assert model.input_shape == (None, 28, 28, 1)
    assert model.output_shape == (None, 10)
    assert model.count_params() == 44_426
    assert sum(int(np.prod(w.shape)) for w in model.trainable_variables) == 44_426


def test_the_model_is_a_plain_keras_model(model: tf.keras.Model) -> None:
    assert type(model) is tf.keras.Sequential
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} <= {"keras", "tf_keras"}


def test_every_layer_agrees_with_numpy(model: tf.keras.Model) -> None:
    """Convolution, pooling and dense layers agree with NumPy to float32 precision."""
    images = np.random.RandomState(0).rand(7, 28, 28, 1).astype(np.float32)
    truth = numpy_lenet5.forward(model.get_weights(), images)
    outputs = {}
    x = tf.constant(images)
    for index, layer in enumerate(model.layers):
        x = layer(x, training=False)
        outputs[index] = x.numpy()
    np.testing.assert_allclose(outputs[0], truth.conv1, atol=2e-6)
    np.testing.assert_allclose(outputs[1], truth.pool1, atol=2e-6)
    np.testing.assert_allclose(outputs[2], truth.conv2, atol=2e-6)
    np.testing.assert_allclose(outputs[4], truth.flat, atol=2e-6)
    np.testing.assert_allclose(outputs[9], truth.probabilities, atol=2e-6)
    np.testing.assert_allclose(
        model(images, training=False).numpy(), truth.probabilities, atol=2e-6
    )


def test_probabilities_sum_to_one(model: tf.keras.Model) -> None:
    images = np.random.RandomState(1).rand(5, 28, 28, 1).astype(np.float32)
    probabilities = model.predict(images, verbose=0)
    assert probabilities.shape == (5, 10)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_initial_weights_are_the_same_in_every_version(model: tf.keras.Model) -> None:
    """Versions are compared from the same start: a change of this digest is a finding."""
    digest = hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights()))
    assert digest.hexdigest()[:16] == "6aad4374a866027e"


def test_initial_kernels_are_glorot_uniform_and_biases_zero(model: tf.keras.Model) -> None:
    """Kernels are within, and close to, +-sqrt(6 / (fan in + fan out)) (Glorot and Bengio 2010)."""
    for kernel, bias in zip(model.get_weights()[::2], model.get_weights()[1::2], strict=True):
        receptive = int(np.prod(kernel.shape[:-2]))
        limit = np.sqrt(6 / (receptive * (kernel.shape[-2] + kernel.shape[-1])))
        assert 0.9 * limit < np.abs(kernel).max() <= limit
        assert not bias.any()


def test_weights_depend_on_the_seed() -> None:
    first, again, other = (build_model(seed=seed).get_weights()[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).all()


@pytest.mark.parametrize("seed", [-1, 2**29, 1.0, True, "0"])
def test_a_seed_out_of_range_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match="seed is"):
        build_model(seed=seed)  # type: ignore[arg-type]
