"""New weights are Glorot's, keep assigned values to the bit, and have the L2 penalty.

Bounds on samples are at five standard deviations.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lenet5.model import build_for, build_model
from tests.fitting import draw_weights, lenet5_penalty, lenet5_recipe

_FANS = {  # LeNet-5's kernels by index: (in, out); a convolution has 25 positions
    0: (25, 150),
    2: (150, 400),
    4: (256, 120),
    6: (120, 84),
    8: (84, 10),
}


@pytest.mark.parametrize("seed", [0, 1, 77])
def test_kernels_have_glorots_spread_and_biases_are_0(seed: int) -> None:
    weights = build_model(seed=seed).get_weights()
    for place, (fan_in, fan_out) in _FANS.items():
        _assert_uniform(weights[place], np.sqrt(6 / (fan_in + fan_out)))
        assert not weights[place + 1].any()


def test_default_layers_have_glorots_spread_and_zero_biases() -> None:
    """These layers have Keras's defaults, as most users write them."""
    tf.keras.utils.set_random_seed(3)
    dense, convolution = tf.keras.layers.Dense(90), tf.keras.layers.Conv2D(20, (3, 5))
    for layer, shape, fans in (
        (dense, (None, 70), 70 + 90),
        (convolution, (None, 9, 9, 10), 15 * (10 + 20)),
    ):
        layer.build(shape)
        kernel, bias = layer.get_weights()
        _assert_uniform(kernel, np.sqrt(6 / fans))
        assert not bias.any()
    names = ("glorot_uniform", "zeros", "ones")
    kernel, zeros, ones = (tf.keras.initializers.get(name)((70, 90)) for name in names)
    _assert_uniform(np.asarray(kernel), np.sqrt(6 / 160))
    assert not np.any(zeros)
    assert np.all(ones)


@pytest.mark.parametrize(
    ("kind", "variance"),
    [
        ("GlorotNormal", 2 / (200 + 100)),
        ("HeUniform", 2 / 200),
        ("HeNormal", 2 / 200),
        ("LecunUniform", 1 / 200),
        ("LecunNormal", 1 / 200),
    ],
)
def test_other_initialisers_have_their_variance(kind: str, variance: float) -> None:
    drawn = np.asarray(getattr(tf.keras.initializers, kind)(seed=4)((200, 100)), np.float64)
    error = np.sqrt(2 / drawn.size)  # relative error of a normal variance; a uniform's is smaller
    assert drawn.var() == pytest.approx(variance, rel=5 * error)
    assert drawn.mean() == pytest.approx(0, abs=5 * np.sqrt(variance / drawn.size))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = (build_model(seed=seed).get_weights() for seed in (5, 5, 6))
    for place, (ours, same, unlike) in enumerate(zip(first, again, other, strict=True)):
        assert ours.tobytes() == same.tobytes()
        if place in _FANS:
            _assert_unlike(ours, unlike)


def test_kernels_and_their_entries_are_independent() -> None:
    """No kernel is a copy of another, of a neighbouring seed's, or of itself after a shift."""
    kernels = [build_model(seed=seed).get_weights()[place] for seed in (8, 9) for place in _FANS]
    for one, other in itertools.combinations(kernels, 2):
        _assert_unlike(one, other)
    for kernel in kernels:
        flat = kernel.ravel()
        for shift in (1, 2, kernel.shape[-1]):
            _assert_unlike(flat[shift:], flat[:-shift])


def test_the_global_seed_makes_default_layers_repeatable() -> None:
    """With `set_random_seed`, equal seeds give equal weights; layers and other seeds differ."""

    def draw(seed: int) -> list[np.ndarray]:
        tf.keras.utils.set_random_seed(seed)
        layers = [tf.keras.layers.Dense(40) for _ in range(2)]
        for layer in layers:
            layer.build((None, 50))
        return [layer.get_weights()[0] for layer in layers]

    first, again, other = draw(11), draw(11), draw(12)
    for ours, same in zip(first, again, strict=True):
        assert ours.tobytes() == same.tobytes()
    for one, unlike in itertools.combinations([*first, *other], 2):
        _assert_unlike(one, unlike)


