"""Labels of environments are short, unique, and show the differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bench.environments.labels import (
    Modules,
    is_for_cpus_only,
    labels,
    modules_of,
    tensorflow_version,
)

OLD = ("keras==3.4.1", "numpy==1.26.4", "tensorflow-cpu==2.20.0")
NEW = ("keras==3.15.1", "numpy==2.4.6", "tensorflow-cpu==2.21.0", "tf-keras==2.21.0")
OTHER_KERAS = ("keras==3.4.1", *NEW[1:])
NIGHTLY = ("keras-nightly==3.16.0.dev1", "tf-nightly==2.23.0.dev1")
SAME_KERAS = (NEW[0], *OLD[1:])
BEFORE_KERAS_3 = ("keras==2.15.0", "numpy==1.26.4", "tensorflow-cpu==2.15.1")
KERAS_WHEEL = (f"keras-nightly==3.16.0 @ sha256:{'5e6f7a8b' * 8}", *NEW[1:])
CUDA = ("nvidia-cuda-runtime-cu12==12.9.79", "nvidia-cudnn-cu12==9.28.0.42")
FOR_GPUS = ("keras==3.15.1", "tensorflow==2.21.0")
WHEEL = (*NEW[:2], f"tensorflow-cpu==2.21.0 @ sha256:{'1a2b3c4d' * 8}", NEW[3])


@pytest.mark.parametrize(
    ("locks", "settings", "names"),
    [
        (
            [OLD, NEW, NIGHTLY],
            {},
            ["2.20.0 + Keras 3.4.1", "2.21.0 + Keras 3.15.1", "2.23.0.dev1 + Keras 3.16.0.dev1"],
        ),
        ([SAME_KERAS, NEW], {}, ["2.20.0", "2.21.0"]),
        ([NEW, BEFORE_KERAS_3], {}, ["2.21.0 + Keras 3.15.1", "2.15.1"]),
        ([BEFORE_KERAS_3, NEW], {}, ["2.15.1", "2.21.0 + Keras 3.15.1"]),
        ([BEFORE_KERAS_3, BEFORE_KERAS_3[1:]], {}, ["2.15.1 + Keras 2.15.0", "2.15.1"]),
        ([NEW, OTHER_KERAS], {}, ["2.21.0 + Keras 3.15.1", "2.21.0 + Keras 3.4.1"]),
        (
            [SAME_KERAS, NEW, OTHER_KERAS],
            {},
            ["2.20.0 + Keras 3.15.1", "2.21.0 + Keras 3.15.1", "2.21.0 + Keras 3.4.1"],
        ),
        (
            [NEW, NEW],
            {1: {"TF_USE_LEGACY_KERAS": "1"}},
            ["2.21.0 + Keras 3.15.1", "2.21.0 + tf-keras 2.21.0"],
        ),
        (
            [NEW, NEW],
            {1: {"TF_ENABLE_ONEDNN_OPTS": "0"}},
            ["2.21.0", "2.21.0 TF_ENABLE_ONEDNN_OPTS=0"],
        ),
        ([SAME_KERAS, NEW], {0: {"TF_A": "1"}, 1: {"TF_A": "2"}}, ["2.20.0", "2.21.0"]),
        (
            [SAME_KERAS, NEW],
            {1: {"TF_USE_LEGACY_KERAS": "True"}},
            ["2.20.0 + Keras 3.15.1", "2.21.0 + tf-keras 2.21.0"],
        ),
        (
            [NEW, NEW],
            {0: {"TF_A": "1", "TF_B": "1"}, 1: {"TF_A": "1", "TF_B": "2"}},
            ["2.21.0 TF_B=1", "2.21.0 TF_B=2"],
        ),
        (
            [NEW, OTHER_KERAS],
            {1: {"TF_A": "1"}},
            ["2.21.0 + Keras 3.15.1", "2.21.0 + Keras 3.4.1 TF_A=1"],
        ),
        ([NEW, WHEEL], {}, ["2.21.0", "2.21.0 (wheel 1a2b3c4)"]),
        (
            [NEW, KERAS_WHEEL],
            {},
            ["2.21.0 + Keras 3.15.1", "2.21.0 + Keras 3.16.0 (wheel 5e6f7a8)"],
        ),
        (
            [("keras==3.15.1", "tensorflow==2.21.0"), ("keras==3.15.1", "tensorflow-cpu==2.21.0")],
            {},
            ["2.21.0 (tensorflow)", "2.21.0 (tensorflow-cpu)"],
        ),
        (
            [NEW, ("keras==3.15.1", "numpy==1.26.4", *NEW[2:])],
            {},
            ["2.21.0 + numpy 2.4.6", "2.21.0 + numpy 1.26.4"],
        ),
        (
            [(*NEW, "a==1", "b==1", "c==1"), (*NEW, "a==1", "b==2"), (*NEW, "a==2", "b==1")],
            {},
            ["2.21.0 + a 1 + b 1 and 1 more", "2.21.0 + a 1 + b 2", "2.21.0 + a 2 + b 1"],
        ),
        (
            [
                (*NEW, "a==1", "b==1", "c==1"),
                (*NEW, "a==1", "b==1", "c==2"),
                (*NEW, "a==2", "b==2"),
            ],
            {},
            [
                "2.21.0 + a 1 + b 1 and 1 more",
                "2.21.0 + a 1 + b 1 and 1 more (2)",
                "2.21.0 + a 2 + b 2",
            ],
        ),
        ([FOR_GPUS, (*CUDA, *FOR_GPUS)], {}, ["2.21.0", "2.21.0 + CUDA 12.9.79"]),  # [and-cuda]
        ([(*CUDA, *FOR_GPUS), FOR_GPUS], {}, ["2.21.0 + CUDA 12.9.79", "2.21.0"]),
        (
            [(*CUDA, *FOR_GPUS), ("nvidia-cuda-runtime==13.0.96", *FOR_GPUS)],
            {},
            ["2.21.0 + CUDA 12.9.79", "2.21.0 + CUDA 13.0.96"],
        ),
        (
            [(*CUDA, "keras==3.15.1", "tensorflow==2.20.0"), (*CUDA, *FOR_GPUS)],
            {},
            ["2.20.0", "2.21.0"],
        ),
        ([FOR_GPUS, (*FOR_GPUS, "helper==1")], {}, ["2.21.0", "2.21.0 + helper 1"]),  # any extra
        ([NEW, NEW, NEW], {}, ["2.21.0", "2.21.0 again", "2.21.0 again (2)"]),
        (
            [NEW, OTHER_KERAS, OTHER_KERAS],
            {},
            ["2.21.0 + Keras 3.15.1", "2.21.0 + Keras 3.4.1", "2.21.0 + Keras 3.4.1 again"],
        ),
        ([NEW, ()], {}, ["2.21.0", "not built"]),
        ([("numpy==1.26.4",)], {}, ["unknown TensorFlow"]),
        ([], {}, []),
    ],
)
def test_labels_show_the_differences(
    locks: list[tuple[str, ...]], settings: dict[int, dict[str, str]], names: list[str]
) -> None:
    assert labels(locks, [settings.get(place, {}) for place in range(len(locks))]) == names


def test_labels_distinguish_python_versions() -> None:
    expected = ["2.21.0 + Python 3.11.7", "2.21.0 + Python 3.12.1"]
    assert labels([NEW, NEW], [{}, {}], ["3.11.7", "3.12.1"]) == expected


CANDIDATE = {"tensorflow": "2.22.0-rc0", "keras": "3.16.0.dev2026102704", "keras_package": "keras"}
LEGACY = {"tensorflow": "2.21.0", "keras": "2.21.0", "keras_package": "tf_keras"}


@pytest.mark.parametrize(
    ("lock", "settings", "versions", "expected"),
    [
        # Versions reported by a process take precedence over the lock.
        (NEW, {}, CANDIDATE, Modules("2.22.0rc0", "3.16.0.dev2026102704", "keras")),
        (("numpy==2.4.6",), {}, CANDIDATE, Modules("2.22.0rc0", "3.16.0.dev2026102704", "keras")),
        (NEW, {"TF_USE_LEGACY_KERAS": "1"}, LEGACY, Modules("2.21.0", "2.21.0", "tf_keras")),
        # A TensorFlow that ignores the variable reports `keras`.
        (
            NEW,
            {"TF_USE_LEGACY_KERAS": "1"},
            CANDIDATE,
            Modules("2.22.0rc0", CANDIDATE["keras"], "keras"),
        ),
        (NEW, {}, {"tensorflow": "a fork's own"}, Modules("a fork's own", "3.15.1", "keras")),
        # Without a report, the lock gives the versions.
        (NEW, {}, {}, Modules("2.21.0", "3.15.1", "keras")),
        (NEW, {"TF_USE_LEGACY_KERAS": "1"}, {}, Modules("2.21.0", "2.21.0", "tf_keras")),
        (OLD, {"TF_USE_LEGACY_KERAS": "1"}, {}, Modules("2.20.0", "3.4.1", "keras")),
        (NIGHTLY, {}, {"python": "3.11.7"}, Modules("2.23.0.dev1", "3.16.0.dev1", "keras")),
        (
            ("tf-keras-nightly==2.23.0.dev2", *NIGHTLY),
            {"TF_USE_LEGACY_KERAS": "true"},
            {},
            Modules("2.23.0.dev1", "2.23.0.dev2", "tf_keras"),
        ),
        ((), {}, {}, Modules("", "", "keras")),
    ],
)
def test_versions_of_modules_take_precedence_over_the_lock(
    lock: tuple[str, ...],
    settings: Mapping[str, str],
    versions: Mapping[str, Any],
    expected: Modules,
) -> None:
    assert modules_of(lock, settings, versions) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorflow-intel", "tensorflow-macos"),
        *(
            "tensorflow-rocm",
            "tensorflow-cpu-aws",
            "tensorflow-tpu",
            "tf-nightly",
            "tf-nightly-cpu",
        ),
        *("tf-nightly-gpu", "intel-tensorflow", "intel-tensorflow-avx512", "nvidia-tensorflow"),
    ],
)
def test_a_lock_identifies_tensorflow_by_each_package_name(name: str) -> None:
    """Packages with similar names but without TensorFlow are ignored."""
    beside = (
        *("intel-extension-for-tensorflow==2.15.0.1", "sagemaker-tensorflow==9.1", "tf-keras==9.2"),
        *("tensorflow-datasets==9.3", "tensorflow-estimator==9.4", "tensorflow-text==9.5"),
        *("tensorflow-io-gcs-filesystem==9.6", "tensorflow-metadata==9.7", "tf-slim==9.8"),
    )
    lock = tuple(sorted((*beside, f"{name}==2.14.0")))
    assert tensorflow_version(lock) == "2.14.0"
    assert labels([lock], [{}]) == ["2.14.0"]


def test_the_label_of_a_release_candidate_shows_its_keras() -> None:
    """The candidate requires `keras-nightly`, and its version string differs from pip's."""
    lock = ("keras-nightly==3.16.0.dev2026102704", "tensorflow-cpu==2.22.0rc0")
    expected = ["2.21.0 + Keras 3.15.1", "2.22.0rc0 + Keras 3.16.0.dev2026102704"]
    assert labels([NEW, lock], [{}, {}]) == expected
    released = {"tensorflow": "2.21.0", "keras": "3.15.1", "keras_package": "keras"}
    assert labels([NEW, lock], [{}, {}], (), [released, CANDIDATE]) == expected


