"""Two distributions of one package in an environment are refused before the installation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.environments.commands import EnvironmentProblem
from bench.environments.overlaps import check_overlaps
from tests.environments.building import Recorder, problem
from tests.environments.wheels import write_wheel


@pytest.mark.parametrize(
    ("lock", "requirements", "told"),
    [
        (
            ["tensorflow-cpu==2.22.0rc0", "tensorflow==2.21.0", "tf-keras==2.21.0"],
            ["tensorflow-cpu==2.22.0rc0", "tf-keras"],
            "tensorflow==2.21.0 and tensorflow-cpu==2.22.0rc0 both install the package tensorflow, "
            "one over the other: leave one out, such as without:tensorflow",
        ),
        (
            ["keras==3.15.1", "keras-nightly==3.16.0.dev1", "tensorflow-cpu==2.22.0rc0"],
            ["keras==3.15.1", "tensorflow-cpu==2.22.0rc0"],
            "keras==3.15.1 and keras-nightly==3.16.0.dev1 both install the package keras, one over "
            "the other: leave one out, such as without:keras-nightly",
        ),
        (
            ["tf-keras==2.21.0", "tf-keras-nightly==2.22.0.dev1"],
            ["tf-keras", "tf-keras-nightly"],
            "tf-keras==2.21.0 and tf-keras-nightly==2.22.0.dev1 both install the package tf_keras, "
            "one over the other: leave one out",
        ),
        *(
            (
                [f"{name}==2.15.0", "tensorflow==2.15.0"],
                [name, "Keras_Tuner", "./tensorflow-2.15.0-py3-none-any.whl"],
                "without:tensorflow",
            )
            for name in (
                *("tensorflow-cpu", "tensorflow-gpu", "tf-nightly", "tf-nightly-cpu"),
                *("intel-tensorflow", "intel-tensorflow-avx512", "tensorflow-rocm"),
                *("tensorflow-rocm-enhanced", "tensorflow-aarch64", "tensorflow-tpu"),
            )
        ),
        (
            ["tensorflow-macos==2.14.0", "tensorflow-cpu==2.15.0"],
            ["tensorflow-macos"],
            "without:tensorflow-cpu",
        ),
    ],
)
def test_two_distributions_of_a_package_are_named(
    lock: Sequence[str], requirements: Sequence[str], told: str
) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        check_overlaps(lock, requirements)
    assert str(caught.value).endswith(told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "lock",
    [
        ["keras==2.15.0", "tensorflow==2.15.0", "tensorflow-io==0.1", "tensorflow-estimator==2.15"],
        ["mesh-tensorflow==0.1", "silence-tensorflow==1", "tensorflow==2.15.0", "tf-keras==2.15"],
        ["tensorflow==2.15.0", "tensorflow-datasets==4.9", "tensorflow-text==2.15.0"],
        *(
            [f"tensorflow-{part}==2.15.0", "tensorflow==2.15.0"]  # the first holds all files
            for part in ("intel", "macos", "cpu-aws")
        ),
        [],
    ],
)
def test_other_packages_are_no_overlap(lock: Sequence[str]) -> None:
    check_overlaps(lock, [])


def test_an_overlap_is_refused_before_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = tmp_path / "links"
    write_wheel(links, distribution="tensorflow", version="2.21.0")
    write_wheel(links, distribution="tensorflow-cpu", version="2.22.0rc0")
    write_wheel(
        links, distribution="tf-keras", version="2.21", package="tf_keras", requires=["tensorflow"]
    )
    monkeypatch.setenv("UV_FIND_LINKS", str(links))
    recorder = Recorder(monkeypatch)
    text = "tensorflow-cpu==2.22.0rc0 tf-keras"
    assert "tensorflow==2.21.0 and tensorflow-cpu==2.22.0rc0 both" in problem(text, tmp_path)
    assert recorder.kinds() == ["compile"]


def test_an_overlap_under_other_names_is_refused_after_the_installation(tmp_path: Path) -> None:
    one, other = write_wheel(tmp_path), write_wheel(tmp_path, distribution="acme", version="1")
    told = "acme 1 and tensorflow 2.21.0 both install the package tensorflow"
    for _ in range(2):  # the second time from the cache
        assert problem(f"{one} {other}", tmp_path).startswith(told)
