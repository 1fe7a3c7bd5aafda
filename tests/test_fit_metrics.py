"""The accuracy in `fit`, validation and `evaluate` is the share of correct images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench.verdicts import numpy_lenet5
from bench.verdicts.numpy_lenet5 import Weights
from lenet5.data import Subset, normalise
from lenet5.keras_engine import targets
from tests.fitting import (
    CLASSES,
    Recorder,
    build_lenet5,
    build_regression,
    descend,
    draw_features,
    draw_images,
    draw_weights,
    fit_batches,
    lenet5_recipe,
    one_hot,
    regression_gradients,
    regression_probabilities,
    split,
)

_METRICS = [  # name for `compile`, `object` for an object of this name; whether labels are integers
    *(("accuracy", True), ("acc", True), ("sparse_categorical_accuracy", True), ("object", True)),
    *(("accuracy", False), ("categorical_accuracy", False), ("object", False)),
]
_BATCH = 8


@pytest.fixture(scope="module", params=[0.0, 0.1], ids=["sparse", "one-hot"])
def smoothing(request: pytest.FixtureRequest) -> float:
    return float(request.param)


@pytest.fixture(scope="module")
def lenet5(smoothing: float) -> tf.keras.Model:
    """LeNet-5 compiled by the engine, with a rate too small to change any weight."""
    recipe = lenet5_recipe(learning_rate=1e-30, label_smoothing=smoothing, batch_size=_BATCH)
    return build_lenet5(recipe, 10, draw_weights(41, scale=1.5))


def test_fit_and_its_validation_count_right_images(
    lenet5: tf.keras.Model, smoothing: float
) -> None:
    """Counts are correct over batches of unequal sizes, and in both epochs."""
    weights = lenet5.get_weights()
    images, labels = _images_with_rights(weights, 27, batch=_BATCH, seed=42)
    others, other_labels = _images_with_rights(weights, 13, batch=5, seed=43)
    recipe = lenet5_recipe(label_smoothing=smoothing)
    history = lenet5.fit(
        images,
        targets(recipe, labels),
        batch_size=_BATCH,
        epochs=2,
        validation_data=(others, targets(recipe, other_labels)),
        validation_batch_size=5,
        verbose=0,
    ).history
    for name, inputs, truth in (
        ("accuracy", images, labels),
        ("val_accuracy", others, other_labels),
    ):
        right = _rights(weights, inputs, truth).sum()
        assert 0 < right < len(truth)
        assert history[name] == pytest.approx([right / len(truth)] * 2, abs=1e-6)


def test_evaluate_counts_correct_images(lenet5: tf.keras.Model, smoothing: float) -> None:
    """The result does not depend on the batch size or on earlier calls."""
    weights = lenet5.get_weights()
    images, labels = _images_with_rights(weights, 27, batch=_BATCH, seed=44)
    given = targets(lenet5_recipe(label_smoothing=smoothing), labels)
    expected = _rights(weights, images, labels).sum() / 27
    for size in (_BATCH, 27, 1000):
        told = lenet5.evaluate(images, given, batch_size=size, verbose=0, return_dict=True)
        assert told["accuracy"] == pytest.approx(expected, abs=1e-6)
    half = lenet5.evaluate(images[:9], given[:9], batch_size=_BATCH, verbose=0, return_dict=True)
    expected = _rights(weights, images[:9], labels[:9]).sum() / 9
    assert half["accuracy"] == pytest.approx(expected, abs=1e-6)


def test_the_engines_batches_count_every_image_once(
    lenet5: tf.keras.Model, smoothing: float
) -> None:
    random = np.random.RandomState(45)
    pixels = random.randint(0, 256, (27, 28, 28, 1)).astype(np.uint8)
    weights = lenet5.get_weights()
    labels = numpy_lenet5.forward(weights, normalise(pixels)).probabilities.argmax(axis=1)
    labels[[1, 5, 6, 20, 26]] = (labels[[1, 5, 6, 20, 26]] + 1) % 10
    recipe = lenet5_recipe(label_smoothing=smoothing, batch_size=_BATCH)
    subset = Subset(pixels, labels.astype(np.uint8))
    history = fit_batches(lenet5, recipe, subset, seed=1, epochs=2)
    assert history["accuracy"] == pytest.approx([22 / 27] * 2, abs=1e-6)


@pytest.mark.parametrize(("metric", "sparse"), _METRICS)
def test_every_form_of_the_accuracy_metric(metric: str, sparse: bool) -> None:
    """Names and objects, for both kinds of labels, during training of the weights."""
    features, labels = draw_features(27, seed=46)
    kind = "SparseCategoricalAccuracy" if sparse else "CategoricalAccuracy"
    asked: Any = metric
    if metric == "object":
        asked = getattr(tf.keras.metrics, kind)(name=metric)
    model = build_regression()
    weights = model.get_weights()
    loss = f"{'sparse_' if sparse else ''}categorical_crossentropy"
    model.compile(optimizer=tf.keras.optimizers.SGD(2.0), loss=loss, metrics=[asked])
    truth = one_hot(labels, CLASSES)
    given = labels if sparse else truth.astype(np.float32)
    recorder = Recorder()
    history = model.fit(
        *(features, given),
        batch_size=_BATCH,
        epochs=3,
        shuffle=False,
        validation_data=(features, given),
        callbacks=[recorder],
        verbose=0,
    ).history
    given_batches = list(split(features, truth, _BATCH, epochs=3))
    after = list(descend(weights, iter(given_batches), regression_gradients(0.0), 2.0))
    shares, right, seen = [], 0, 0
    for step, (before, (batch, aims)) in enumerate(
        zip([weights, *after[:-1]], given_batches, strict=True)
    ):
        if step % 4 == 0:
            right = seen = 0
        right += int(_regression_rights(before, batch, aims).sum())
        seen += len(batch)
        shares.append(right / seen)
    assert len(set(shares[3::4])) > 1  # otherwise a metric without reset would pass
    told = [logs[metric] for logs in recorder.step_logs]
    assert told == pytest.approx(shares, abs=1e-6)
    assert history[metric] == pytest.approx(shares[3::4], abs=1e-6)
    validated = [_regression_rights(after[step], features, truth).mean() for step in (3, 7, 11)]
    assert history[f"val_{metric}"] == pytest.approx(validated, abs=1e-6)


def test_accuracy_objects_accumulate_and_reset() -> None:
    """`update_state`, `result` and `reset_state`, with unequal batches and with weights."""
    outputs = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1, 2]] + 0.1
    labels = np.array([0, 1, 0, 0, 0, 2, 2])
    for metric, given in (
        (tf.keras.metrics.SparseCategoricalAccuracy(), labels),
        (tf.keras.metrics.CategoricalAccuracy(), np.eye(4, dtype=np.float32)[labels]),
    ):
        metric.update_state(given[:5], outputs[:5])
        assert float(metric.result()) == pytest.approx(3 / 5)
        metric.update_state(given[5:], outputs[5:])
        assert float(metric.result()) == pytest.approx(4 / 7)
        metric.reset_state()
        metric.update_state(given[5:], outputs[5:], sample_weight=np.array([3.0, 1.0]))
        assert float(metric.result()) == pytest.approx(1 / 4)
    mean = tf.keras.metrics.Mean()
    mean.update_state([1.0, 2.0, 6.0])
    mean.update_state(11.0, sample_weight=2.0)
    assert float(mean.result()) == pytest.approx(31 / 5)


def _images_with_rights(
    weights: Weights, count: int, *, batch: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images with correct labels in the first batches and wrong ones in the last."""
    images, labels = draw_images(count, seed)
    found = numpy_lenet5.forward(weights, images).probabilities.argmax(axis=1)
    last = (count - 1) // batch * batch
    labels[: last - 2] = found[: last - 2]
    labels[last - 2 :] = (found[last - 2 :] + 1) % 10
    return images, labels


def _rights(weights: Weights, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return _surely_right(numpy_lenet5.forward(weights, images).probabilities, labels)


def _regression_rights(weights: Weights, features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return _surely_right(regression_probabilities(weights, features), truth.argmax(axis=1))


def _surely_right(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each prediction is correct, by a margin above float32 rounding."""
    ordered = np.sort(probabilities, axis=1)
    assert (ordered[:, -1] - ordered[:, -2]).min() > 1e-4
    return np.asarray(probabilities.argmax(axis=1) == labels)
