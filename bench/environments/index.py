"""Releases of a package, from a package index.

The index answers in JSON (PEP 691), with the date and the size of each file (PEP 700). The public
index does; one that answers in HTML only does not tell these.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, sys_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from bench.environments.commands import EnvironmentProblem
from lenet5.errors import InputError
from lenet5.preparation.download import download
from lenet5.printable import short_line, without_credentials

PUBLIC = "https://pypi.org/simple"
_INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")  # the first one that is set
_TRUE = ("1", "true", "yes", "on")
_JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
_LARGEST = 2**26  # bytes; the nightly builds of Keras have 2**20
_MOST_SECONDS = 120
_REMEDY = "give the levels by hand: --level REQ"


@dataclass(frozen=True)
class Release:
    """A version with a wheel that can be installed here.

    Attributes:
        version: its version.
        uploaded: upload of the first such wheel, in UTC; None if the index does not tell it.
        size_bytes: size of the wheel that fits this machine best; None if it is not told.
    """

    version: Version
    uploaded: datetime | None = None
    size_bytes: int | None = None


class _File(msgspec.Struct, rename="kebab"):
    filename: str
    requires_python: str | None = None
    yanked: bool | str = False
    upload_time: datetime | None = None
    size: int | None = None


class _Meta(msgspec.Struct, rename="kebab"):
    api_version: str


class _Project(msgspec.Struct):
    meta: _Meta
    files: list[_File]


def releases(
    name: str,
    *,
    python: str | None = None,
    tags: Iterable[Tag] | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[Release, ...]:
    """Returns the releases of a package that can be installed here, in order of version.

    Yanked files count as missing, and so do source archives.

    Args:
        name: name of the distribution.
        python: version of Python; None: of this interpreter.
        tags: tags of wheels, best first; None: of this interpreter.
        variables: environment variables with the index's address; None: of this process.

    Raises:
        EnvironmentProblem: the index cannot be asked, or does not know the package.
    """
    variables = os.environ if variables is None else variables
    project = _project(name, variables)
    order = {tag: place for place, tag in enumerate(sys_tags() if tags is None else tags)}
    rank = partial(_rank, python=python or platform.python_version(), order=order)
    found: dict[Version, list[tuple[int, _File]]] = {}
    for file in project.files:
        try:
            _, version, _, of_file = parse_wheel_filename(file.filename)
        except ValueError:  # a source archive, or a version that is none
            continue
        if (place := rank(file, of_file)) is not None:
            found.setdefault(version, []).append((place, file))
    return tuple(_release(version, found[version]) for version in sorted(found))


def index_of(variables: Mapping[str, str]) -> str:
    """Returns the address of the index that uv or pip is told to use, or else the public one."""
    given = next((variables[name] for name in _INDEXES if variables.get(name)), PUBLIC)
    return re.sub(r"^[\w.-]+=(?=\w+://)", "", given.strip()).rstrip("/")  # uv's NAME=URL


def _project(name: str, variables: Mapping[str, str]) -> _Project:
    index = index_of(variables)
    problem = partial(_problem, name, without_credentials(index))
    if variables.get("UV_OFFLINE", "").lower() in _TRUE:
        raise problem("is not asked, since UV_OFFLINE is set")
    if not index.startswith(("http://", "https://")):
        raise problem("is a folder, and tells no dates")
    url = f"{index}/{canonicalize_name(name)}/"
    try:
        content = download(url, _LARGEST, headers=_JSON, most_seconds=_MOST_SECONDS)
    except InputError as error:
        answer = getattr(error.__cause__, "response", None)
        if getattr(answer, "status_code", None) == 404:
            raise problem("has no such package") from None
        raise problem(f"cannot be asked: {error}") from None
    try:
        project = msgspec.json.decode(content, type=_Project)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise problem("does not answer in the JSON of PEP 691") from None
    if not project.meta.api_version.startswith("1."):
        raise problem(f"answers in version {project.meta.api_version} of its JSON, not in 1")
    return project


def _problem(name: str, index: str, told: str) -> EnvironmentProblem:
    return EnvironmentProblem(short_line(f"releases of {name}: {index} {told}; {_REMEDY}"))


def _rank(file: _File, tags: Iterable[Tag], *, python: str, order: Mapping[Tag, int]) -> int | None:
    """Returns a place by which the best file comes first; None for one that is not installed."""
    try:
        fits = SpecifierSet(file.requires_python or "").contains(python, prereleases=True)
    except InvalidSpecifier:  # uv repairs some of them
        fits = True
    if file.yanked is not False or not fits:  # PEP 592: a reason may be empty
        return None
    return min((order[tag] for tag in tags if tag in order), default=None)


def _release(version: Version, files: Sequence[tuple[int, _File]]) -> Release:
    uploads = [_in_utc(file.upload_time) for _, file in files if file.upload_time]
    _, best = min(files, key=lambda item: item[0])
    return Release(version, min(uploads, default=None), best.size)


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:  # PEP 700 requires UTC
        return moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc)
