"""Steps of the engine `graph` agree with NumPy float64: forward pass, loss, gradients, Adam.

Tolerances suit float32 arithmetic. The largest deviations with TensorFlow 2.12.1, 2.15.1, 2.16.2
and 2.21.0 on an AMD EPYC: gradients 8e-6 of the largest, weights 5.5e-6 after three steps.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from bench.verdicts import numpy_lenet5
from lenet5.model import build_model
from lenet5.recipe import STREAMS_PER_SEED
from lenet5.recipes import RECIPES
from lenet5.runtime import trainable_tensors
from lenet5.steps import build_step_loop, forward, total_loss

SEED = 4


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(11)
    images = random.rand(48, 28, 28, 1).astype(np.float32)
    return images, random.randint(0, 10, 48).astype(np.int32)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_gradients_agree_with_numpy(batch: tuple[np.ndarray, np.ndarray], rate: float) -> None:
    images, labels = batch
    model = build_model(dropout=rate, seed=SEED)
    with tf.GradientTape() as tape:
        probabilities = forward(model, tf.constant(images), SEED, tf.constant(3, tf.int64))
        loss = total_loss(model, labels, probabilities)
    computed = [g.numpy() for g in tape.gradient(loss, trainable_tensors(model))]

    weights = model.get_weights()
    masks = _masks(rate, step=3, images=len(images))
    truth = numpy_lenet5.forward(weights, images, *masks)
    expected = numpy_lenet5.gradients(weights, truth, labels, 1e-3, *masks)
    true_loss = numpy_lenet5.loss(weights, truth.probabilities, labels, 1e-3)
    assert float(loss) == pytest.approx(true_loss, rel=1e-6)
    for ours, exact in zip(computed, expected, strict=True):
        np.testing.assert_allclose(ours, exact, rtol=0, atol=4e-5 * np.abs(exact).max())


def test_numpy_gradients_agree_with_finite_differences(
    batch: tuple[np.ndarray, np.ndarray],
) -> None:
    """The definition of a derivative confirms the NumPy version itself."""
    images, labels = batch[0][:4], batch[1][:4]
    weights = [np.asarray(weight, np.float64) for weight in build_model(seed=SEED).get_weights()]
    masks = _masks(0.5, step=0, images=4)

    def loss() -> float:
        truth = numpy_lenet5.forward(weights, images, *masks)
        return numpy_lenet5.loss(weights, truth.probabilities, labels, 1e-3)

    truth = numpy_lenet5.forward(weights, images, *masks)
    gradients = numpy_lenet5.gradients(weights, truth, labels, 1e-3, *masks)
    for weight, gradient in zip(weights, gradients, strict=True):
        at = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        kept = weight[at]
        weight[at] = kept + 1e-5
        above = loss()
        weight[at] = kept - 1e-5
        below = loss()
        weight[at] = kept
        assert (above - below) / 2e-5 == pytest.approx(gradient[at], rel=1e-6)


def test_steps_of_the_loop_agree_with_numpy(batch: tuple[np.ndarray, np.ndarray]) -> None:
    """Three steps of the graph's loop, with dropout, warm-up and a smaller last batch."""
    images, labels = batch
    recipe = RECIPES["fast"].with_overrides({"batch_size": 20})
    model = build_model(seed=SEED)
    exact = [np.asarray(weight, np.float64) for weight in model.get_weights()]
    order = np.random.RandomState(5).permutation(48).astype(np.int32)
    rates = np.array([1e-3, 2e-3, 3e-3], np.float32)
    run_steps = build_step_loop(model, recipe, images, labels, SEED)
    losses, correct = run_steps(order, rates, 0, 3)

    adam = numpy_lenet5.Adam()
    moments = adam.start(exact)
    for step, indices in enumerate(np.split(order, [20, 40])):
        masks = _masks(0.5, step, len(indices))
        truth = numpy_lenet5.forward(exact, images[indices], *masks)
        expected_loss = numpy_lenet5.loss(exact, truth.probabilities, labels[indices], 1e-3)
        assert losses[step] == pytest.approx(expected_loss, rel=1e-5)
        correct -= (truth.probabilities.argmax(axis=1) == labels[indices]).sum()
        grads = numpy_lenet5.gradients(exact, truth, labels[indices], 1e-3, *masks)
        exact = adam.step(exact, grads, moments, step + 1, float(rates[step]))
    assert correct == 0
    for ours, truth_weight in zip(model.get_weights(), exact, strict=True):
        np.testing.assert_allclose(ours, truth_weight, rtol=0, atol=2e-5)


