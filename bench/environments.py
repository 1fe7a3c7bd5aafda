"""Requests such as `tensorflow-cpu==2.16.2 keras==3.0.5` turned into virtual environments.

uv resolves a request and installs it, once, into `<cache>/environments/<key>`; the key stands for
the resolved list, the SHA-256 of local wheels, and the Python.

environments/<key>/<home>/         the environment
environments/<key>/complete.json   names its home and its lock; written last
environments/<key>.lock            held by the process that builds it
requests/<hash of a request>.json  the key that it came to last, for when there is no network
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from lenet5.errors import InputError
from lenet5.run_directory import read_json, write_json

SETTING_PREFIXES = ("TF_", "XLA_", "KERAS_")
_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu")
_SETTING = re.compile(r"(\w+)=(?!=)(.*)")
_COMPLETE = "complete.json"
_PYTHON = "bin/python"
_KEY_VERSION = 1  # a change of how environments are built makes new ones
_IMPORT_SECONDS = 600
_LONGEST_REASON = 300

# What would make uv build something else than the request says; indexes and caches are kept.
_NOT_FOR_UV = (
    *("CONDA_", "PYTHON", "VIRTUAL_ENV", "UV_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_EXCLUDE"),
    *("UV_OVERRIDE", "UV_PRERELEASE", "UV_PROJECT", "UV_PYTHON", "UV_REQUIRE_HASHES"),
    *("UV_RESOLUTION", "UV_SYSTEM_PYTHON", "UV_TORCH_BACKEND", "UV_VENV_", "UV_WORKING_DIR"),
)
_NO_NETWORK = re.compile(r"Failed to (fetch|download)|network\s+was\s+disabled")
_LINK = re.compile(r"\s*(error:|cause:|Caused by:|[^\x00-\x7f]+)\s+")  # older uvs draw a tree

_LIST = """
import json, platform
from importlib.metadata import distributions
found = [[item.metadata["Name"], item.version] for item in distributions()]
print(json.dumps([platform.python_version(), found]))
"""
_FAILS = "TensorFlow cannot be imported there"
# An import that fails may tell its reason in the middle of many lines.
_IMPORT = f"""
import sys
try:
    import tensorflow
    tensorflow.keras.layers
except Exception as error:
    if isinstance(error, ModuleNotFoundError) and error.name == "tensorflow":
        sys.exit("holds no TensorFlow")
    told = [line for line in str(error).splitlines() if line.strip()]
    told = [line for line in told if not line.startswith(("Traceback", " "))] or told or [""]
    sys.exit("{_FAILS}: %s: %s" % (type(error).__name__, told[0]))
