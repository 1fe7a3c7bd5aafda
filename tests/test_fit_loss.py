"""The loss in `fit`, validation and `evaluate` is cross-entropy plus L2, by NumPy.

A rate of almost 0 keeps the weights constant, so that an epoch's loss is that of one model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lenet5.data import Subset, normalise
from lenet5.keras_engine import targets
from tests.fitting import (
    CLASSES,
    Recorder,
    build_lenet5,
    build_regression,
    cross_entropies,
    descend,
    draw_features,
    draw_images,
    draw_weights,
    fit_batches,
    lenet5_losses,
    lenet5_penalty,
    lenet5_recipe,
    one_hot,
    regression_gradients,
    regression_probabilities,
    split,
)

_L2 = 0.1
_SMOOTHING = 0.2


@pytest.fixture(scope="module", params=[0.0, _SMOOTHING], ids=["sparse", "smoothed"])
def smoothing(request: pytest.FixtureRequest) -> float:
    return float(request.param)


@pytest.fixture(scope="module")
def lenet5(smoothing: float) -> tf.keras.Model:
    """LeNet-5 compiled by the engine, with a rate too small to change any weight."""
    recipe = lenet5_recipe(learning_rate=1e-30, label_smoothing=smoothing, l2=0.01, batch_size=8)
    return build_lenet5(recipe, 10, draw_weights(33, scale=1.5))


def test_fit_and_its_validation_report_the_mean_over_all_images(
    lenet5: tf.keras.Model, smoothing: float
) -> None:
    """Every image counts once, also in a smaller last batch; the penalty counts once."""
    images, labels = draw_images(19, seed=34)
    others, other_labels = draw_images(13, seed=35)
    recipe = lenet5_recipe(label_smoothing=smoothing, batch_size=8)
    weights = lenet5.get_weights()
    history = lenet5.fit(
        images,
        targets(recipe, labels),
        batch_size=8,
        epochs=2,
        validation_data=(others, targets(recipe, other_labels)),
        validation_batch_size=5,
        verbose=0,
    ).history
    for name, inputs, truth in (("loss", images, labels), ("val_loss", others, other_labels)):
        losses = lenet5_losses(weights, inputs, one_hot(truth, 10, smoothing))
        _assert_weights_of_batches_matter(losses, 8 if name == "loss" else 5)
        expected = losses.mean() + lenet5_penalty(weights, 0.01)
        assert history[name] == pytest.approx([expected] * 2, rel=2e-6)


def test_evaluate_reports_the_mean_over_all_images(
    lenet5: tf.keras.Model, smoothing: float
) -> None:
    """The result does not depend on the batch size."""
    images, labels = draw_images(19, seed=34)
    given = targets(lenet5_recipe(label_smoothing=smoothing), labels)
    weights = lenet5.get_weights()
    losses = lenet5_losses(weights, images, one_hot(labels, 10, smoothing))
    expected = losses.mean() + lenet5_penalty(weights, 0.01)
    for size in (8, 19, 64):
        told = lenet5.evaluate(images, given, batch_size=size, verbose=0, return_dict=True)
        assert told["loss"] == pytest.approx(expected, rel=2e-6)


def test_the_engines_batches_contain_every_image_once(
    lenet5: tf.keras.Model, smoothing: float
) -> None:
    """With shuffled `tf.data` batches, the epoch's loss is the mean over the subset."""
    random = np.random.RandomState(36)
    subset = Subset(random.randint(0, 256, (19, 28, 28, 1)).astype(np.uint8), np.arange(19) % 10)
    recipe = lenet5_recipe(label_smoothing=smoothing, batch_size=8)
    weights = lenet5.get_weights()
    history = fit_batches(lenet5, recipe, subset, seed=3, epochs=2)
    truth = one_hot(subset.labels, 10, smoothing)
    expected = lenet5_losses(weights, normalise(subset.images), truth).mean()
    expected += lenet5_penalty(weights, 0.01)
    assert history["loss"] == pytest.approx([expected] * 2, rel=2e-6)


