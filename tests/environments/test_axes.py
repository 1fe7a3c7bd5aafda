"""Levels between two requests: releases, days, nightly builds, or given ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from bench.environments.axes import Axis, Level, axis_between, nightlies_between
from bench.environments.commands import EnvironmentProblem
from bench.environments.index import Release
from bench.environments.request import parse_request
from lenet5.errors import InputError

# Versions and uploads as the public index has them.
TENSORFLOW = {
    "2.15.1": "2024-03-08",
    "2.16.0rc0": "2024-02-23",
    "2.16.1": "2024-03-09",
    "2.16.2": "2024-06-28",
    "2.17.0rc0": "2024-06-18",
    "2.17.0": "2024-07-11",
    "2.20.0rc0": "2025-07-29",
    "2.20.0": "2025-08-13",
    "2.21.0rc0": "2026-02-09",
    "2.21.0": "2026-03-06",
    "2.22.0rc0": "2026-09-22",
}
KERAS = {
    "3.12.0": "2025-10-27",
    "3.13.0": "2025-12-17",
    "3.12.1": "2026-01-30",
    "3.13.2": "2026-01-30",
    "3.14.0": "2026-04-03",
}
TF_NIGHTLY = {
    f"{version}.dev{day}": f"{day[:4]}-{day[4:6]}-{day[6:]}"
    for version, day in (
        ("2.21.0", "20260202"),
        ("2.22.0", "20260209"),
        ("2.22.0", "20260301"),
        ("2.22.0", "20260921"),
        ("2.23.0", "20260925"),
    )
}
TF_NIGHTLY_CPU = {"2.21.0.dev20250818": "2025-08-18", "2.21.0.dev20251224": "2025-12-24"}
KERAS_NIGHTLY = {
    "3.14.0.dev2025121704": "2025-12-17",
    "3.14.0.dev2026011504": "2026-01-15",
    "3.14.0.dev2026011508": "2026-01-15",
    "3.14.0.dev2026040204": "2026-04-02",
    "3.14.0.dev2026040304": "2026-04-03",
}
INDEX = {
    "tensorflow-cpu": TENSORFLOW,
    "tensorflow": TENSORFLOW,
    "keras": KERAS,
    "tf-nightly": TF_NIGHTLY,
    "tf-nightly-cpu": TF_NIGHTLY_CPU,
    "keras-nightly": KERAS_NIGHTLY,
}


def known(name: str) -> Sequence[Release]:
    return of(INDEX[name])


def of(uploads: Mapping[str, str]) -> Sequence[Release]:
    return [
        Release(version, datetime.fromisoformat(f"{uploads[str(version)]}T09:30:00+00:00"))
        for version in sorted(map(Version, uploads))
    ]


def nothing(name: str) -> Sequence[Release]:
    raise AssertionError(name)


def between(
    good: str,
    bad: str,
    levels: Sequence[str] = (),
    releases: Callable[[str], Sequence[Release]] = known,
) -> Axis | None:
    given = [parse_request(level) for level in levels]
    return axis_between(parse_request(good), parse_request(bad), given=given, releases=releases)


def names(axis: Axis | None) -> list[str]:
    return [level.name for level in axis.levels] if axis else []


def texts(axis: Axis | None) -> list[str]:
    return [level.request.text for level in axis.levels] if axis else []


# Versions


def test_one_pin_gives_the_final_releases_between() -> None:
    axis = between("tensorflow-cpu==2.15.1 TF_A=1", "TF_A=1 tensorflow-cpu==2.20.0")
    assert axis is not None
    assert (axis.kind, axis.package) == ("versions", "tensorflow-cpu")
    assert names(axis) == ["2.15.1", "2.16.1", "2.16.2", "2.17.0", "2.20.0"]
    assert texts(axis)[:2] == ["tensorflow-cpu==2.15.1 TF_A=1", "tensorflow-cpu==2.16.1 TF_A=1"]
    assert texts(axis)[-1] == "TF_A=1 tensorflow-cpu==2.20.0"


def test_a_bad_older_version_gives_the_releases_downwards() -> None:
    assert names(between("keras==3.14.0 tf-nightly", "keras==3.12.0 tf-nightly")) == [
        *("3.14.0", "3.13.2", "3.13.0", "3.12.1", "3.12.0")
    ]


def test_pre_releases_count_if_an_end_is_one() -> None:
    assert names(between("tensorflow-cpu==2.20.0", "tensorflow-cpu==2.22.0rc0")) == [
        *("2.20.0", "2.21.0rc0", "2.21.0", "2.22.0rc0")
    ]


def test_neighbouring_versions_have_nothing_between() -> None:
    assert names(between("keras==3.13.2 keras-tuner", "keras==3.14 keras-tuner")) == [
        *("3.13.2", "3.14")
    ]


def test_an_override_is_a_pin_too() -> None:
    axis = between(
        "tensorflow-cpu==2.15.1 override:Keras==3.12.1",
        "tensorflow-cpu==2.15.1 override:keras==3.13.2",
    )
    assert texts(axis)[1] == "tensorflow-cpu==2.15.1 override:Keras==3.13.0"
    assert axis is not None
    assert axis.package == "keras"


def test_extras_and_markers_are_kept() -> None:
    one, other = (
        f"'tensorflow[and-cuda]=={version} ; python_version > \"3\"'"
        for version in ("2.20.0", "2.22.0rc0")
    )
    (level,) = texts(between(one, other))[2:-1]
    assert level == one.replace("2.20.0", "2.21.0").replace(" ;", ";")


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("tensorflow-cpu==2.20.0", "tensorflow==2.21.0"),
        ("tensorflow-cpu==2.20.0", "tensorflow-cpu==2.20.0"),
        ("tensorflow-cpu==2.20.0", "tensorflow-cpu==2.20"),
        ("tensorflow-cpu==2.20.0", "tensorflow-cpu==2.21.0 keras"),
        ("tensorflow-cpu==2.20.0", "tensorflow-cpu==2.21.0 TF_A=1"),
        ("tensorflow-cpu==2.20.0 TF_A=1", "tensorflow-cpu==2.21.0 TF_A=2"),
        ("tensorflow-cpu==2.20.0 keras==3.12.0", "tensorflow-cpu==2.21.0 keras==3.13.0"),
        ("tensorflow-cpu>=2.20.0", "tensorflow-cpu==2.21.0"),
        ("tensorflow-cpu==2.20.*", "tensorflow-cpu==2.21.*"),
        ("tf-nightly keras==3.12.0", "tf-nightly override:keras==3.13.0"),
        ("tensorflow==2.20.0", "tensorflow[and-cuda]==2.21.0"),
        ("tensorflow==2.20.0", "'tensorflow==2.21.0; python_version > \"3\"'"),
        ("tf-nightly TF_A=1", "tf-nightly TF_A=2"),
        (".", "tensorflow-cpu==2.21.0"),
        (". TF_A=1", "."),
        ("tf-nightly as-of:2026-01-01", "tf-nightly"),
        ("tf-nightly as-of:2026-01-01", "tf-nightly as-of:2026-01-02T00:00:00Z"),
    ],
)
def test_requests_that_differ_otherwise_have_no_axis(good: str, bad: str) -> None:
    """They need no index either."""
    assert between(good, bad, releases=nothing) is None
    assert between(bad, good, releases=nothing) is None


# Dates


def test_dates_are_the_days_with_a_release_of_a_named_package() -> None:
    """At most one a day, and none for what a requirement does not admit."""
    axis = between(
        "tensorflow-cpu keras<3.14 as-of:2025-09-01", "tensorflow-cpu keras<3.14 as-of:2026-12-31"
    )
    assert axis is not None
    assert (axis.kind, axis.package) == ("dates", "tensorflow-cpu, keras")
    assert names(axis) == [
        *("2025-09-01", "2025-10-27", "2025-12-17", "2026-01-30", "2026-03-06", "2026-12-31")
    ]
    assert texts(axis)[1] == "tensorflow-cpu keras<3.14 as-of:2025-10-27"


def test_dates_run_downwards_as_well() -> None:
    assert names(between("as-of:2026-04-30 keras", "as-of:2025-12-17 keras")) == [
        *("2026-04-30", "2026-04-03", "2026-01-30", "2025-12-17")
    ]


def test_a_day_counts_to_its_end() -> None:
    """A day that is not over at the bad moment, or was at the good one, is no level."""
    at = "tensorflow-cpu as-of:{}".format
    assert names(between(at("2026-03-06"), at("2026-03-08"))) == ["2026-03-06", "2026-03-08"]
    early, late = "2026-03-06T09:00:00Z", "2026-03-06T10:00:00Z"
    assert names(between(at(early), at("2026-03-08"))) == [early, "2026-03-06", "2026-03-08"]
    assert names(between(at("2026-03-01"), at(late))) == ["2026-03-01", late]


def test_pre_releases_give_days_only_where_uv_takes_them() -> None:
    ends = "as-of:2026-02-01", "as-of:2026-03-01"
    for word, days in (
        ("tensorflow-cpu", []),
        ("tensorflow-cpu>=2.21.0rc0", ["2026-02-09"]),
        ("tf-nightly", ["2026-02-02", "2026-02-09"]),
    ):
        assert names(between(f"{word} {ends[0]}", f"{word} {ends[1]}"))[1:-1] == days


def test_an_index_without_dates_is_told() -> None:
    def undated(_: str) -> Sequence[Release]:
        return [Release(Version("1"))]

    told = "releases of keras: the index does not tell their dates; give the levels by hand"
    with pytest.raises(EnvironmentProblem, match=told):
        between("keras as-of:2026-01-01", "keras as-of:2026-02-01", releases=undated)
    told = "releases of keras: the index does not tell the date of 3.12.0; give the levels by hand"
    levels = [Level(v, parse_request(f"keras=={v}")) for v in ("3.12.0", "3.13.0")]
    with pytest.raises(EnvironmentProblem, match=told):
        nightlies_between(levels[0], levels[1], "keras", undated)


# Given levels


def test_given_levels_are_taken_as_listed() -> None:
    ends = "tensorflow-cpu==2.15.1 TF_A=1", "tensorflow-cpu==2.21.0 TF_A=1"
    axis = between(
        *ends, ["tensorflow-cpu==2.20.0 TF_A=1", "TF_A=1 tensorflow-cpu==2.16.2"], nothing
    )
    assert axis is not None
    assert (axis.kind, axis.package) == ("given", "")
    assert names(axis) == ["2.15.1", "2.20.0", "2.16.2", "2.21.0"]
    assert texts(axis) == [
        *(ends[0], "tensorflow-cpu==2.20.0 TF_A=1", "TF_A=1 tensorflow-cpu==2.16.2", ends[1])
    ]


def test_names_of_given_levels_are_the_words_not_common_to_all() -> None:
    axis = between(
        "tensorflow-cpu==2.21.0",
        "tf-nightly TF_A='a b'",
        ["tensorflow-cpu==2.21.0 TF_A=1"],
        nothing,
    )
    assert names(axis) == [
        *("tensorflow-cpu==2.21.0", "tensorflow-cpu==2.21.0 TF_A=1", "tf-nightly 'TF_A=a b'")
    ]
    axis = between("tf-nightly", "tf-nightly TF_A=2", ["tf-nightly TF_A=1"], nothing)
    assert names(axis) == ["tf-nightly", "tf-nightly TF_A=1", "tf-nightly TF_A=2"]
    axis = between("python:/a/python", ".", ["python:/b/python"], nothing)
    assert names(axis) == ["python:/a/python", "python:/b/python", "."]


@pytest.mark.parametrize("level", ["TF_A=1 keras==3.12.0", "keras==3.14.0 TF_A=1"])
def test_a_repeated_level_is_refused(level: str) -> None:
    ends = "keras==3.12.0 TF_A=1", "keras==3.14.0 TF_A=1"
    with pytest.raises(InputError, match="this level is given twice"):
        between(*ends, [level], nothing)


# Nightly builds


def nightlies(good: str, bad: str, package: str) -> Axis | None:
    ends = Level("good", parse_request(good)), Level("bad", parse_request(bad))
    axis = nightlies_between(*ends, package, known)
    assert axis is None or (axis.levels[0], axis.levels[-1]) == ends
    return axis


def test_nightly_builds_lie_between_the_first_candidates_of_both_series() -> None:
    """The branch of 2.21.0, uploaded on 6 March, was cut before 2.21.0rc0 of 9 February."""
    axis = nightlies("tensorflow==2.21.0 TF_A=1", "tensorflow==2.22.0rc0 TF_A=1", "tensorflow")
    assert axis is not None
    assert (axis.kind, axis.package) == ("nightlies", "tf-nightly")
    assert names(axis) == ["good", "2026-03-01", "2026-09-21", "bad"]
    assert texts(axis)[1] == (
        "tf-nightly==2.22.0.dev20260301 without:tensorflow TF_A=1 keras without:keras-nightly"
    )
    assert names(nightlies("tensorflow==2.22.0rc0", "tensorflow==2.21.0", "tensorflow")) == [
        *("good", "2026-09-21", "2026-03-01", "bad")
    ]


def test_nightly_builds_keep_the_extras_of_the_pin() -> None:
    ends = "tensorflow[and-cuda]==2.21.0 without:tf-nightly", "tensorflow[and-cuda]==2.22.0rc0"
    axis = nightlies(*ends, "tensorflow")
    assert texts(axis)[1] == (
        "tf-nightly[and-cuda]==2.22.0.dev20260301 without:tensorflow keras without:keras-nightly"
    )


def test_nightly_builds_of_the_same_kind_are_preferred() -> None:
    axis = nightlies("tensorflow-cpu==2.20.0", "tensorflow-cpu==2.21.0", "tensorflow-cpu")
    assert names(axis)[1:-1] == ["2025-08-18", "2025-12-24"]
    assert texts(axis)[1].startswith("tf-nightly-cpu==2.21.0.dev20250818 without:tensorflow-cpu ")
    axis = nightlies("tensorflow-cpu==2.21.0", "tensorflow-cpu==2.22.0rc0", "tensorflow-cpu")
    assert texts(axis)[1].startswith("tf-nightly==2.22.0.dev20260301 without:tensorflow-cpu ")


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ("keras==3.15.1", "keras==3.15.1 without:keras-nightly"),
        ("keras==3.15.1 without:keras-nightly", "keras==3.15.1 without:keras-nightly"),
        ("override:keras==3.15.1", "override:keras==3.15.1 without:keras-nightly"),
        ("keras-nightly without:keras", "keras-nightly without:keras"),
        ("tf-keras", "tf-keras keras without:keras-nightly"),
    ],
)
def test_nightly_builds_of_tensorflow_keep_the_keras_of_the_request(words: str, more: str) -> None:
    good, bad = (f"tensorflow=={version} {words}" for version in ("2.21.0", "2.22.0rc0"))
    assert texts(nightlies(good, bad, "tensorflow"))[1] == (
        f"tf-nightly==2.22.0.dev20260301 without:tensorflow {more}"
    )


def test_nightly_builds_of_keras_come_one_a_day_without_keras() -> None:
    good, bad = (
        f"tensorflow-cpu==2.21.0 without:keras-nightly keras=={version}"
        for version in ("3.13.2", "3.14.0")
    )
    axis = nightlies(good, bad, "keras")
    assert names(axis) == ["good", "2026-01-15", "2026-04-02", "bad"]
    assert texts(axis)[1] == (
        "tensorflow-cpu==2.21.0 keras-nightly==3.14.0.dev2026011508 without:keras"
    )


@pytest.mark.parametrize(
    ("good", "bad", "package"),
    [
        ("tensorflow-cpu==2.16.1", "tensorflow-cpu==2.16.2", "tensorflow-cpu"),
        ("tensorflow-cpu==2.16.2", "tensorflow-cpu==2.17.0", "tensorflow-cpu"),
        ("tensorflow-cpu==2.16.2", "tensorflow-cpu==2.17.0", "keras"),
        ("keras==3.12.0", "keras==3.12.1", "keras"),
        ("numpy==1.0", "numpy==2.0", "numpy"),
        ("tensorflow-cpu", "tensorflow-cpu==2.17.0", "tensorflow-cpu"),
        ("tensorflow-cpu==2.16.2", "tf-nightly", "tensorflow-cpu"),
    ],
)
def test_there_are_no_nightly_builds_of_a_branch_or_of_others(
    good: str, bad: str, package: str
) -> None:
    assert nightlies(good, bad, package) is None


# All axes


@settings(max_examples=30, deadline=None)
@given(st.permutations(list(TENSORFLOW)), st.booleans())
def test_levels_are_in_order_unique_and_given_again_by_their_text(
    versions: list[str], is_date: bool
) -> None:
    one, other, *_ = versions
    if is_date:
        ends = [f"tensorflow-cpu as-of:{TENSORFLOW[version]}" for version in (one, other)]
    else:
        ends = [f"tensorflow-cpu=={version}" for version in (one, other)]
    axis = between(ends[0], ends[1])
    if axis is None:
        assert ends[0] == ends[1]
        return
    assert [axis.levels[0].request.text, axis.levels[-1].request.text] == ends
    assert len(set(names(axis))) == len(axis.levels)
    keys = [
        Version(f"{level.request.as_of.replace('-', '.') or level.name}") for level in axis.levels
    ]
    assert keys == sorted(keys, reverse=keys[0] > keys[-1])
    for level in axis.levels:
        assert parse_request(level.request.text) == level.request
