"""Evaluation counts every image; its statistics match hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lenet5.accuracy import describe_accuracy, wilson_interval
from lenet5.data import Subset
from lenet5.evaluation import Evaluation, evaluate
from lenet5.model import build_model


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    return build_model(seed=1)


@pytest.mark.parametrize(("images", "batch_size"), [(23, 5), (7, 500), (10, 5), (1, 1)])
def test_counts_are_over_all_images_also_of_a_small_last_batch(
    model: tf.keras.Model, images: int, batch_size: int
) -> None:
    """The label of the last image alone equals the model's prediction."""
    random = np.random.RandomState(images)
    pixels = random.randint(0, 256, (images, 28, 28, 1)).astype(np.uint8)
    predictions = model(pixels.astype(np.float32) / 255, training=False).numpy().argmax(axis=1)
    labels = (predictions + 1) % 10
    labels[-1] = predictions[-1]
    evaluation = evaluate(model, Subset(pixels, labels.astype(np.uint8)), batch_size)
    assert (evaluation.images, evaluation.errors) == (images, images - 1)
    assert evaluation.accuracy == 1 / images
    assert evaluation.wrong.tolist() == list(range(images - 1))
    assert evaluation.confusion.sum() == images


def test_probabilities_belong_to_normalised_images(model: tf.keras.Model) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (9, 28, 28, 1)).astype(np.uint8)
    evaluation = evaluate(model, Subset(pixels, np.zeros(9, np.uint8)), batch_size=4)
    expected = model(pixels.astype(np.float32) / 255, training=False).numpy()
    np.testing.assert_allclose(evaluation.probabilities, expected, atol=1e-6)


def test_all_images_correct() -> None:
    evaluation = answers([3, 1, 4], [3, 1, 4])
    assert (evaluation.errors, evaluation.accuracy, len(evaluation.wrong)) == (0, 1.0, 0)
    assert evaluation.interval[1] == 1.0
    assert evaluation.interval[0] < 1.0


def test_all_images_wrong() -> None:
    evaluation = answers([3, 1, 4], [5, 5, 5])
    assert (evaluation.errors, evaluation.accuracy) == (3, 0.0)
    assert evaluation.interval[0] == 0.0
    assert evaluation.confusion[3, 5] == evaluation.confusion[1, 5] == 1
    assert np.trace(evaluation.confusion) == 0


def test_confusion_has_true_digits_in_rows_and_predictions_in_columns() -> None:
    evaluation = answers([7, 7, 2], [1, 7, 2])
    assert evaluation.confusion.shape == (10, 10)
    assert evaluation.confusion[7, 1] == 1
    assert evaluation.confusion[1, 7] == 0
    assert evaluation.confusion[7, 7] == 1
    assert evaluation.confusion[2, 2] == 1


def test_loss_is_the_mean_cross_entropy_plus_the_penalty() -> None:
    evaluation = answers([0, 1], [0, 0], confidence=0.82, penalty=0.25)
    # The true class has 0.82 in the first image and (1 - 0.82) / 9 = 0.02 in the second.
    assert evaluation.loss == pytest.approx(-np.log([0.82, 0.02]).mean() + 0.25, rel=1e-6)


def test_loss_agrees_with_keras(model: tf.keras.Model) -> None:
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, (33, 28, 28, 1)).astype(np.uint8)
    labels = random.randint(0, 10, 33).astype(np.uint8)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = model.evaluate(
        pixels.astype(np.float32) / 255, labels.astype(np.int64), batch_size=8, verbose=0
    )
    evaluation = evaluate(model, Subset(pixels, labels), batch_size=8)
    assert evaluation.loss == pytest.approx(loss, rel=1e-5)
    assert evaluation.accuracy == pytest.approx(accuracy, rel=1e-6)


def test_roc_of_a_perfect_and_a_reversed_class() -> None:
    labels = np.array([0, 0, 1, 1], np.uint8)
    probabilities = np.zeros((4, 10), np.float32)
    probabilities[:, 0] = [0.9, 0.8, 0.2, 0.1]  # ranks every 0 above every 1
    probabilities[:, 1] = [0.8, 0.7, 0.2, 0.1]  # ranks every 1 below every 0
    curves = Evaluation(labels, probabilities, penalty=0.0).roc_curves
    assert curves[0] is not None
    assert curves[1] is not None
    assert curves[0].auc == 1.0
    assert curves[1].auc == 0.0
    assert curves[0].false_positive_rate[[0, -1]].tolist() == [0, 1]


def test_auc_is_the_share_of_correctly_ordered_pairs() -> None:
    """Hanley and McNeil 1982: AUC is the probability that a positive outranks a negative."""
    random = np.random.RandomState(2)
    labels = random.randint(0, 10, 200).astype(np.uint8)
    scores = random.dirichlet(np.ones(10), 200).astype(np.float32)
    curve = Evaluation(labels, scores, penalty=0.0).roc_curves[4]
    positive, negative = scores[labels == 4, 4], scores[labels != 4, 4]
    assert curve is not None
    assert curve.auc == pytest.approx((positive[:, None] > negative).mean(), abs=1e-9)


def test_a_class_without_images_has_no_curve() -> None:
    curves = answers([3, 1, 4], [3, 1, 4]).roc_curves
    assert [digit for digit, curve in enumerate(curves) if curve is not None] == [1, 3, 4]


def test_wilson_interval_matches_a_published_example() -> None:
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662, 15 of 148 0.0624 to 0.1605."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_accuracy_is_described_with_its_counts() -> None:
    described = describe_accuracy(148, 10_000, wilson_interval(9852, 10_000))
    assert described == "98.52 % (148 wrong of 10,000; 95 % interval 98.26-98.74 %)"


def answers(
    labels: list[int], predictions: list[int], confidence: float = 0.91, penalty: float = 0.0
) -> Evaluation:
    """Returns an evaluation with the same confidence in each prediction."""
    probabilities = np.full((len(labels), 10), (1 - confidence) / 9, np.float32)
    probabilities[np.arange(len(labels)), predictions] = confidence
    return Evaluation(np.array(labels, np.uint8), probabilities, penalty)
