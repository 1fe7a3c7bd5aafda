"""The data are the same in every process and version; split, size and range are correct."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from lenet5 import data
from lenet5.data import Dataset, Subset
from lenet5.errors import InputError

MNIST_SHA256 = {
    "training_images": "a5ae218254998c3b347efd63453a02dfb647a9e5bef12192e3e1532fcb7c946f",
    "training_labels": "42527caa8e2cf914b474a2acf0afb1b8d3ad8cdb8230414c3cc846f895de7d10",
    "validation_images": "a6161632150aedccb67f0f9b7efa4248e8030793031cd237b182af4f7ba12eff",
    "validation_labels": "3dc2dd477d118c497983585deaef5ce9f9e3d4dd158f3e6ed4387476fd403816",
    "test_images": "a85d8dffc6063fb89dcbc2122651701e7bbc18837f940fc9d76df48c224558ca",
    "test_labels": "927a9033bdc84a359f1400c691c7eaa8ab1838a0d81e3cc55ed2b4a1dfe95e69",
}
# Of the sorted (image, label) pairs of the original files.
ORIGINAL_TRAINING_SHA256 = "386a0fff07efe9ae3f934853780556ca1fe630371d4964508a3e3256c2063b0e"
ORIGINAL_TEST_SHA256 = "292a2c8e9008782f6c6c94df46012a17c808c2666413d175e62502bbcf68dd61"
TRAINING_CLASSES = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_CLASSES = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
DIGITS_SHA256 = {
    "training_images": "b22ed62658c074847818b53a2ced8a1c12965d62d6c44e1e85c501803e6a6d8d",
    "training_labels": "56e61fb008accbeb76a6896201c84ea3db332def4bfa388625715b640e1d03d0",
    "validation_images": "0bf9d0b03507db572ab773734633c49ecb92b791430482a75f6dd5986765586d",
    "validation_labels": "b0ca7e036730387b2ce1d18be716cfa744b22f42eef73d0c02613368c79087af",
    "test_images": "629c892616db3a99ec58255c75e1070829948c1695570415eab32fae758487ab",
    "test_labels": "69885e8811db70465904943972b7324df396ceffa420cde3e8f3db5e7440dec9",
}


def parts(dataset: Dataset) -> dict[str, Subset]:
    return {part: getattr(dataset, part) for part in ("training", "validation", "test")}


def digests(dataset: Dataset) -> dict[str, str]:
    arrays = {
        f"{part}_{kind}": getattr(subset, kind)
        for part, subset in parts(dataset).items()
        for kind in ("images", "labels")
    }
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}


def pairs(*subsets: Subset) -> list[bytes]:
    """Returns image and label of every item as bytes, sorted."""
    return sorted(
        image.tobytes() + label.tobytes()
        for subset in subsets
        for image, label in zip(subset.images, subset.labels, strict=True)
    )


def classes(subset: Subset) -> list[int]:
    return [int(count) for count in np.bincount(subset.labels, minlength=10)]


# The real MNIST


def test_mnist_is_the_same_in_every_version(mnist: Dataset) -> None:
    assert digests(mnist) == MNIST_SHA256


def test_mnist_sizes_types_and_range(mnist: Dataset) -> None:
    sizes = {part: len(subset.labels) for part, subset in parts(mnist).items()}
    assert sizes == {"training": 55_000, "validation": 5_000, "test": 10_000}
    for subset in parts(mnist).values():
        assert subset.images.shape == (len(subset.labels), 28, 28, 1)
        assert subset.images.dtype == subset.labels.dtype == np.uint8
        assert (subset.images.min(), subset.images.max()) == (0, 255)
        assert set(subset.labels.tolist()) == set(range(10))


def test_mnist_validation_has_500_of_every_class_and_the_rest_is_training(mnist: Dataset) -> None:
    assert classes(mnist.validation) == [500] * 10
    assert classes(mnist.training) == [count - 500 for count in TRAINING_CLASSES]
    assert classes(mnist.test) == TEST_CLASSES


def test_mnist_training_and_validation_form_the_original_training_set(mnist: Dataset) -> None:
    """Each of the 60,000 original images occurs once, with its label."""
    items = pairs(mnist.training, mnist.validation)
    assert hashlib.sha256(b"".join(items)).hexdigest() == ORIGINAL_TRAINING_SHA256


def test_mnist_test_set_is_the_original_test_set(mnist: Dataset) -> None:
    assert hashlib.sha256(b"".join(pairs(mnist.test))).hexdigest() == ORIGINAL_TEST_SHA256


def test_mnist_parts_are_disjoint(mnist: Dataset) -> None:
    """MNIST has no duplicates, so the parts have 70,000 different images."""
    images = {image.tobytes() for subset in parts(mnist).values() for image in subset.images}
    assert len(images) == 70_000


def test_mnist_is_mapped_read_only(mnist: Dataset) -> None:
    for subset in parts(mnist).values():
        for array in (subset.images, subset.labels):
            assert isinstance(array, np.memmap)
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1


# Normalisation and split


def test_normalised_images_are_float32_from_0_to_1() -> None:
    values = np.arange(256, dtype=np.uint8)
    normalised = data.normalise(values)
    assert normalised.dtype == np.float32
    assert (normalised[0], normalised[255]) == (0, 1)
    np.testing.assert_allclose(normalised, np.arange(256) / 255, rtol=1e-7)


def test_normalising_does_not_change_the_stored_images() -> None:
    values = np.full((2, 28, 28, 1), 255, np.uint8)
    data.normalise(values)
    assert values.max() == 255


def test_split_draws_the_same_number_of_every_class() -> None:
    labels = np.repeat(np.arange(10), np.arange(5, 15))
    mask = data.split_mask(labels, 4, seed=1)
    assert mask.dtype == bool
    assert np.bincount(labels[mask]).tolist() == [4] * 10


def test_split_never_changes() -> None:
    """RandomState's stream is frozen in every NumPy; these are its draws."""
    mask = data.split_mask(np.arange(60) % 10, 2, seed=5)
    drawn = [3, 4, 5, 8, 9, 11, 17, 20, 22, 32, 34, 35, 36, 37, 46, 50, 51, 53, 58, 59]
    assert np.flatnonzero(mask).tolist() == drawn


