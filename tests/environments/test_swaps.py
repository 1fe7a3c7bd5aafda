"""Packages that differ between two environments, and environments with some exchanged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.environments.builds import Built
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import parse_request
from bench.environments.swaps import Change, changes, requirements_of, swapped
from lenet5.errors import InputError
from tests.environments.building import Recorder, build_here, failed
from tests.environments.wheels import write_wheel

# Two small environments after TensorFlow's: Keras 2 and 3, and packages of one side only.
OLD = {
    "tensorflow-cpu 2.15.1": (
        "keras<2.16,>=2.15.0",
        "numpy<2,>=1.23",
        "tensorflow-estimator==2.15",
    ),
    "keras 2.15.0": (),
    "tensorflow-estimator 2.15.0": ("absl-py",),
    "absl-py 2.0": (),
    "numpy 1.26.4": (),
    "six 1.0": (),
}
NEW = {
    "tensorflow-cpu 2.16.2": ("keras>=3.0.0", "numpy<2,>=1.23", "rich; extra == 'docs'"),
    "keras 3.15.1": ("optree", "numpy>=1.25", "namex; python_version > '3'"),
    "optree 0.12": ("typing-extensions",),
    "typing-extensions 4.0": (),
    "namex 0.1": (),
    "numpy 1.26.4": (),
    "six 1.1": (),
}
Environment = Mapping[str, Sequence[str]]


def built(text: str, environment: Environment, hashes: Mapping[str, str] | None = None) -> Built:
    lock = []
    for name, version in map(str.split, environment):
        digest = f" @ sha256:{hashes[name]}" if hashes and name in hashes else ""
        lock.append(f"{name}=={version}{digest}")
    return Built(parse_request(text), Path("/x/bin/python"), tuple(sorted(lock)), "3.11.7")


def reading(*environments: Environment) -> Callable[[Built], Mapping[str, Sequence[str]]]:
    """Returns the requirements of these environments, which have different locks."""
    known = {
        frozenset(name.replace(" ", "==") for name in environment): {
            name.split()[0]: lines for name, lines in environment.items()
        }
        for environment in environments
    }
    return lambda side: known[frozenset(entry.partition(" ")[0] for entry in side.lock)]


def differences(good: Environment, bad: Environment, *texts: str) -> tuple[Change, ...]:
    one, other = texts or ("tensorflow-cpu==2.15.1", "tensorflow-cpu==2.16.2")
    read = reading(good, bad)
    return changes(built(one, good), built(other, bad), requirements=read)


def exchanged(good: Environment, bad: Environment, names: Sequence[str], *texts: str) -> list[str]:
    one, other = texts or ("tensorflow-cpu==2.15.1", "tensorflow-cpu==2.16.2")
    read = reading(good, bad)
    found = swapped(built(one, good), built(other, bad), names, requirements=read)
    assert [parse_request(request.text) for request in found] == found
    return [request.text for request in found]


# Changes


def test_packages_of_one_side_belong_to_those_that_require_them() -> None:
    assert differences(OLD, NEW) == (
        Change("TensorFlow", "2.15.1", "2.16.2", ("absl-py", "tensorflow-estimator")),
        Change("Keras", "2.15.0", "3.15.1", ("namex", "optree", "typing-extensions")),
        Change("six", "1.0", "1.1"),
    )


def test_a_package_that_nobody_requires_is_a_change_of_its_own() -> None:
    """With those that it requires; of two that require each other, the first one."""
    more = {
        **OLD,
        "plugin 1": ("helper>=1",),
        "helper 2": (),
        "one 1": ("two",),
        "two 2": ("one",),
        "alone 3": (),
    }
    found = {change.name: change for change in differences(OLD, more)}
    assert found == {
        "alone": Change("alone", None, "3"),
        "one": Change("one", None, "1", ("two",)),
        "plugin": Change("plugin", None, "1", ("helper",)),
    }
    assert [change.before for change in differences(more, OLD)] == ["3", "1", "1"]


def test_all_distributions_of_tensorflow_and_of_keras_are_one_package() -> None:
    bad = {"tf-nightly 2.23.0.dev20261001": (), "keras-nightly 3.16.0.dev1": (), "six 1.0": ()}
    good = {"tensorflow-cpu 2.21.0": (), "keras 3.15.1": (), "six 1.0": ()}
    assert differences(good, bad) == (
        Change("TensorFlow", "tensorflow-cpu 2.21.0", "tf-nightly 2.23.0.dev20261001"),
        Change("Keras", "keras 3.15.1", "keras-nightly 3.16.0.dev1"),
    )


def test_settings_are_a_change_of_their_own() -> None:
    texts = "tensorflow-cpu TF_B=2 'TF_A=a b'", "tensorflow-cpu"
    assert differences(OLD, OLD, *texts) == (Change("settings", "'TF_A=a b' TF_B=2", None),)
    assert differences(OLD, OLD, texts[0], "'TF_A=a b' tensorflow-cpu TF_B=2") == ()


def test_an_extra_alone_is_a_change_of_the_packages_that_it_adds() -> None:
    """Also one of an override; a requirement whose marker is false asks for none."""
    lines = ("nvidia-a; extra == 'and-cuda'",)
    good = {"tensorflow 2.21.0": lines}
    bad = {**good, "nvidia-a 1": ("nvidia-b",), "nvidia-b 2": ()}
    plain, asked = "tensorflow==2.21.0", "tensorflow[and-cuda]==2.21.0"
    found = (Change("nvidia-a", None, "1", ("nvidia-b",)),)
    for with_extra in (asked, f"{plain} override:{asked}"):
        assert differences(good, bad, plain, with_extra) == found
        pins = ["tensorflow==2.21.0 nvidia-a==1 nvidia-b==2"]
        assert exchanged(good, bad, ["nvidia-a"], plain, with_extra) == pins
        assert exchanged(good, bad, [], plain, with_extra) == [plain]
        assert exchanged(bad, good, ["nvidia-a"], with_extra, plain) == [
            "tensorflow==2.21.0 without:nvidia-a"
        ]
    never = f"{plain} 'tensorflow[and-cuda]; python_version < \"3\"'"
    assert exchanged(bad, good, ["nvidia-a"], never, plain) == [plain]


def test_extras_count_only_where_they_are_asked_for() -> None:
    good = {"tensorflow 2.20.0": ("nvidia-a; extra == 'and-cuda'", "six"), "six 1.0": ()}
    bad = {
        "tensorflow 2.21.0": ("nvidia-a; extra == 'and-cuda'", "six[more]", "not a requirement !"),
        "six 1.0": ("deep; extra == 'more'",),
        "deep 1": (),
        "nvidia-a 1": (),
    }
    texts = "tensorflow==2.20.0", "tensorflow[and-cuda]==2.21.0"
    found = differences(good, bad, *texts)
    assert found == (
        Change("TensorFlow", "2.20.0", "2.21.0", ("nvidia-a",)),
        Change("deep", None, "1"),  # six requires it, and is the same on both sides
    )
    assert differences(good, bad, texts[0], "tensorflow==2.21.0")[-1] == Change(
        "nvidia-a", None, "1"
    )


def test_a_local_wheel_is_told_with_its_hash(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, distribution="tensorflow-cpu")
    good = built("tensorflow-cpu==2.21.0", {"tensorflow-cpu 2.21.0": ()})
    bad = built(str(wheel), {"tensorflow-cpu 2.21.0": ()}, {"tensorflow-cpu": "a" * 64})
    found = changes(good, bad, requirements=reading({"tensorflow-cpu 2.21.0": ()}))
    assert found == (Change("TensorFlow", "2.21.0", "2.21.0 (wheel aaaaaaa)"),)


# Exchanged packages


def test_tensorflow_alone_keeps_keras_2_by_an_override_or_else_through_tf_keras() -> None:
    """The packages that only one of them requires come and go with it."""
    assert exchanged(OLD, NEW, ["TensorFlow"]) == [
        "tensorflow-cpu==2.16.2 keras==2.15.0 numpy==1.26.4 six==1.0 override:keras==2.15.0",
        "tensorflow-cpu==2.16.2 keras==3.15.1 namex==0.1 numpy==1.26.4 optree==0.12 six==1.0 "
        "typing-extensions==4.0 tf-keras==2.16.* without:tensorflow TF_USE_LEGACY_KERAS=1",
    ]


def test_keras_3_alone_is_an_override() -> None:
    assert exchanged(OLD, NEW, ["Keras"]) == [
        "tensorflow-cpu==2.15.1 keras==3.15.1 absl-py==2.0 namex==0.1 numpy==1.26.4 optree==0.12 "
        "six==1.0 tensorflow-estimator==2.15.0 typing-extensions==4.0 override:keras==3.15.1"
    ]


def test_in_the_other_direction_keras_2_alone_goes_through_tf_keras_too() -> None:
    plain, legacy = exchanged(NEW, OLD, ["Keras"])
    assert plain.startswith("tensorflow-cpu==2.16.2 keras==2.15.0 ")
    assert legacy.startswith("tensorflow-cpu==2.16.2 keras==3.15.1 ")
    assert legacy.endswith(" tf-keras==2.16.* without:tensorflow TF_USE_LEGACY_KERAS=1")


def test_tf_keras_gets_the_tensorflow_that_is_there() -> None:
    good = {"tensorflow 2.15.1": (), "keras 2.15.0": ()}
    bad = {"tensorflow 2.17.0rc1": ("keras>=3",), "keras 3.15.1": ()}
    texts = "tensorflow==2.15.1 TF_A=1 TF_USE_LEGACY_KERAS=0", "tensorflow==2.17.0rc1"
    assert exchanged(good, bad, ["TensorFlow"], *texts)[1] == (
        "tensorflow==2.17.0rc1 keras==3.15.1 tf-keras==2.17.* override:tensorflow==2.17.0rc1 "
        "TF_A=1 TF_USE_LEGACY_KERAS=1"
    )


@pytest.mark.parametrize("more", [{"tf-keras 2.16.0": ()}, {"tf-keras-nightly 2.17.0.dev1": ()}])
def test_an_environment_with_tf_keras_gets_no_second_one(more: Environment) -> None:
    assert len(exchanged({**OLD, **more}, {**NEW, **more}, ["TensorFlow"])) == 1


def test_two_versions_of_keras_2_need_no_tf_keras_of_another_version() -> None:
    """As in environments whose requests override TensorFlow's requirement."""
    good, bad = (
        {"tensorflow-cpu 2.16.2": ("keras>=3",), f"keras {version}": ()}
        for version in ("2.14.0", "2.15.0")
    )
    assert exchanged(good, bad, ["Keras"]) == [
        "tensorflow-cpu==2.16.2 keras==2.15.0 override:keras==2.15.0"
    ]


