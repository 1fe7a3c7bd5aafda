"""Packages that differ between two environments, and environments with some of them exchanged.

TensorFlow and Keras have several distributions each (`tensorflow-cpu`, `tf-nightly`,
`keras-nightly`); each counts as one package here. A package of one environment only belongs to the
packages that require it, and comes or goes with them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from bench.environments.builds import Built
from bench.environments.interpreters import requirements_in
from bench.environments.labels import packages_of
from bench.environments.overlaps import package_of
from bench.environments.request import Request, parse_request, quoted
from bench.environments.scratch import scratch_folder
from lenet5.errors import InputError

TENSORFLOW, KERAS, SETTINGS = "TensorFlow", "Keras", "settings"
_NAMES = {"tensorflow": TENSORFLOW, "keras": KERAS, "tf_keras": "tf-keras"}
_LEGACY = "TF_USE_LEGACY_KERAS"
_FIRST_WITH_KERAS_3 = Version("2.16.dev0")  # of TensorFlow

Requirements = Mapping[str, Sequence[str]]
"""Requirements of each distribution of an environment, as its metadata has them."""


@dataclass(frozen=True)
class Change:
    """A package that differs between two environments, or their settings.

    Attributes:
        name: `TensorFlow`, `Keras`, `settings`, or the name of a distribution.
        before: version in the good environment, after the distribution's name if that differs too;
            None if it is not there. For the settings: as words of a request.
        after: the same in the bad environment.
        along: distributions of one environment only that come or go with it.
    """

    name: str
    before: str | None
    after: str | None
    along: tuple[str, ...] = ()


def requirements_of(built: Built) -> Requirements:
    """Returns the requirements of an environment's distributions, from its interpreter.

    Raises:
        EnvironmentProblem: the interpreter does not list them.
    """
    with scratch_folder() as scratch:
        return requirements_in(built.python, built.request.settings, scratch)


def changes(
    good: Built, bad: Built, *, requirements: Callable[[Built], Requirements] = requirements_of
) -> tuple[Change, ...]:
    """Returns the differences between two environments: TensorFlow, Keras, others, settings.

    A distribution of one environment only is a change of its own only if no other change requires
    it, by itself or through others of that environment only.

    Args:
        good: one environment.
        bad: the other one.
        requirements: returns the requirements of an environment's distributions.

    Raises:
        EnvironmentProblem: the distributions of an environment cannot be listed.
    """
    pair = _pair(good, bad, requirements)
    found = []
    for name in (*pair.changed, *pair.own):
        before, after = (_version_text(side, name, pair) for side in pair.sides)
        along = sorted({each for side in pair.sides for each in pair.along(side, name)})
        found.append(Change(name, before, after, tuple(along)))
    before, after = (" ".join(_settings(side.request)) or None for side in pair.sides)
    if before != after:
        found.append(Change(SETTINGS, before, after))
    return tuple(sorted(found, key=lambda change: _place(change.name)))


def swapped(
    good: Built,
    bad: Built,
    names: Collection[str],
    *,
    requirements: Callable[[Built], Requirements] = requirements_of,
) -> list[Request]:
    """Returns requests for the good environment with some packages of the bad one.

    Every distribution is pinned. Where the requirements of one forbid the version of another, the
    request overrides them; such an environment may build and still fail to import. TensorFlow 2.16
    or newer with Keras 2 has a second request, through `tf-keras`: Keras 2 in the version that was
    made for this TensorFlow, which is close to the wanted one but not the same code.

    Args:
        good: environment that gives all other packages.
        bad: environment that gives the named ones.
        names: names of changes; `settings` takes the settings of the bad one.
        requirements: returns the requirements of an environment's distributions.

    Returns:
        Requests in the order to try. Without names the first one gives the lock of `good`, and
        with all of them that of `bad`.

    Raises:
        InputError: an environment is an existing Python, or a name is not one of the changes.
        EnvironmentProblem: the distributions of an environment cannot be listed.
    """
    for request in (good.request, bad.request):
        if request.interpreter is not None:
            told = "the packages of an existing Python cannot be exchanged: give requirements"
            raise InputError(f"{request.text}: {told}")
    pair = _pair(good, bad, requirements)
    if unknown := set(names) - {*pair.changed, *pair.own, SETTINGS}:
        raise InputError(f"{', '.join(sorted(unknown))}: not among the changed packages")
    chosen = _chosen(pair, names)
    settings = _settings((bad if SETTINGS in names else good).request)
    found = [_request([*_pins(chosen), *_forced(chosen)], settings)]
    if legacy := _through_tf_keras(pair, names, chosen):
        kept = [word for word in settings if not word.startswith(f"{_LEGACY}=")]
        found.append(_request(legacy, [*kept, f"{_LEGACY}=1"]))
    return found


@dataclass(frozen=True)
class _Side:
    """An environment: its distributions with their lock entries, and what each requires."""

    request: Request
    entries: Mapping[str, str]
    needs: Mapping[str, tuple[Requirement, ...]]

    @cached_property
    def packages(self) -> dict[str, tuple[str, ...]]:
        """Distributions of each package."""
        packages: dict[str, tuple[str, ...]] = {}
        for name in self.entries:
            packages[_package(name)] = (*packages.get(_package(name), ()), name)
        return packages

    def version(self, name: str) -> str:
        return packages_of([self.entries[name]])[name].partition(" ")[0]

    def pin(self, name: str) -> str:
        """Returns the word that pins a distribution: the path of a local wheel."""
        if " @ sha256:" not in self.entries[name]:
            return f"{name}=={self.version(name)}"
        words = (*self.request.requirements, *self.request.overrides)
        wheels = [word for word in words if word.endswith(".whl")]
        return next(path for path in wheels if parse_wheel_filename(Path(path).name)[0] == name)

    def content(self, package: str) -> list[str]:
        return [self.entries[name] for name in self.packages.get(package, ())]


@dataclass(frozen=True)
class _Pair:
    """Two environments, compared.

    Attributes:
        sides: the good one and the bad one.
        shared: packages of both.
        changed: packages of both with other versions or distributions.
        own: packages of one side only that are changes of their own.
    """

    sides: tuple[_Side, _Side]
    shared: tuple[str, ...]
    changed: tuple[str, ...]
    own: tuple[str, ...]

    def along(self, side: _Side, package: str) -> set[str]:
        """Returns the distributions of this side only that come with a package."""
        return _reached(side, side.packages.get(package, ()), self.shared)


def _pair(good: Built, bad: Built, requirements: Callable[[Built], Requirements]) -> _Pair:
    one, other = (_side(built, requirements(built)) for built in (good, bad))
    shared = tuple(name for name in one.packages if name in other.packages)
    changed = tuple(name for name in shared if one.content(name) != other.content(name))
    own = tuple(name for side in (one, other) for name in _own(side, shared, changed))
    return _Pair((one, other), shared, changed, own)


def _side(built: Built, lines: Requirements) -> _Side:
    entries = {entry.partition("==")[0]: entry for entry in sorted(built.lock)}
    parsed = {name: _parsed(lines.get(name, ())) for name in entries}
    words = (*built.request.requirements, *built.request.overrides)
    asked = _parsed(word for word in words if not word.endswith(".whl"))
    return _Side(built.request, entries, _needs(parsed, asked))


def _parsed(lines: Iterable[str]) -> tuple[Requirement, ...]:
    found = []
    for line in lines:
        with contextlib.suppress(InvalidRequirement):  # uv repairs some of them
            found.append(Requirement(line))
    return tuple(found)


def _needs(
    parsed: Mapping[str, Sequence[Requirement]], asked: Sequence[Requirement]
) -> dict[str, tuple[Requirement, ...]]:
    """Returns the requirements that apply here, with the extras that anything asks for."""
    extras: dict[str, set[str]] = {name: {""} for name in parsed}
    applying = [each for each in asked if _applies(each, [""])]
    while True:
        needs = {
            name: tuple(each for each in found if _applies(each, extras[name]))
            for name, found in parsed.items()
        }
        before = sum(map(len, extras.values()))
        for requirement in (*applying, *chain.from_iterable(needs.values())):
            extras.get(_name(requirement), set()).update(requirement.extras)
        if sum(map(len, extras.values())) == before:
            return needs


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


def _package(distribution: str) -> str:
    """Returns the package of a distribution: its name, unless it is TensorFlow's or Keras's."""
    return _NAMES.get(package_of(distribution), distribution)


def _own(side: _Side, shared: Sequence[str], changed: Sequence[str]) -> list[str]:
    """Returns the packages of this side only that no change requires."""
    starts = [each for package in changed for each in side.packages[package]]
    covered = _reached(side, starts, shared)
    rest = [name for name in side.entries if _package(name) not in shared and name not in covered]
    own: list[str] = []
    while rest:
        needed = {_name(each) for name in rest for each in side.needs[name]}
        root = next((name for name in rest if name not in needed), rest[0])  # rest: a circle
        own.append(_package(root))
        covered |= {root, *_reached(side, side.packages[own[-1]], shared)}
        rest = [name for name in rest if name not in covered and _package(name) not in own]
    return own


def _reached(side: _Side, starts: Iterable[str], shared: Sequence[str]) -> set[str]:
    """Returns the distributions of this side only that others require, transitively."""
    known, found = set(starts), set[str]()
    waiting = list(known)
    while waiting:
        for requirement in side.needs[waiting.pop()]:
            name = _name(requirement)
            is_own = name in side.entries and _package(name) not in shared
            if is_own and name not in known:
                known.add(name)
                found.add(name)
                waiting.append(name)
    return found


def _chosen(pair: _Pair, names: Collection[str]) -> dict[str, _Side]:
    """Returns the side of each distribution of an environment with some packages exchanged."""
    good, bad = pair.sides
    chosen: dict[str, _Side] = {}
    for package in pair.shared:
        side = bad if package in names else good
        chosen.update(dict.fromkeys(side.packages[package], side))
    for package in pair.own:
        (side,) = (side for side in pair.sides if package in side.packages)
        if (package in names) == (side is bad):
            chosen.update(dict.fromkeys(side.packages[package], side))
    waiting = list(chosen)
    while waiting:
        name = waiting.pop()
        for needed in map(_name, chosen[name].needs[name]):
            is_extra = _package(needed) not in (*pair.shared, *pair.own)
            if is_extra and needed in chosen[name].entries and needed not in chosen:
                chosen[needed] = chosen[name]
                waiting.append(needed)
    return chosen


def _pins(chosen: Mapping[str, _Side]) -> list[str]:
    """Returns the words that pin the distributions, TensorFlow and Keras first."""
    order = sorted(chosen, key=lambda name: (_place(_package(name)), name))
    return [chosen[name].pin(name) for name in order]


def _forced(chosen: Mapping[str, _Side]) -> list[str]:
    """Returns the words that replace requirements which the pins do not meet."""
    words = set()
    for name, side in chosen.items():
        for requirement in side.needs[name]:
            needed = _name(requirement)
            if needed not in chosen:
                words.add(f"without:{needed}")
            elif not requirement.specifier.contains(
                chosen[needed].version(needed), prereleases=True
            ):
                words.add(f"override:{chosen[needed].pin(needed)}")
    return sorted(words)


def _through_tf_keras(
    pair: _Pair, names: Collection[str], chosen: Mapping[str, _Side]
) -> list[str]:
    """Returns the words for TensorFlow's own Keras 3 with Keras 2 beside it; none without need."""
    tensorflow, keras = (_version(chosen, package) for package in (TENSORFLOW, KERAS))
    if not tensorflow or not keras or _version(chosen, _NAMES["tf_keras"]):
        return []
    if tensorflow < _FIRST_WITH_KERAS_3 or keras.major > 2 or KERAS not in pair.changed:
        return []
    other = _chosen(pair, set(names) ^ {KERAS})
    if (beside := _version(other, KERAS)) is None or beside.major < 3:
        return []
    own = next(name for name in other if _package(name) == TENSORFLOW)
    # tf-keras requires `tensorflow`, and of its own version.
    is_required = own == "tensorflow"
    forced = f"override:{other[own].pin(own)}" if is_required else "without:tensorflow"
    pin = f"tf-keras=={tensorflow.major}.{tensorflow.minor}.*"
    return [*_pins(other), pin, *sorted({*_forced(other), forced})]


def _version(chosen: Mapping[str, _Side], package: str) -> Version | None:
    found = (side.version(name) for name, side in chosen.items() if _package(name) == package)
    return next(map(Version, found), None)


def _request(words: Sequence[str], settings: Sequence[str]) -> Request:
    return parse_request(" ".join([*map(quoted, words), *settings]))


def _settings(request: Request) -> list[str]:
    return [quoted(f"{name}={value}") for name, value in sorted(request.settings.items())]


def _version_text(side: _Side, package: str, pair: _Pair) -> str | None:
    names = side.packages.get(package, ())
    versions = packages_of([side.entries[name] for name in names])
    known = {each.packages[package] for each in pair.sides if package in each.packages}
    if len(known) == 1 and len(names) == 1:
        return versions[names[0]]
    return " and ".join(f"{name} {version}" for name, version in versions.items()) or None


def _place(package: str) -> tuple[int, str]:
    first, last = (TENSORFLOW, KERAS), (SETTINGS,)
    if package in first:
        return first.index(package), package
    return (4 if package in last else 3), package