def _losses() -> dict[str, tuple[Callable[[], Any], bool, float, bool]]:
    """Returns, by name, the loss's factory, whether labels are one-hot, smoothing, and logits."""
    losses = tf.keras.losses
    sparse, dense = losses.SparseCategoricalCrossentropy, losses.CategoricalCrossentropy
    return {
        "sparse string": (lambda: "sparse_categorical_crossentropy", False, 0.0, False),
        "sparse object": (sparse, False, 0.0, False),
        "sparse function": (lambda: losses.sparse_categorical_crossentropy, False, 0.0, False),
        "sparse logits": (lambda: sparse(from_logits=True), False, 0.0, True),
        "one-hot string": (lambda: "categorical_crossentropy", True, 0.0, False),
        "one-hot object": (dense, True, 0.0, False),
        "smoothed": (lambda: dense(label_smoothing=_SMOOTHING), True, _SMOOTHING, False),
        "smoothed logits": (
            lambda: dense(from_logits=True, label_smoothing=_SMOOTHING),
            *(True, _SMOOTHING, True),
        ),
    }


@pytest.mark.parametrize(
    ("make", "is_one_hot", "share", "logits"), _losses().values(), ids=list(_losses())
)
def test_every_form_of_the_loss_in_compile(
    make: Callable[[], Any], is_one_hot: bool, share: float, logits: bool
) -> None:
    """String, function and object, for both kinds of labels; `fit`, validation, `evaluate`."""
    features, labels = draw_features(27, seed=37)
    model = build_regression(l2=_L2, activation="linear" if logits else "softmax")
    weights = model.get_weights()
    model.compile(optimizer=tf.keras.optimizers.SGD(0.0), loss=make())
    given = one_hot(labels, CLASSES).astype(np.float32) if is_one_hot else labels
    probabilities = regression_probabilities(weights, features)
    losses = cross_entropies(probabilities, one_hot(labels, CLASSES, share))
    _assert_weights_of_batches_matter(losses, 8)
    expected = pytest.approx(losses.mean() + _penalty(weights), rel=2e-6)
    history = model.fit(
        features, given, batch_size=8, validation_data=(features, given), verbose=0
    ).history
    assert history["loss"] == [expected]
    assert history["val_loss"] == [expected]
    assert model.evaluate(features, given, batch_size=10, verbose=0) == expected
    assert model.train_on_batch(features, given) == expected
    assert model.test_on_batch(features, given) == expected


def test_an_epochs_loss_uses_the_weights_before_each_step() -> None:
    """A step reports the running mean over the images so far; each epoch starts anew."""
    features, labels = draw_features(22, seed=38)
    model = build_regression(l2=_L2)
    weights = model.get_weights()
    model.compile(optimizer=tf.keras.optimizers.SGD(0.5), loss="sparse_categorical_crossentropy")
    recorder = Recorder()
    history = model.fit(
        *(features, labels),
        batch_size=5,
        epochs=3,
        shuffle=False,
        callbacks=[recorder],
        verbose=0,
    ).history
    given = list(split(features, one_hot(labels, CLASSES), 5, epochs=3))
    after = list(descend(weights, iter(given), regression_gradients(_L2), 0.5))
    total, images, means = 0.0, 0, []
    for step, (before, (batch, truth)) in enumerate(
        zip([weights, *after[:-1]], given, strict=True)
    ):
        if step % 5 == 0:
            total, images = 0.0, 0
        losses = cross_entropies(regression_probabilities(before, batch), truth)
        total += losses.sum() + len(batch) * _penalty(before)
        images += len(batch)
        means.append(total / images)
    assert [logs["loss"] for logs in recorder.step_logs] == pytest.approx(means, rel=1e-5)
    assert history["loss"] == pytest.approx(means[4::5], rel=1e-5)