def test_averages_start_at_the_weights_and_follow_them(
    batch: tuple[np.ndarray, np.ndarray],
) -> None:
    """Each step keeps the share `average_decay` of the earlier averages."""
    images, labels = batch
    recipe = RECIPES["original"].with_overrides({"batch_size": 48, "average_decay": 0.8})
    model, average = build_model(seed=SEED), build_model(seed=SEED)
    run_steps = build_step_loop(model, recipe, images, labels, SEED, average)
    expected = [weight.astype(np.float64) for weight in model.get_weights()]
    for step in range(3):
        run_steps(np.arange(48, dtype=np.int32), np.full(3, 1e-3, np.float32), step, 1)
        now = model.get_weights()
        expected = [0.8 * old + 0.2 * new for old, new in zip(expected, now, strict=True)]
    for ours, exact in zip(average.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-6)


def test_adam_agrees_with_keras(batch: tuple[np.ndarray, np.ndarray]) -> None:
    """The fused kernel agrees with `tf.keras.optimizers.Adam` over several steps."""
    images, labels = batch
    recipe = RECIPES["original"].with_overrides({"batch_size": 48, "dropout": 0.0})
    ours, theirs = (build_model(dropout=0.0, seed=SEED) for _ in range(2))
    run_steps = build_step_loop(ours, recipe, images, labels, SEED)
    order = np.tile(np.arange(48, dtype=np.int32), 5)
    run_steps(order, np.full(5, 1e-3, np.float32), 0, 5)
    theirs.compile(optimizer=tf.keras.optimizers.Adam(1e-3), loss="sparse_categorical_crossentropy")
    theirs.fit(images, labels, batch_size=48, epochs=5, shuffle=False, verbose=0)
    for mine, keras in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras, rtol=0, atol=2e-5)


def test_the_masks_of_the_loop_keep_their_share_and_are_drawn_apart() -> None:
    """Half is dropped and the rest doubled; masks of steps, layers and images are independent."""
    masks = [mask for step in (0, 1, 2) for mask in _masks(0.5, step, 48)]
    assert all(set(np.unique(mask)) == {0.0, 2.0} for mask in masks)
    drawn = [mask[:, :84].ravel() - 1 for mask in masks]
    assert np.concatenate(drawn).mean() == pytest.approx(0, abs=5 / np.sqrt(6 * drawn[0].size))
    for one, other in itertools.combinations(drawn, 2):
        assert abs((one * other).mean()) <= 5 / np.sqrt(one.size)
    images = np.concatenate([mask - 1 for mask in masks[::2]])
    alike = np.abs(images @ images.T / images.shape[1] - np.eye(len(images)))
    assert alike.max() <= 7 / np.sqrt(images.shape[1])  # over 10,296 pairs
    for rate in (0.1, 0.8):
        mask, _ = _masks(rate, 0, 480)
        error = np.sqrt(rate * (1 - rate) / mask.size)
        assert (mask == 0).mean() == pytest.approx(rate, abs=5 * error)
        np.testing.assert_allclose(mask[mask != 0], 1 / (1 - rate), rtol=1e-6)


def _masks(rate: float, step: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws both dropout masks of a step with the documented keys: seed * 8 + 5 and + 6, step."""
    masks = [
        tf.nn.experimental.stateless_dropout(
            tf.ones((images, units)),
            rate=rate,
            seed=tf.constant([SEED * STREAMS_PER_SEED + stream, step], tf.int64),
            rng_alg="philox",
        ).numpy()
        for units, stream in ((120, 5), (84, 6))
    ]
    return masks[0], masks[1]