def test_split_depends_only_on_the_seed() -> None:
    labels = np.arange(100) % 10
    np.random.seed(0)
    first = data.split_mask(labels, 3, seed=7)
    np.random.seed(1)
    np.testing.assert_array_equal(data.split_mask(labels, 3, seed=7), first)
    assert (data.split_mask(labels, 3, seed=8) != first).any()


# The built-in digits


def test_digits_are_the_same_in_every_version(digits: Dataset) -> None:
    assert digests(digits) == DIGITS_SHA256


def test_digits_split(digits: Dataset) -> None:
    """1,797 different images: 30 per class for test, 20 for validation, the rest for training."""
    assert classes(digits.test) == [30] * 10
    assert classes(digits.validation) == [20] * 10
    assert len(digits.training.labels) == 1_297
    images = {image.tobytes() for subset in parts(digits).values() for image in subset.images}
    assert len(images) == 1_797


def test_digits_have_the_form_of_mnist(digits: Dataset) -> None:
    for subset in parts(digits).values():
        assert subset.images.shape[1:] == (28, 28, 1)
        assert subset.images.dtype == subset.labels.dtype == np.uint8
        assert (subset.images.min(), subset.images.max()) == (0, 255)
        assert np.median(subset.images) < 64  # light on dark


# Dataset


def test_an_unknown_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown dataset 'cifar': choose one of mnist, digits"):
        data.load_dataset("cifar", data_dir=tmp_path)


def test_an_invalid_mnist_folder_is_refused_before_preparation(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: missing files: "):
        data.load_dataset("mnist", data_dir=tmp_path / "data", mnist_dir=tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())
