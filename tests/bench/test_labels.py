"""Names of environments are short, all different, and tell what differs."""

from __future__ import annotations

import pytest

from bench.labels import labels

OLD = ("keras==3.4.1", "numpy==1.26.4", "tensorflow-cpu==2.20.0")
NEW = ("keras==3.15.1", "numpy==2.4.6", "tensorflow-cpu==2.21.0", "tf-keras==2.21.0")
OTHER_KERAS = ("keras==3.4.1", *NEW[1:])
NIGHTLY = ("keras-nightly==3.16.0.dev1", "tf-nightly==2.23.0.dev1")
WHEEL = (*NEW[:2], f"tensorflow-cpu==2.21.0 @ sha256:{'1a2b3c4d' * 8}", NEW[3])


@pytest.mark.parametrize(
    ("locks", "settings", "names"),
    [
        ([OLD, NEW, NIGHTLY], {}, ["2.20.0", "2.21.0", "2.23.0.dev1"]),
        ([NEW, OTHER_KERAS], {}, ["2.21.0 + Keras 3.15.1", "2.21.0 + Keras 3.4.1"]),
        ([OLD, NEW, OTHER_KERAS], {}, ["2.20.0", "2.21.0 + Keras 3.15.1", "2.21.0 + Keras 3.4.1"]),
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
        ([OLD, NEW], {0: {"TF_A": "1"}, 1: {"TF_A": "2"}}, ["2.20.0", "2.21.0"]),
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
        ([NEW, NEW, NEW], {}, ["2.21.0", "2.21.0 again", "2.21.0 again (2)"]),
        (
            [NEW, OTHER_KERAS, OTHER_KERAS],
            {},
            ["2.21.0 + Keras 3.15.1", "2.21.0 + Keras 3.4.1", "2.21.0 + Keras 3.4.1 again"],
        ),
        ([NEW, ()], {}, ["2.21.0", "not built"]),
        ([("numpy==1.26.4",)], {}, ["unknown TensorFlow"]),
    ],
)
def test_names_tell_what_differs(
    locks: list[tuple[str, ...]], settings: dict[int, dict[str, str]], names: list[str]
) -> None:
    assert labels(locks, [settings.get(place, {}) for place in range(len(locks))]) == names


def test_names_tell_pythons_apart() -> None:
    expected = ["2.21.0 + Python 3.11.7", "2.21.0 + Python 3.12.1"]
    assert labels([NEW, NEW], [{}, {}], ["3.11.7", "3.12.1"]) == expected