@pytest.mark.parametrize(
    ("version", "more", "label", "built"),
    [
        ("2.23.0-dev20261026", {}, "2.23.0.dev20261026", "2026-10-26"),
        ("2.23.0.dev2026102704", {}, "2.23.0.dev2026102704", "2026-10-27"),
        ("2.23.0.dev20261026+mine", {}, "2.23.0.dev20261026+mine", "2026-10-26"),
        ("2.23.0-dev0", {"tensorflow_built": "2026-09-05"}, "2.23.0.dev0 (built 2026-09-05)", ""),
        ("2.23.0.dev20269999", {}, "2.23.0.dev20269999", ""),
        ("2.23.0-dev0", {}, "2.23.0.dev0", ""),
        ("2.21.0", {}, "2.21.0", ""),
    ],
)
def test_the_label_of_a_nightly_build_shows_its_date(
    version: str, more: Mapping[str, str], label: str, built: str
) -> None:
    versions = {"tensorflow": version, **more}
    assert labels([NIGHTLY], [{}], (), [versions]) == [label]
    assert modules_of(NIGHTLY, {}, versions).built == (built or more.get("tensorflow_built", ""))


def test_an_unknown_build_is_labelled_by_its_imported_version() -> None:
    lock = ("acme-tf==7.1", "keras==3.15.1")
    assert labels([lock], [{}]) == ["unknown TensorFlow"]
    versions = {"tensorflow": "2.21.0", "keras": "3.15.1", "keras_package": "keras"}
    assert labels([NEW, lock], [{}, {}], (), [versions, versions]) == [
        "2.21.0 (tensorflow-cpu)",
        "2.21.0",
    ]