def test_sample_and_class_weights_scale_the_loss() -> None:
    """For one batch: sum of weight times loss over the number of images, plus the penalty."""
    features, labels = draw_features(16, seed=39)
    model = build_regression(l2=_L2)
    weights = model.get_weights()
    model.compile(optimizer=tf.keras.optimizers.SGD(0.5), loss="sparse_categorical_crossentropy")
    truth = one_hot(labels, CLASSES)
    losses = cross_entropies(regression_probabilities(weights, features), truth)
    of_images = np.linspace(0, 2, 16).astype(np.float32)
    of_classes = {0: 0.5, 1: 2.0, 2: 0.0, 3: 1.5}
    for shares, options in (
        (of_images, {"sample_weight": of_images}),
        (np.array([of_classes[int(label)] for label in labels]), {"class_weight": of_classes}),
    ):
        model.set_weights(weights)
        model.fit(features, labels, batch_size=16, verbose=0, **options)
        grads = [
            regression_gradients(0.0)(weights, features[[i]], truth[[i]])[0] for i in range(16)
        ]
        exact = np.tensordot(shares, grads, 1) / 16 + 2 * _L2 * weights[0]
        moved = weights[0] - model.get_weights()[0]
        np.testing.assert_allclose(moved, 0.5 * exact, rtol=0, atol=1e-5)
    told = model.evaluate(features, labels, sample_weight=0 * of_images, batch_size=16, verbose=0)
    assert told == pytest.approx(_penalty(model.get_weights()), rel=1e-5)
    assert losses.max() > 2 * losses.min()


def test_loss_objects_agree_with_numpy() -> None:
    """Loss of every image, with mean and sum; a probability of 0 has a finite loss."""
    losses = tf.keras.losses
    labels = np.array([0, 2, 1, 3], np.int32)
    random = np.random.RandomState(40)
    logits = 3 * random.randn(4, CLASSES)
    powers = np.exp(logits)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    truth = one_hot(labels, CLASSES)
    for make, given, smoothing in (
        (losses.SparseCategoricalCrossentropy, labels, {}),
        (losses.CategoricalCrossentropy, truth.astype(np.float32), {}),
        (losses.CategoricalCrossentropy, truth.astype(np.float32), {"label_smoothing": 0.3}),
    ):
        exact = cross_entropies(probabilities, one_hot(labels, CLASSES, sum(smoothing.values())))
        for reduction, expected in (
            *(("none", exact), ("sum", exact.sum())),
            ("sum_over_batch_size", exact.mean()),
        ):
            for outputs, is_logits in ((probabilities, False), (logits, True)):
                loss = make(reduction=reduction, from_logits=is_logits, **smoothing)
                told = loss(given, tf.constant(outputs, tf.float32))
                np.testing.assert_allclose(told, expected, rtol=3e-6, atol=1e-7)
    certain = np.eye(CLASSES, dtype=np.float32)
    right = losses.SparseCategoricalCrossentropy()(np.arange(4), certain)
    wrong = losses.SparseCategoricalCrossentropy()((np.arange(4) + 1) % 4, certain)
    assert float(right) == pytest.approx(0.0, abs=1e-6)
    assert float(wrong) == pytest.approx(-np.log(1e-7), rel=1e-2)
    far = losses.SparseCategoricalCrossentropy(from_logits=True)(
        np.array([0, 1]), np.array([[200.0, 0.0]] * 2, np.float32)
    )
    assert float(far) == pytest.approx(100.0)


def _penalty(weights: list[np.ndarray]) -> float:
    return float(_L2 * (weights[0].astype(np.float64) ** 2).sum())


def _assert_weights_of_batches_matter(losses: np.ndarray, size: int) -> None:
    """Asserts that the mean of batch means differs from the mean over the images."""
    means = [losses[first : first + size].mean() for first in range(0, len(losses), size)]
    assert abs(np.mean(means) / losses.mean() - 1) > 5e-3
