"""L2 penalty and dropout have the right place and strength, and are effective."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench.verdicts import numpy_lenet5
from lenet5.data import Subset
from lenet5.model import build_model
from lenet5.recipe import ENGINES
from lenet5.recipes import RECIPES
from lenet5.steps import build_evaluation, forward, total_loss
from lenet5.training import train


@pytest.mark.parametrize("l2", [1e-3, 0.02])
def test_losses_are_l2_times_the_sum_of_squared_kernels(l2: float) -> None:
    """Both convolutions and the first two dense layers count; biases and output layer do not."""
    model = build_model(l2=l2, seed=1)
    weights = [np.random.RandomState(i).randn(*w.shape) for i, w in enumerate(model.get_weights())]
    model.set_weights(weights)
    squares = [(weights[kernel].astype(np.float32) ** 2).sum() for kernel in (0, 2, 4, 6)]
    assert len(model.losses) == 4
    np.testing.assert_allclose([float(loss) for loss in model.losses], l2 * np.array(squares), 1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_training_loss_contains_the_penalty(noise: Subset, engine: str) -> None:
    """A step with L2 differs from one without by exactly the penalty, and in its weights."""
    losses, kernels = {}, {}
    for l2 in (0.0, 1e-3):
        losses[l2], kernels[l2] = _first_step(noise, engine, l2=l2, dropout=0.0)
    weights = build_model(seed=1).get_weights()
    penalty = 1e-3 * sum(float((weights[k] ** 2).sum()) for k in numpy_lenet5.L2_KERNELS)
    assert losses[1e-3] - losses[0.0] == pytest.approx(penalty, rel=1e-4)
    assert np.abs(kernels[1e-3] - kernels[0.0]).max() > 1e-4


@pytest.mark.parametrize("engine", ENGINES)
def test_training_applies_dropout(noise: Subset, engine: str) -> None:
    """The first step's loss depends on the recipe's rate."""
    none, half = (_first_step(noise, engine, l2=0.0, dropout=rate)[0] for rate in (0.0, 0.5))
    assert none != pytest.approx(half, rel=1e-3)


def test_the_validation_loss_contains_the_penalty(noise: Subset) -> None:
    model = build_model(seed=1)
    loss, _ = build_evaluation(model, noise)()
    weights = model.get_weights()
    images, labels = _arrays(noise)
    truth = numpy_lenet5.forward(weights, images)
    expected = numpy_lenet5.loss(weights, truth.probabilities, labels, l2=1e-3)
    assert loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_training_drops_at_its_rate_and_scales_the_rest(rate: float, engine: str) -> None:
    """The outputs of the layers reveal the masks."""
    model = build_model(dropout=rate, seed=1)
    images = np.random.RandomState(0).rand(400, 28, 28, 1).astype(np.float32)
    outputs = _dropout_outputs(model, images, engine, step=5)
    assert len(outputs) == 2
    for before, after in outputs:
        kept = after != 0
        error = np.sqrt(rate * (1 - rate) / kept.size)
        assert kept.mean() == pytest.approx(1 - rate, abs=5 * error)
        np.testing.assert_allclose(after[kept], before[kept] / (1 - rate), rtol=1e-5)


def test_the_graphs_masks_depend_on_step_seed_and_layer() -> None:
    model = build_model(seed=1)
    images = np.random.RandomState(0).rand(50, 28, 28, 1).astype(np.float32)

    def masks(seed: int, step: int) -> list[np.ndarray]:
        return [after != 0 for _, after in _dropout_outputs(model, images, "graph", step, seed)]

    first, again, next_step, next_seed = masks(1, 0), masks(1, 0), masks(1, 1), masks(2, 0)
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()
    for other in (next_step, next_seed):
        _assert_unlike(first, other)
    assert (first[0][:, :84] == first[1]).mean() == pytest.approx(0.5, abs=0.05)


def test_keras_masks_depend_on_step_seed_and_layer() -> None:
    images = np.random.RandomState(0).rand(50, 28, 28, 1).astype(np.float32)
    model, of_next_seed = build_model(seed=1), build_model(seed=2)

    def masks(model: tf.keras.Model) -> list[np.ndarray]:
        return [after != 0 for _, after in _dropout_outputs(model, images, "keras")]

    first, next_step, next_seed = masks(model), masks(model), masks(of_next_seed)
    for other in (next_step, next_seed):
        _assert_unlike(first, other)
    assert (first[0][:, :84] == first[1]).mean() == pytest.approx(0.5, abs=0.05)


def test_prediction_applies_no_dropout() -> None:
    model = build_model(dropout=0.5, seed=1)
    images = np.random.RandomState(0).rand(20, 28, 28, 1).astype(np.float32)
    truth = numpy_lenet5.forward(model.get_weights(), images).probabilities
    np.testing.assert_allclose(model.predict(images, verbose=0), truth, atol=2e-6)
    np.testing.assert_allclose(model.predict(images, verbose=0), truth, atol=2e-6)


def test_without_dropout_and_l2_the_loss_is_the_cross_entropy(noise: Subset) -> None:
    model = build_model(l2=0.0, dropout=0.0, seed=1)
    images, labels = _arrays(noise)
    probabilities = forward(model, tf.constant(images), seed=1, step=tf.constant(0, tf.int64))
    truth = numpy_lenet5.forward(model.get_weights(), images).probabilities
    expected = numpy_lenet5.loss(model.get_weights(), truth, labels, l2=0.0)
    assert float(total_loss(model, labels, probabilities)) == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def noise() -> Subset:
    """64 images of noise with labels."""
    random = np.random.RandomState(7)
    images = random.randint(0, 256, (64, 28, 28, 1)).astype(np.uint8)
    return Subset(images, random.randint(0, 10, 64).astype(np.uint8))


def _arrays(subset: Subset) -> tuple[np.ndarray, np.ndarray]:
    return subset.images.astype(np.float32) / 255, subset.labels.astype(np.int32)


def _first_step(
    subset: Subset, engine: str, *, l2: float, dropout: float
) -> tuple[float, np.ndarray]:
    """Returns the loss of a step on all images with seed 1, and the first dense kernel after it."""
    changes = {"epochs": 1, "batch_size": len(subset.labels), "l2": l2, "dropout": dropout}
    recipe = RECIPES["fast"].with_overrides(changes)
    model, history = train(recipe, subset, subset, seed=1, engine=engine)
    return history.epochs[0].training_loss, model.get_weights()[4]


def _assert_unlike(masks: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> None:
    """Asserts that masks of rate 0.5 agree in half of their places, like independent ones."""
    for mask, other in zip(masks, others, strict=True):
        assert (mask == other).mean() == pytest.approx(0.5, abs=0.05)


def _dropout_outputs(
    model: tf.keras.Model, images: np.ndarray, engine: str, step: int = 0, seed: int = 1
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns input and output of each dropout layer in a forward pass of training.

    The engine `graph` uses the forward pass of its loop; the layers around each dropout layer
    record their inputs and outputs. The engine `keras` calls the layers one by one in training
    mode.
    """
    recorded: list[np.ndarray] = []

    class Recorder:
        def __init__(self, layer: tf.keras.layers.Layer) -> None:
            self.layer = layer

        def __call__(self, inputs: Any, training: bool) -> Any:
            outputs = self.layer(inputs, training=training)
            recorded.extend([inputs.numpy(), outputs.numpy()])
            return outputs

    dropout = tf.keras.layers.Dropout
    if engine == "graph":
        layers = [x if isinstance(x, dropout) else Recorder(x) for x in model.layers]
        key = tf.constant(step, tf.int64)
        forward(SimpleNamespace(layers=layers), tf.constant(images), seed, key)
        # Recorded: input and output of the layers 0-5, 7 and 9; the dropouts are 6 and 8.
        return [(recorded[11], recorded[12]), (recorded[13], recorded[14])]
    outputs = tf.constant(images)
    for layer in model.layers:
        call = Recorder(layer) if isinstance(layer, dropout) else layer
        outputs = call(outputs, training=True)
    return [(recorded[0], recorded[1]), (recorded[2], recorded[3])]