"""


class EnvironmentProblem(Exception):  # noqa: N818 - a verdict on the environment, no bug
    """An environment cannot be built or TensorFlow not imported there; one line says why."""


@dataclass(frozen=True)
class Request:
    """What an environment is to be.

    Attributes:
        text: as given, with single blanks.
        requirements: PEP 508 each, and absolute paths of wheels.
        interpreter: that exists already, in place of requirements.
        settings: variables that its processes are started with.
        overrides: requirements that replace what packages ask for.
    """

    text: str
    requirements: tuple[str, ...]
    interpreter: Path | None
    settings: Mapping[str, str]
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """An environment that TensorFlow was imported in.

    Attributes:
        request: that it was built for.
        python: its interpreter.
        lock: `name==version` of all that it holds, sorted; of a local wheel
            `name==version @ sha256:<hash>`.
        python_version: such as `3.11.7`.
    """

    request: Request
    python: Path
    lock: tuple[str, ...]
    python_version: str


def parse_request(text: str) -> Request:
    """Reads a request: words separated by blanks.

    A word is a requirement, a wheel's path, `.` (this Python), `python:PATH`, a setting
    `NAME=VALUE`, `override:REQUIREMENT`, or `without:NAME`, which keeps a distribution away
    whoever asks for it.

    Raises:
        InputError: a word is none of these, or they do not go together.
    """
    text = " ".join(text.split())
    requirements: list[str] = []
    overrides: list[str] = []
    interpreters: list[Path] = []
    settings: dict[str, str] = {}
    for word in text.split():
        kind, _, rest = word.partition(":")
        if setting := _SETTING.fullmatch(word):
            name, value = _setting(text, setting[1], setting[2])
            if settings.setdefault(name, value) != value:
                raise InputError(f"{text}: {name} is set twice")
        elif word == ".":
            interpreters.append(Path(sys.executable))
        elif kind == "python" and rest:
            interpreters.append(_absolute(text, rest))
        elif kind == "override":
            overrides.append(_requirement(text, rest))
        elif kind == "without":
            name = _requirement(text, rest)
            if canonicalize_name(name) != canonicalize_name(Requirement(name).name):
                raise InputError(f"{text}: {word}: expected a name only, such as without:keras")
            overrides.append(f"{name} ; sys_platform == 'never'")  # a marker that is never true
        elif word.endswith(".whl") and "://" not in word:
            requirements.append(_wheel(text, word))
        else:
            requirements.append(_requirement(text, word))
    if len(interpreters) > 1 or (interpreters and (requirements or overrides)):
        raise InputError(
            f"{text}: an existing Python is taken as it is: settings alone may stand beside it"
        )
    if not interpreters and not requirements:
        raise InputError(
            f"{text or 'an empty environment'}: give requirements, a wheel, . or python:PATH"
        )
    interpreter = interpreters[0] if interpreters else None
    return Request(text, tuple(requirements), interpreter, settings, tuple(overrides))


def default_cache(environment: Mapping[str, str]) -> Path:
    """The user's cache folder's `lenet5-bench`.

    Raises:
        InputError: there is no home folder.
    """
    folder = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return _absolute("the cache", folder) / "lenet5-bench"


def build(request: Request, cache: Path, *, say: Callable[[str], None]) -> Built:
    """Builds an environment, or finds it built, and imports TensorFlow there once.

    Args:
        request: by `parse_request`.
        cache: folder that environments are kept in.
        say: takes a line about what happens.

    Raises:
        EnvironmentProblem: it cannot be built, or TensorFlow cannot be imported there.
    """
    try:
        with tempfile.TemporaryDirectory(
            prefix="lenet5-bench-", ignore_cleanup_errors=True
        ) as folder:
            scratch = Path(folder)
            if request.interpreter is not None:
                python, version, lock = _existing(request.interpreter, scratch)
            else:
                version = platform.python_version()
                python, lock = _from_cache(request, cache.absolute(), scratch, say)
            _check_import(python, request.settings, scratch)
    except (EnvironmentProblem, InputError) as error:
        raise EnvironmentProblem(f"{request.text}: {error}") from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise EnvironmentProblem(f"{request.text}: {place}{error.strerror or error}") from None
    return Built(request, python, lock, version)


def labels(
    locks: Sequence[tuple[str, ...]],
    settings: Sequence[Mapping[str, str]],
    python_versions: Sequence[str] = (),
) -> list[str]:
    """Short names for tables: TensorFlow's version, and what differs where that is the same.

    Args:
        locks: of the baseline, then of the candidates; empty where one could not be built.
        settings: of the same.
        python_versions: of the same, if they may differ.

    Returns:
        As many names, all different; `again` marks an environment that is there already.
    """
    packages = [_packages(lock) for lock in locks]
    sides = list(zip(packages, settings, python_versions or [""] * len(locks), strict=True))
    names = [_tensorflow(held) for held in packages]
    names = _told_apart(names, [_facets(*side) for side in sides])
    everything = [{name: f"+ {name} {held[name]}" for name in held} for held in packages]
    unique: list[str] = []
    for place, name in enumerate(_told_apart(names, everything, most=2)):
        first = sides.index(sides[place])
        label = name if first == place else f"{unique[first]} again"
        number = 1 + sum(other.startswith(label) for other in unique)
        unique.append(f"{label} ({number})" if label in unique else label)
    return unique


def _told_apart(
    names: Sequence[str], facets: Sequence[Mapping[str, str]], most: int = 99
) -> list[str]:
    """Adds to each name the facets that differ among the sides of this name."""
    longer = []
    for name, own in zip(names, facets, strict=True):
        group = [other for same, other in zip(names, facets, strict=True) if same == name]
        texts = [own[key] for key in own if len({other.get(key) for other in group}) > 1]
        more = [f"and {len(texts) - most} more"] if len(texts) > most else []
        longer.append(" ".join([name, *texts[:most], *more]))
    return longer


def _facets(
    packages: Mapping[str, str], settings: Mapping[str, str], python: str
) -> dict[str, str]:
    """What sides of one TensorFlow may differ in, by kind, in the order that it is told in."""
    facets = {}
    for name in _TENSORFLOW:
        if name in packages:
            facets = {"name": f"({name})", "wheel": packages[name].partition(" ")[2]}
    shown = dict(settings)
    keras = [f"+ Keras {packages[name]}" for name in ("keras", "keras-nightly") if name in packages]
    if settings.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true") and "tf-keras" in packages:
        keras = [f"+ tf-keras {packages['tf-keras']}"]
        del shown["TF_USE_LEGACY_KERAS"]
    facets["keras"] = " ".join(keras[:1])
    facets["python"] = f"+ Python {python}"
    facets.update({name: f"{name}={shown[name]}" for name in sorted(shown)})
    return {kind: text for kind, text in facets.items() if text}


def _packages(lock: Sequence[str]) -> dict[str, str]:
    """Versions by name; of a local wheel with the begin of its SHA-256."""
    entries = (re.split(r"==| @ sha256:", entry) for entry in lock)
    return {
        name: f"{version} (wheel {digest[0][:7]})" if digest else version
        for name, version, *digest in entries
    }


def _tensorflow(packages: Mapping[str, str]) -> str:
    found = [packages[name].split()[0] for name in _TENSORFLOW if name in packages]
    return (found or ["unknown TensorFlow" if packages else "not built"])[0]


def _setting(text: str, name: str, value: str) -> tuple[str, str]:
    if not name.startswith(SETTING_PREFIXES):
        raise InputError(
            f"{text}: {name}={value} is no setting, those begin with TF_, XLA_ or KERAS_; "
            "a version is written with =="
        )
    if name == "KERAS_BACKEND" and value != "tensorflow":
        raise InputError(f"{text}: {name}={value}: only Keras on TensorFlow is measured")
    return name, value


def _requirement(text: str, word: str) -> str:
    if word.startswith("-"):
        raise InputError(f"{text}: {word}: options are refused, give packages only")
    if "://" in word or "@" in word:
        raise InputError(f"{text}: {word}: URLs are refused, give a version or a wheel's path")
    if word.startswith(("/", "./", "../", "~")):
        raise InputError(f"{text}: {word}: of files, only wheels (.whl) are accepted")
    try:
        Requirement(word)
    except InvalidRequirement:
        raise InputError(
            f"{text}: {word or 'nothing'} is no requirement: write it without blanks, "
            "such as tensorflow-cpu==2.16.2"
        ) from None
    return word


def _wheel(text: str, word: str) -> str:
    path = _absolute(text, word)
    if not path.is_file():
        raise InputError(f"{text}: {path}: there is no such wheel")
    try:
        parse_wheel_filename(path.name)
    except InvalidWheelFilename:
        raise InputError(
            f"{text}: {path.name} is no wheel's name: keep the one that it was built with"
        ) from None
    return str(path)


def _absolute(text: str, path: str) -> Path:
    try:
        return Path(path).expanduser().absolute()  # not resolved: a venv's python is a link
    except RuntimeError as error:  # no such user, or one without a home folder
        raise InputError(f"{text}: {path}: {error}") from None


def _existing(python: Path, scratch: Path) -> tuple[Path, str, tuple[str, ...]]:
    """The interpreter, its version and its lock."""
    if python.is_dir():
        raise EnvironmentProblem("is a folder, name the interpreter in it: bin/python")
    try:
        done = _run([python, "-I", "-c", _LIST], _clean(scratch), scratch, _IMPORT_SECONDS)
    except OSError as error:
        raise EnvironmentProblem(f"cannot be run: {error.strerror}") from None
    try:
        version, found = json.loads(done.stdout.splitlines()[-1])
        lock: dict[str, str] = {}
        for name, number in found:
            if name and number:  # what a broken uninstall leaves behind has neither
                lock.setdefault(canonicalize_name(name), number)  # the first is the one imported
    except (IndexError, ValueError, TypeError):
        raise EnvironmentProblem(f"is no Python 3.8 or newer: {_told(done.stderr)}") from None
    return python, version, tuple(sorted(f"{name}=={number}" for name, number in lock.items()))


def _from_cache(
    request: Request, cache: Path, scratch: Path, say: Callable[[str], None]
) -> tuple[Path, tuple[str, ...]]:
    """The interpreter and the lock of an environment that is made where it is not there yet."""
    wheels = {path: _sha256(Path(path)) for path in request.requirements if path.endswith(".whl")}
    asked = [wheels.get(requirement, requirement) for requirement in request.requirements]
    remembered = cache / "requests" / f"{_digest([asked, request.overrides])}.json"
    try:
        pins = _resolve(request, wheels, scratch)
    except ConnectionError as error:
        before = _built_before(cache, remembered)
        if before is None:
            raise EnvironmentProblem(
                f"cannot be resolved without network, and was not built here before: {error}"
            ) from None
        say(f"{request.text}: no network, {_tensorflow(_packages(before[1]))} of before is used")
        return before
    lock = tuple(sorted(pins))
    folder = cache / "environments" / _digest(lock)
    for parent in (folder, remembered.parent):
        parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (built := _complete(folder)) is None:
            say(f"{request.text}: is built in {folder}")
            home = _install(folder, pins.values(), scratch)
            about = {"request": request.text, "home": home.name, "lock": lock}
            write_json(folder / _COMPLETE, about)
            built = home / _PYTHON, lock
        for other in folder.iterdir():  # left by processes that were killed
            if other not in built[0].parents:
                shutil.rmtree(other, ignore_errors=True)  # which leaves files, complete.json, alone
        write_json(remembered, {"request": request.text, "key": folder.name})
    return built


def _resolve(request: Request, wheels: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """What to install, as uv wants it, by its entry in the lock.

    Raises:
        ConnectionError: there is no network.
        EnvironmentProblem: the requirements cannot be met.
    """
    lines, local = [], {}
    for requirement in request.requirements:
        if requirement in wheels:
            path = Path(requirement)
            name, version, *_ = parse_wheel_filename(path.name)
            local[str(name)] = f"{name}=={version} @ sha256:{wheels[requirement]}"
            lines.append(f"{name} @ {path.as_uri()}")
        else:
            lines.append(requirement)
    wanted, overrides = scratch / "requirements.in", scratch / "overrides.txt"
    wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
    overrides.write_text("\n".join(request.overrides) + "\n", encoding="utf-8")
    done = _uv(
        scratch,
        *("pip", "compile", wanted, "--override", overrides, "--python", sys.executable),
        *("--no-header", "--no-annotate"),
    )
    if done.returncode:
        reason = condensed(done.stderr)
        if _NO_NETWORK.search(done.stderr):
            raise ConnectionError(reason)
        raise EnvironmentProblem(f"cannot be resolved: {reason}")
    found = [line.strip() for line in done.stdout.splitlines()]
    found = [line for line in found if line and not line.startswith(("#", "-"))]
    return {local.get(line.partition(" @ ")[0], line): line for line in found}


def _install(folder: Path, pins: Iterable[str], scratch: Path) -> Path:
    """Makes an environment in a new folder below this one."""
    # Never where another was begun: if that process was killed, its uv may still be writing.
    home = folder / uuid.uuid4().hex[:8]
    pinned = scratch / "requirements.txt"
    pinned.write_text("\n".join(pins) + "\n", encoding="utf-8")
    to = ("--python", home / _PYTHON)
    try:
        for command in (
            ("venv", home, "--python", sys.executable, "--no-project"),
            # Without compiled bytecode an import would be timed with its compilation.
            ("pip", "install", *to, "--no-deps", "--compile-bytecode", "-r", pinned),
        ):
            done = _uv(scratch, *command)
            if done.returncode:
                raise EnvironmentProblem(f"cannot be installed: {condensed(done.stderr)}")
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    return home


def _complete(folder: Path) -> tuple[Path, tuple[str, ...]] | None:
    """The interpreter and the lock of an environment that was built whole and is still there."""
    with contextlib.suppress(InputError, KeyError, TypeError):
        about = read_json(folder / _COMPLETE)
        python = folder / about["home"] / _PYTHON
        if python.exists():
            return python, tuple(about["lock"])
    return None


def _built_before(cache: Path, remembered: Path) -> tuple[Path, tuple[str, ...]] | None:
    with contextlib.suppress(InputError, KeyError, TypeError):
        return _complete(cache / "environments" / read_json(remembered)["key"])
    return None


def _check_import(python: Path, settings: Mapping[str, str], scratch: Path) -> None:
    variables = {**_clean(scratch), **settings}
    command = (python, "-I", "-c", _IMPORT)
    done = _run(command, variables, scratch, _IMPORT_SECONDS)
    reason = ""
    if done.returncode < 0:  # C++ says why it aborts at the lowest level only
        reason = f"{_FAILS}: killed by signal {-done.returncode}: "
        done = _run(command, {**variables, "TF_CPP_MIN_LOG_LEVEL": "0"}, scratch, _IMPORT_SECONDS)
    elif done.returncode and not done.stderr.strip():
        reason = f"{_FAILS}: exit status {done.returncode}"
    if reason or done.returncode:
        raise EnvironmentProblem(reason + _told(done.stderr))


def _clean(home: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",
    }


def _uv(scratch: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_FOR_UV)}
    # In a folder of its own: no project's configuration is found from there, but the user's is.
    return _run([_find_uv(), *arguments, "--color", "never", "--no-progress"], variables, scratch)


def _find_uv() -> str:
    with contextlib.suppress(ImportError, FileNotFoundError):
        from uv import find_uv_bin

        return find_uv_bin()
    if found := shutil.which("uv"):
        return found
    raise EnvironmentProblem("uv is missing, which builds environments: pip install uv")


def _run(
    command: Sequence[str | Path],
    variables: Mapping[str, str],
    folder: Path,
    seconds: float | None = None,
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=dict(variables),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(f"{command[0]} did not end within {seconds:g} s") from None


def condensed(message: str) -> str:
    """A message of uv's in one line: what failed and the last cause, or the unmet premises."""
    links: list[str] = []
    for line in message.splitlines():
        mark = _LINK.match(line)
        if mark:
            links.append(line[mark.end() :].strip())
        elif links and not line.strip():
            break  # hints follow
        elif links:
            links[-1] += f" {line.strip(' │')}"
    if not links:
        return _told(message) or "uv ended without a word"
    if "Because " in links[-1]:
        return _shortened(_premises(links[-1].partition("Because ")[2]))
    head = links[0].rstrip(":")
    return _shortened(head if len(links) == 1 else f"{head}: {links[-1]}")


def _premises(proof: str) -> str:
    kept: list[str] = []
    for step in re.split(r"\.?\s+And because ", proof):
        told = step.split(", we can conclude that")[0].rstrip(".")
        premise, _, required = told.rpartition(" and you require ")
        if premise and re.split(r"[^\w.-]", required)[0] in premise:
            told = premise  # the request stands before the message anyway
        if told.removeprefix("you require ") not in "; ".join(kept):
            kept.append(told)
    return "; ".join(kept)


def _told(output: str) -> str:
    """The last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return _shortened(lines[-1]) if lines else ""


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _digest(content: Any) -> str:
    python = (sys.version, sys.base_prefix, sysconfig.get_platform())
    text = json.dumps([_KEY_VERSION, python, content])
    return hashlib.sha256(text.encode()).hexdigest()[:20]
