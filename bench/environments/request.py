"""Requests: requirements, wheels and settings of an environment, as words in a line.

Words are separated and quoted as in a shell: `'./my builds/tensorflow-…-any.whl'`.
"""

from __future__ import annotations

import email
import os
import re
import shlex
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from bench.environments.variables import FOLDERS, IMPORT_PATHS, import_paths_of_session
from lenet5.errors import InputError
from lenet5.printable import in_one_line, without_credentials

SETTING_PREFIXES = ("TF_", "XLA_", "KERAS_")
_SWITCHES = {"NVIDIA_TF32_OVERRIDE": ("0", "1")}
_PATHS = (*IMPORT_PATHS, "LD_LIBRARY_PATH")
_DEVICES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
_METADATA = r"[^/]+\.dist-info/METADATA"
_LARGEST_METADATA = 2**22  # bytes; TensorFlow's has 2**14
_SETTING = re.compile(r"(\w+)=(?!=)(.*)")
_MOMENT = re.compile(  # RFC 3339
    r"(\d{4}-\d\d-\d\d)(?:[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d*)?([Zz]|[+-]\d\d:\d\d))?",
    re.ASCII,
)
# Each has the extra nevertheless (findings/tensorflow_cpu_has_the_extra_and_cuda.sh).
_FOR_CPUS = ("tensorflow-cpu", "tf-nightly-cpu")
_CUDA = "and-cuda"
_SPECIAL = re.compile(r"[\s'\"\\]|^$")  # in a word, to `shlex.split`


@dataclass(frozen=True)
class Request:
    """Request for an environment.

    Attributes:
        text: request as given, with single spaces and one form of quotes.
        requirements: PEP 508 requirements, and absolute paths of wheels.
        interpreter: existing interpreter, in place of requirements.
        settings: variables for its processes.
        overrides: requirements, and absolute paths of wheels, that replace the dependencies of
            packages.
        as_of: date or moment, as given, after which no release counts; empty without one.
    """

    text: str
    requirements: tuple[str, ...]
    interpreter: Path | None
    settings: Mapping[str, str]
    overrides: tuple[str, ...] = ()
    as_of: str = ""


def parse_request(text: str) -> Request:
    """Parses a request: words separated by spaces, and quoted as in a shell if they have some.

    A word is a requirement, a wheel's path, `.` (this Python), `python:PATH`, a setting
    `NAME=VALUE`, `override:REQUIREMENT` (or a wheel's path), `without:NAME` or `as-of:DATE`.
    `without:NAME` excludes a distribution even if packages depend on it. `as-of:DATE` resolves the
    packages as on that day. `.` includes this session's `PYTHONPATH` and user's site.

    Raises:
        InputError: a word is none of these, two words conflict, or a text has an invisible
            character or a password.
    """
    words = _words(text)
    text = " ".join(map(quoted, words))
    _check_shown(text)
    requirements: list[str] = []
    overrides: list[str] = []
    interpreters: list[Path] = []
    settings: dict[str, str] = {}
    own: dict[str, str] = {}
    dates: list[str] = []
    for word in words:
        kind, _, rest = word.partition(":")
        if setting := _SETTING.fullmatch(word):
            name, value = _setting(text, setting[1], setting[2])
            if settings.setdefault(name, value) != value:
                raise InputError(f"{text}: {name} is set twice")
        elif word == ".":
            interpreters.append(Path(sys.executable))
            own = import_paths_of_session()
        elif kind == "python" and rest:
            interpreters.append(absolute(text, rest))
        elif kind == "as-of":
            moment_of(rest, text)
            dates.append(rest)
        elif kind == "override":
            overrides.append(_package(text, rest))
        elif kind == "without":
            overrides.append(_without(text, rest))
        else:
            requirements.append(_package(text, word))
    if len(dates) > 1:
        raise InputError(f"{text}: as-of: is given twice")
    _check_together(text, interpreters, requirements, [*overrides, *dates], settings)
    return Request(
        text,
        tuple(requirements),
        interpreters[0] if interpreters else None,
        {**own, **settings},
        tuple(overrides),
        "".join(dates),
    )


def moment_of(as_of: str, text: str = "") -> datetime:
    """Returns the moment, in UTC, before which a release counts.

    Args:
        as_of: a day (`2026-09-01`), which counts to its end in UTC, or a moment of RFC 3339.
        text: request of the date, for the message.

    Raises:
        InputError: there is no such day or moment.
    """
    try:
        if not (found := _MOMENT.fullmatch(as_of)):
            raise ValueError
        day, clock, fraction, zone = found.groups()
        if not clock:
            midnight = datetime.combine(date.fromisoformat(day), time(), timezone.utc)
            return midnight + timedelta(days=1)
        digits = (fraction or "").ljust(6, "0")  # Python 3.10 reads six, and no Z
        zone = "+00:00" if zone in "Zz" else zone
        moment = datetime.fromisoformat(f"{day}T{clock}.{digits}{zone}")
        return moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise InputError(
            f"{text or as_of}: as-of:{as_of}: expected a date such as as-of:2026-09-01, or a "
            "moment such as as-of:2026-09-01T12:00:00Z"
        ) from None


def quoted(word: str) -> str:
    """Returns a word as a request writes it: in quotes if it has blanks, quotes or backslashes."""
    return shlex.quote(word) if _SPECIAL.search(word) else word