def test_weights_are_kept_to_the_bit() -> None:
    """`set_weights` and `get_weights`, for model and layers, including extreme values."""
    model = build_model(seed=13)
    weights = draw_weights(14)
    weights[0].ravel()[:6] = [0.0, -0.0, 1e-38, 3e38, -np.inf, np.float32(0.1)]
    model.set_weights(weights)
    told = model.get_weights()
    by_layer = [weight for layer in model.layers for weight in layer.get_weights()]
    by_variable = [np.asarray(tf.convert_to_tensor(weight)) for weight in model.weights]
    for given, *copies in zip(weights, told, by_layer, by_variable, strict=True):
        for copy in copies:
            assert copy.shape == given.shape
            assert copy.dtype == np.float32
            assert copy.tobytes() == given.tobytes()
    told[0][:] = 7  # a copy: the model's weights stay
    assert model.get_weights()[0].tobytes() == weights[0].tobytes()
    assert len(model.trainable_variables) == len(weights)
    assert model.count_params() == sum(weight.size for weight in weights) == 44_426


def test_a_frozen_layer_stays_as_it_is() -> None:
    """With `trainable = False` before `compile`, one step of `fit` moves all other weights."""
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [tf.keras.Input((5,)), layers.Dense(4, activation="tanh"), layers.Dense(3)]
    )
    model.layers[-2].trainable = False
    model.compile(optimizer="adam", loss="mse")
    before = model.get_weights()
    random = np.random.RandomState(15)
    inputs, aims = random.randn(8, 5).astype(np.float32), random.randn(8, 3).astype(np.float32)
    model.fit(inputs, aims, verbose=0)
    after = dict(zip(("k1", "b1", "k2", "b2"), model.get_weights(), strict=True))
    kept = dict(zip(("k1", "b1", "k2", "b2"), before, strict=True))
    assert [(after[name] != kept[name]).all() for name in after] == [False, False, True, True]
    assert all((after[name] == kept[name]).all() for name in ("k1", "b1"))


@pytest.mark.parametrize("l2", [0.0, 1e-5, 1e-3, 0.7])
def test_the_models_losses_are_its_l2_penalties(l2: float) -> None:
    """One penalty per penalised kernel, from its current weights; the output layer has none."""
    model = build_for(lenet5_recipe(l2=l2), seed=0)
    for seed in (16, 17):
        weights = draw_weights(seed)
        model.set_weights(weights)
        assert len(model.losses) == 4
        total = float(sum(float(loss) for loss in model.losses))
        assert total == pytest.approx(lenet5_penalty(weights, l2), rel=2e-6)


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.01), (0.01, 0.0), (0.3, 0.02)])
def test_regularisers_match_their_formulas(l1: float, l2: float) -> None:
    """Strength times the sum of squares, or of magnitudes; a name means a strength of 0.01."""
    kernel = np.random.RandomState(18).randn(40, 30).astype(np.float32)
    exact = kernel.astype(np.float64)
    expected = l1 * np.abs(exact).sum() + l2 * (exact**2).sum()
    regularizers = tf.keras.regularizers
    made: list[Any] = [regularizers.L1L2(l1=l1, l2=l2)]
    if l1 == 0.0:
        made += [regularizers.L2(l2), regularizers.get("l2")]
    if l2 == 0.0:
        made += [regularizers.L1(l1), regularizers.get("l1")]
    for regularizer in made:
        assert float(regularizer(tf.constant(kernel))) == pytest.approx(expected, rel=3e-6)


def _assert_uniform(kernel: np.ndarray, bound: float) -> None:
    """Asserts a uniform distribution by mean, variance, fourth moment and extremes."""
    values = kernel.ravel().astype(np.float64) / bound
    assert np.abs(values).max() <= 1 + 1e-6
    # The largest of n values is below 1 - 30 / n with probability exp(-15), beyond five sigma.
    for extreme in (values.max(), -values.min()):
        assert extreme >= 1 - 30 / values.size
    assert values.mean() == pytest.approx(0, abs=5 * np.sqrt(1 / 3 / values.size))
    for power, mean in ((2, 1 / 3), (4, 1 / 5)):
        error = np.sqrt((1 / (2 * power + 1) - mean**2) / values.size)
        assert (values**power).mean() == pytest.approx(mean, abs=5 * error)


def _assert_unlike(one: np.ndarray, other: np.ndarray) -> None:
    """Asserts no correlation over as many values as both have, in the order of drawing."""
    size = min(one.size, other.size)
    correlation = np.corrcoef(one.ravel()[:size], other.ravel()[:size])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(size)