def test_settings_are_exchanged_by_their_name() -> None:
    texts = "tensorflow-cpu TF_A=1", "tensorflow-cpu 'TF_B=b c'"
    bare: Environment = {"tensorflow-cpu 2.21.0": ()}
    assert exchanged(bare, bare, [], *texts) == ["tensorflow-cpu==2.21.0 TF_A=1"]
    assert exchanged(bare, bare, ["settings"], *texts) == ["tensorflow-cpu==2.21.0 'TF_B=b c'"]


def test_another_distribution_of_keras_replaces_the_required_one() -> None:
    good = {"tensorflow-cpu 2.21.0": ("keras>=3.12",), "keras 3.15.1": ()}
    bad = {
        "tensorflow-cpu 2.22.0rc0": ("keras-nightly>=3.14.0.dev",),
        "keras-nightly 3.16.dev1": (),
    }
    assert exchanged(good, bad, ["TensorFlow"]) == [
        "tensorflow-cpu==2.22.0rc0 keras==3.15.1 without:keras-nightly"
    ]
    assert exchanged(good, bad, ["Keras"]) == [
        "tensorflow-cpu==2.21.0 keras-nightly==3.16.dev1 without:keras"
    ]


def test_a_package_of_its_own_is_exchanged_alone() -> None:
    more = {**OLD, "plugin 1": ("helper>=1",), "helper 2": ()}
    pins = " ".join(name.replace(" ", "==") for name in sorted(OLD) if name[0] not in "kt")
    start = "tensorflow-cpu==2.15.1 keras==2.15.0 "
    with_plugin = "absl-py==2.0 helper==2 numpy==1.26.4 plugin==1 six==1.0"
    end = " tensorflow-estimator==2.15.0"
    assert exchanged(OLD, more, ["plugin"]) == [start + with_plugin + end]
    assert exchanged(more, OLD, ["plugin"]) == [start + pins + end]


