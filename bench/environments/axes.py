"""Axes of a bisection: the environments that lie between a good and a bad request.

An axis is a list of levels from good to bad: releases of one package, days, nightly builds, or
requests given by hand. Two requests that differ in more than one word have no axis between them;
their packages are then exchanged one at a time (`bench.environments.swaps`).
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timezone
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from bench.environments import index
from bench.environments.commands import EnvironmentProblem
from bench.environments.index import Release
from bench.environments.labels import date_in_version
from bench.environments.request import Request, moment_of, parse_request, quoted
from lenet5.errors import InputError

Releases = Callable[[str], Sequence[Release]]
"""Returns the releases of a package in order of version, as `bench.environments.index.releases`."""
Kind = Literal["versions", "dates", "nightlies", "given"]
_DATE, _OVERRIDE, _WITHOUT = "as-of:", "override:", "without:"
_KERAS, _KERAS_NIGHTLY = "keras", "keras-nightly"
# Nightly builds of a distribution, those of the same kind first.
_NIGHTLIES = {
    "tensorflow": ("tf-nightly",),
    "tensorflow-cpu": ("tf-nightly-cpu", "tf-nightly"),
    _KERAS: (_KERAS_NIGHTLY,),
}


@dataclass(frozen=True)
class Level:
    """A point of an axis.

    Attributes:
        name: short name, unique on its axis: `2.17.1`, `2026-09-01`.
        request: request of its environment.
    """

    name: str
    request: Request


@dataclass(frozen=True)
class Axis:
    """Levels between two requests.

    Attributes:
        kind: what the levels are.
        package: distribution that changes along the axis, or several with commas; empty if given.
        levels: at least two; good is the first one and bad the last.
    """

    kind: Kind
    package: str
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class _Pin:
    """A word `NAME==VERSION`, perhaps with `override:` before it."""

    word: str
    prefix: str
    requirement: Requirement
    version: Version

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def kind(self) -> tuple[str, ...]:
        """All of the word but the version."""
        extras = sorted(self.requirement.extras)
        return self.prefix, self.name, str(self.requirement.marker), *extras

    def of(self, version: Version) -> str:
        """Returns the word for another version."""
        other = Requirement(str(self.requirement))
        other.specifier = SpecifierSet(f"=={version}")
        return f"{self.prefix}{other}"


def axis_between(
    good: Request,
    bad: Request,
    *,
    given: Sequence[Request] = (),
    releases: Releases = index.releases,
) -> Axis | None:
    """Returns the levels between two requests.

    - Given levels are taken as they are listed.
    - Requests that differ in one `==` pin: the final releases between both versions, upwards or
      downwards; pre-releases too, if an end is one.
    - Requests that differ in their `as-of:` only: the days between both dates on which a named
      package had a release that its requirement admits. Packages that the request does not name
      may change on other days; the step between two levels then includes these changes.

    Args:
        good: request of the good end.
        bad: request of the bad end.
        given: levels between the ends, in order.
        releases: returns the releases of a package.

    Returns:
        The axis; None if the requests differ in another way.

    Raises:
        InputError: a given level is repeated.
        EnvironmentProblem: the releases of a package are not known.
    """
    if given:
        return _given((good, *given, bad))
    both = _words(good), _words(bad)
    only_good, only_bad = both[0] - both[1], both[1] - both[0]
    if only_good.total() != 1 or only_bad.total() != 1:
        return None
    (one,), (other,) = only_good, only_bad
    if good.as_of and bad.as_of and one.startswith(_DATE) and other.startswith(_DATE):
        return _dates(good, bad, releases)
    start, end = _pin(one), _pin(other)
    if start and end and start.kind == end.kind and start.version != end.version:
        return _versions(good, start, bad, end, releases)
    return None


def nightlies_between(
    good: Level, bad: Level, package: str, releases: Releases = index.releases
) -> Axis | None:
    """Returns the nightly builds between two neighbouring levels, in order of their dates.

    Each replaces the pin of the package: `tf-nightly==… without:tensorflow`, or
    `keras-nightly==… without:keras`. The ends stay releases. TensorFlow's nightly builds require
    one of Keras; they get the Keras that the request names, or else the released one.

    This is an approximation. A release comes from a branch that left the main branch before its
    first release candidate, and later releases of the series add fixes to it; nightly builds are
    of the main branch. The builds are therefore taken from the upload of the good series' first
    candidate (or release) to that of the bad series. The first step also has the changes that the
    branch of the good release got, or lost, against the main branch; the last step those of the
    bad one; the days between the cut of a branch and its first candidate are on the wrong side.

    Args:
        good: level on the good side.
        bad: level on the bad side.
        package: `tensorflow`, `tensorflow-cpu` or `keras`.
        releases: returns the releases of a package.

    Returns:
        The axis; None if the package has no nightly builds between the levels, or both levels are
        of one series (`2.18.0` and `2.18.1`): nightly builds are not on its branch.

    Raises:
        EnvironmentProblem: the releases of a package are not known.
    """
    start, end = (_pin_of(level.request, package) for level in (good, bad))
    if package not in _NIGHTLIES or start is None or end is None:
        return None
    if start.version.release[:2] == end.version.release[:2]:
        return None
    known = releases(package)
    first, last = (_first_of_series(pin, known) for pin in (start, end))
    for name in _NIGHTLIES[package]:
        built = {
            day: release.version
            for release in releases(name)
            if (day := date_in_version(str(release.version)))
            and min(first, last) < day < max(first, last)
        }
        levels = (
            Level(day.isoformat(), _with_nightly(good.request, start, name, built[day]))
            for day in sorted(built, reverse=first > last)
        )
        if built:
            return Axis("nightlies", name, (good, *levels, bad))
    return None


def _given(requests: Sequence[Request]) -> Axis:
    words = [_words(request) for request in requests]
    for place, request in enumerate(requests):
        if words[place] in words[:place]:
            raise InputError(f"{request.text}: this level is given twice")
    common = words[0]
    for other in words[1:]:
        common = common & other
    own = [[word for word in shlex.split(r.text) if word not in common] for r in requests]
    pins = [_pin(each[0]) if len(each) == 1 else None for each in own]
    versions = [str(pin.version) for pin in pins if pin]
    names = [" ".join(map(quoted, each)) for each in own]
    if versions and len({pin and pin.kind for pin in pins}) == 1:
        names = versions
    if not all(names) or len(set(names)) < len(names):
        names = [request.text for request in requests]
    levels = (Level(name, request) for name, request in zip(names, requests, strict=True))
    return Axis("given", "", tuple(levels))


def _versions(good: Request, start: _Pin, bad: Request, end: _Pin, releases: Releases) -> Axis:
    low, high = sorted((start.version, end.version))
    is_final = not (low.is_prerelease or high.is_prerelease)
    between = [
        release.version
        for release in releases(start.name)
        if low < release.version < high and not (is_final and release.version.is_prerelease)
    ]
    levels = (
        Level(str(version), _changed(good, {start.word: (start.of(version),)}))
        for version in sorted(between, reverse=start.version > end.version)
    )
    ends = (Level(str(pin.version), of) for pin, of in ((start, good), (end, bad)))
    first, last = ends
    return Axis("versions", start.name, (first, *levels, last))


def _dates(good: Request, bad: Request, releases: Releases) -> Axis | None:
    moments = moment_of(good.as_of), moment_of(bad.as_of)
    if moments[0] == moments[1]:
        return None
    named = [Requirement(word) for word in good.requirements if not word.endswith(".whl")]
    days: set[date] = set()
    for requirement in named:
        found = releases(requirement.name)
        uploads = [r.uploaded for r in _admitted(requirement, found) if r.uploaded]
        if found and not any(release.uploaded for release in found):
            raise EnvironmentProblem(
                f"releases of {requirement.name}: the index does not tell their dates; "
                "give the levels by hand: --level REQ"
            )
        days.update(upload.astimezone(timezone.utc).date() for upload in uploads)
    between = {
        day.isoformat()
        for day in days
        if min(moments) < moment_of(day.isoformat()) < max(moments)  # to the end of the day
    }
    word = f"{_DATE}{good.as_of}"
    levels = (
        Level(day, _changed(good, {word: (f"{_DATE}{day}",)}))
        for day in sorted(between, reverse=moments[0] > moments[1])
    )
    names = ", ".join(dict.fromkeys(canonicalize_name(each.name) for each in named))
    return Axis("dates", names, (Level(good.as_of, good), *levels, Level(bad.as_of, bad)))


def _admitted(requirement: Requirement, found: Sequence[Release]) -> Iterator[Release]:
    """Yields the releases that a requirement admits: pre-releases as uv takes them."""
    only_pre = all(release.version.is_prerelease for release in found)
    pre = only_pre or bool(requirement.specifier.prereleases)
    for release in found:
        if requirement.specifier.contains(release.version, prereleases=pre):
            yield release


def _first_of_series(pin: _Pin, known: Sequence[Release]) -> date:
    """Returns the day of the first upload of a version's series, as of `2.18`."""
    series = pin.version.release[:2]
    uploads = [r.uploaded for r in known if r.uploaded and r.version.release[:2] == series]
    if not uploads:
        raise EnvironmentProblem(
            f"releases of {pin.name}: the index does not tell the date of {pin.version}; "
            "give the levels by hand: --level REQ"
        )
    return min(uploads).date()