def test_equal_locks_with_different_imports_get_different_labels() -> None:
    """Example: an interpreter with TensorFlow rebuilt in place."""
    other = {"tensorflow": "2.21.0+patched"}
    assert labels([NEW, NEW], [{}, {}], (), [{}, other]) == ["2.21.0", "2.21.0+patched"]


@pytest.mark.parametrize(
    ("name", "build", "expected"),
    [
        ("intel-tensorflow", {"is_cuda_build": "False", "is_rocm_build": "False"}, True),
        ("tensorflow-cpu", {"is_cuda_build": "True"}, False),
        ("tensorflow", {"is_cuda_build": "False"}, True),
        ("tensorflow", {"is_cuda_build": "False", "is_rocm_build": "True"}, False),
        *((name, None, True) for name in ("tensorflow-cpu", "tf-nightly-cpu", "intel-tensorflow")),
        *((name, None, False) for name in ("tensorflow", "tf-nightly", "tensorflow-rocm")),
        ("numpy", None, False),
    ],
)
def test_build_information_overrides_the_package_name_for_cpu_only(
    name: str, build: Mapping[str, str] | None, expected: bool
) -> None:
    versions = {"build": build} if build else {}
    assert is_for_cpus_only([f"{name}==2.15.0"], versions) is expected