def test_a_local_wheel_keeps_its_path_also_in_an_override(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "a b", distribution="keras", version="3.99.0", package="keras")
    good = built("tensorflow-cpu==2.15.1", OLD)
    bad_lock = {"tensorflow-cpu 2.16.2": ("keras>=3",), "keras 3.99.0": (), "six 1.0": ()}
    bad = built(f"tensorflow-cpu==2.16.2 '{wheel}'", bad_lock, {"keras": "a" * 64})
    read = reading(OLD, bad_lock)
    (request,) = swapped(good, bad, ["Keras"], requirements=read)
    assert f" '{wheel}' " in request.text
    assert request.text.endswith(f" 'override:{wheel}'")
    assert request.overrides == (str(wheel),)
    assert parse_request(request.text) == request


@pytest.mark.parametrize("text", [".", "python:/x/bin/python"])
def test_an_existing_python_is_not_exchanged(text: str) -> None:
    with pytest.raises(InputError, match="an existing Python cannot be exchanged"):
        exchanged(OLD, NEW, ["Keras"], "tensorflow-cpu==2.15.1", text)
    assert differences(OLD, NEW, "tensorflow-cpu==2.15.1", "python:/x/bin/python")


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(InputError, match="numpy, scipy: not among the changed packages"):
        exchanged(OLD, NEW, ["numpy", "scipy", "Keras"])


NAMES = ("tensorflow-cpu", "keras", "numpy", "one", "two", "three", "four")