def _with_nightly(request: Request, pin: _Pin, name: str, version: Version) -> Request:
    """Returns a request with a nightly build in place of a package's pin, with its extras."""
    extras = ",".join(sorted(pin.requirement.extras))
    word = f"{name}[{extras}]=={version}" if extras else f"{name}=={version}"
    changes = {pin.word: (word, f"{_WITHOUT}{pin.name}"), f"{_WITHOUT}{name}": ()}
    return _changed(request, changes, _keras_beside(request, pin.name))


def _keras_beside(request: Request, package: str) -> tuple[str, ...]:
    """Returns the words that keep Keras a release beside a nightly build of TensorFlow."""
    words = list(_words(request))
    named = {_name(word.removeprefix(_OVERRIDE)) for word in words}
    if package == _KERAS or _KERAS_NIGHTLY in named:
        return ()
    more = () if _KERAS in named else (_KERAS,)
    without = f"{_WITHOUT}{_KERAS_NIGHTLY}"
    return more if without in words else (*more, without)


def _changed(
    request: Request, changes: Mapping[str, tuple[str, ...]], more: Sequence[str] = ()
) -> Request:
    """Returns a request with words replaced, and more words at the end."""
    words: list[str] = []
    for word in shlex.split(request.text):
        for each in changes.get(word, (word,)):
            if each not in words:
                words.append(each)
    return parse_request(" ".join(map(quoted, [*words, *more])))


def _words(request: Request) -> Counter[str]:
    return Counter(shlex.split(request.text))


def _pin_of(request: Request, package: str) -> _Pin | None:
    found = (_pin(word) for word in _words(request))
    return next((pin for pin in found if pin and pin.name == package), None)


def _pin(word: str) -> _Pin | None:
    """Returns the pin of a word; None if it is another word."""
    prefix = _OVERRIDE if word.startswith(_OVERRIDE) else ""
    try:
        requirement = Requirement(word.removeprefix(prefix))
    except InvalidRequirement:
        return None
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or "*" in specifiers[0].version:
        return None
    return _Pin(word, prefix, requirement, Version(specifiers[0].version))


def _name(word: str) -> str:
    """Returns the name of a requirement; the empty text for other words."""
    try:
        return canonicalize_name(Requirement(word).name)
    except InvalidRequirement:
        return ""