def _check_together(
    text: str,
    interpreters: Sequence[Path],
    requirements: Sequence[str],
    others: Sequence[str],
    settings: Mapping[str, str],
) -> None:
    if len(interpreters) > 1 or (interpreters and (requirements or others)):
        raise InputError(f"{text}: an existing Python accepts only settings beside it")
    if not interpreters and not requirements:
        raise InputError(
            f"{text or 'an empty environment'}: give requirements, a wheel, . or python:PATH"
        )
    for name in IMPORT_PATHS:
        if name in settings and not interpreters:
            raise InputError(f"{text}: {name} needs an existing Python beside it")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        told = str(error).lower()
        raise InputError(f"{' '.join(text.split())}: {told}: quote words as in a shell") from None


def _check_shown(text: str) -> None:
    """Rejects a text that no report should show."""
    if not text.isprintable():
        raise InputError(f"{in_one_line(text)}: contains an invisible character")
    if (shown := without_credentials(text)) != text:
        raise InputError(f"{shown}: a user or password would stand in every report")


def _setting(text: str, name: str, value: str) -> tuple[str, str]:
    if name in _DEVICES:
        told = "a device is not part of an environment: choose it with --device"
        raise InputError(f"{text}: {name}={value}: {told}")
    others = (*_SWITCHES, *_PATHS)
    if not name.startswith(SETTING_PREFIXES) and name not in others:
        raise InputError(
            f"{text}: {name}={value} is not a setting, which begins with TF_, XLA_ or KERAS_ or is "
            f"{', '.join(others[:-1])} or {others[-1]}; a version is written with =="
        )
    if name in _SWITCHES and value not in _SWITCHES[name]:
        raise InputError(f"{text}: {name}={value}: expected {' or '.join(_SWITCHES[name])}")
    if name in FOLDERS:  # absolute: measured processes have a working folder of their own
        folders = (str(absolute(text, folder)) for folder in value.split(os.pathsep) if folder)
        return name, os.pathsep.join(folders)
    if name in IMPORT_PATHS and value:
        return name, str(absolute(text, value))
    if name == "KERAS_BACKEND" and value != "tensorflow":
        raise InputError(f"{text}: {name}={value}: only Keras on TensorFlow is measured")
    return name, value


def _package(text: str, word: str) -> str:
    is_wheel = word.endswith(".whl") and "://" not in word
    return _wheel(text, word) if is_wheel else _requirement(text, word)


def _requirement(text: str, word: str) -> str:
    if word.startswith("-"):
        raise InputError(f"{text}: {word}: options are not allowed, give packages only")
    if "://" in word or "@" in word:
        raise InputError(f"{text}: {word}: URLs are not allowed, give a version or a wheel's path")
    if word.startswith(("/", "./", "../", "~")):
        raise InputError(f"{text}: {word}: only wheels (.whl) are accepted as files")
    try:
        found = Requirement(word)
    except InvalidRequirement:
        how = "write it without blanks, such as tensorflow-cpu==2.16.2, or in quotes"
        if ";" in word:
            how = """write it in quotes, such as 'keras; python_version < "3.12"'"""
        raise InputError(f"{text}: {word or 'nothing'} is not a requirement: {how}") from None
    has_cuda = any(canonicalize_name(extra) == _CUDA for extra in found.extras)
    if has_cuda and canonicalize_name(found.name) in _FOR_CPUS:
        raise InputError(
            f"{text}: {word}: {found.name} cannot use CUDA's libraries: ask for tensorflow[{_CUDA}]"
        )
    return word


def _without(text: str, name: str) -> str:
    """Returns an override that excludes a distribution: its marker is never true."""
    word = _requirement(text, name)
    if canonicalize_name(word) != canonicalize_name(Requirement(word).name):
        raise InputError(f"{text}: without:{word}: expected a name only, such as without:keras")
    return f"{word} ; sys_platform == 'never'"


def _wheel(text: str, word: str) -> str:
    path = absolute(text, word)
    if not path.is_file():
        raise InputError(f"{text}: {path}: the wheel does not exist")
    try:
        parse_wheel_filename(path.name)
    except InvalidWheelFilename:
        raise InputError(
            f"{text}: {path.name} is not a wheel's name: keep its original name"
        ) from None
    _check_requirements_of(text, path)
    return str(path)


def _check_requirements_of(text: str, wheel: Path) -> None:
    """Rejects a wheel that requires a package from a URL, before uv would fetch that."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (n for n in archive.namelist() if re.fullmatch(_METADATA, n))
            if archive.getinfo(name).file_size > _LARGEST_METADATA:
                raise InputError(f"{text}: {wheel.name}: METADATA is too large")
            lines = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])
        urls = [line.partition("@")[0].strip() for line in lines if _has_url(line)]
    except (ValueError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise InputError(f"{text}: {wheel.name} is not a whole wheel") from None
    if urls:
        told = f"requires {urls[0]} from a URL: give its wheel beside it, and require its version"
        raise InputError(f"{text}: {wheel.name} {told}")


def _has_url(line: str) -> bool:
    try:
        return Requirement(line).url is not None
    except InvalidRequirement:  # uv repairs some of them; its answer is checked too
        return False


def absolute(text: str, path: str) -> Path:
    """Returns the absolute path, with `~` expanded.

    Raises:
        InputError: the home folder is unknown; the message begins with `text`.
    """
    try:
        return Path(path).expanduser().absolute()  # not resolved: a venv's python is a link
    except RuntimeError as error:  # unknown user, or a user without a home folder
        raise InputError(f"{text}: {path}: {error}") from None