@st.composite
def environments(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """Closed environments: each requirement is there, in a version that it admits."""
    versions = {"tensorflow-cpu": "2.15", "keras": "2.15"}
    versions.update(dict.fromkeys(draw(st.sets(st.sampled_from(NAMES[2:]))), "1"))
    versions.update(
        {name: draw(st.sampled_from([version, "3"])) for name, version in versions.items()}
    )
    required = st.sets(st.sampled_from(sorted(versions)), max_size=3)
    return {
        f"{name} {version}": tuple(f"{each}=={versions[each]}" for each in sorted(draw(required)))
        for name, version in versions.items()
    }


@settings(max_examples=200, deadline=None)
@given(environments(), environments())
def test_no_swap_gives_the_good_lock_and_all_the_bad_one(
    good: Environment, bad: Environment
) -> None:
    """Every swap has exactly one distribution of a package, and what these require."""
    sides = built("tensorflow-cpu", good), built("tensorflow-cpu", bad)
    # Equal locks may have other requirements here; the files of real ones are the same.
    if sides[0].lock == sides[1].lock:
        bad = good
    shared = set(good) & set(bad)
    bad = {name: good[name] if name in shared else lines for name, lines in bad.items()}
    read = reading(good, bad)
    known = [change.name for change in changes(*sides, requirements=read)]

    def pins(names: Sequence[str]) -> set[str]:
        request = swapped(*sides, names, requirements=read)[0]
        return set(request.requirements)

    assert pins([]) >= set(sides[0].lock)
    assert pins(known) >= set(sides[1].lock)
    for count in range(len(known) + 1):
        for names in itertools.islice(itertools.combinations(known, count), 5):
            found = pins(names)
            assert found <= {*sides[0].lock, *sides[1].lock}
            packages = [pin.partition("==")[0] for pin in found]
            assert len(set(packages)) == len(packages)


# Real environments of small wheels


def test_swaps_of_built_environments_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their locks are the pins: the resolver adds nothing."""
    links = tmp_path / "links"
    monkeypatch.setenv("UV_FIND_LINKS", str(links))
    for environment in (OLD, NEW):
        for name, lines in environment.items():
            distribution, version = name.split()
            source, package = "", "tensorflow"
            if distribution == "tensorflow-cpu":
                source = "from tensorflow import keras\n"
            write_wheel(
                links,
                source,
                distribution=distribution,
                version=version,
                requires=lines,
                package=package,
            )
    write_wheel(links, "", distribution="tf-keras", version="2.16.0", requires=["tensorflow<2.17"])
    good = build_here("tensorflow-cpu==2.15.1 six==1.0", tmp_path)
    bad = build_here("tensorflow-cpu==2.16.2 six==1.1", tmp_path)
    assert requirements_of(good)["keras"] == ()
    assert requirements_of(good)["tensorflow-estimator"] == ("absl-py",)
    known = [change.name for change in changes(good, bad)]
    assert known == ["TensorFlow", "Keras", "six"]
    for names, lock in ((), good.lock), (known, bad.lock):
        (request,) = swapped(good, bad, names)
        assert build_here(request.text, tmp_path).lock == lock
    for some in ["TensorFlow"], ["Keras"], ["TensorFlow", "six"]:
        for request in swapped(good, bad, some):
            made = build_here(request.text, tmp_path)
            pins = {word.replace("2.16.*", "2.16.0") for word in request.requirements}
            assert set(made.lock) == pins


def test_a_wheel_overrides_a_requirement(tmp_path: Path) -> None:
    """Its hash is part of the lock and of the remembered request."""
    wheel = write_wheel(tmp_path, requires=["helper<2"])
    helper = write_wheel(tmp_path, "", distribution="helper", version="3")
    made = build_here(f"{wheel} override:{helper}", tmp_path)
    assert [entry.partition(" @ ")[0] for entry in made.lock] == ["helper==3", "tensorflow==2.21.0"]
    assert all(" @ sha256:" in entry for entry in made.lock)
    assert build_here(f"{wheel} {helper} override:{helper}", tmp_path).lock == made.lock
    write_wheel(tmp_path, "x = 1\n", distribution="helper", version="3", package="helper")
    assert build_here(f"{wheel} override:{helper}", tmp_path).lock != made.lock
    assert len(list((tmp_path / "cache" / "requests").iterdir())) == 3


def test_an_interpreter_that_lists_no_packages_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = build_here(str(write_wheel(tmp_path)), tmp_path)
    gone = replace(made, python=tmp_path / "gone")
    with pytest.raises(EnvironmentProblem, match="gone cannot be run: No such file or directory"):
        requirements_of(gone)
    Recorder(monkeypatch, {"python": failed("killed")})
    with pytest.raises(EnvironmentProblem, match="does not list its packages"):
        requirements_of(made)
