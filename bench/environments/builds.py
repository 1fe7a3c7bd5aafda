"""Builds virtual environments from requests such as `tensorflow-cpu==2.16.2 keras==3.0.5`.

uv resolves a request and installs it, once, into `<cache>/environments/<key>`. The key is a hash of
the lock, with the SHA-256 of local wheels, and of the Python.

environments/<key>/<home>/         the environment
environments/<key>/complete.json   its home, its lock, bytes and seconds of the build; written last
environments/<key>/used            its time is that of the last use; locked by its users
environments/<key>.lock            held by the process that builds it
requests/<hash of a request>.json  last key of the request, for use without network
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
import shutil
import sys
import sysconfig
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from packaging.utils import parse_wheel_filename

from bench.environments import commands
from bench.environments.cache import costs
from bench.environments.cache.entries import COMPLETE, PYTHON, Use, checked_name, complete
from bench.environments.commands import EnvironmentProblem, uv_text
from bench.environments.interpreters import import_tensorflow, packages_in
from bench.environments.labels import date_in_version, is_tensorflow, tensorflow_version
from bench.environments.overlaps import check_overlaps
from bench.environments.request import Request, absolute, moment_of
from bench.environments.scratch import make_private, scratch_folder
from lenet5.errors import InputError
from lenet5.locks import locked
from lenet5.run_directory import read_json, write_json

_KEY_VERSION = 2  # an increment rebuilds all environments, after a change of the build
# The user's uv.toml may choose indexes and caches, but not what a request resolves to.
_AS_REQUESTED = (
    *("--no-generate-hashes", "--no-universal", "--deps", "--strip-extras", "--strip-markers"),
    *("--resolution", "highest", "--prerelease", "if-necessary-or-explicit"),
)
_WHEELS_ONLY = "--no-build"  # a source archive would run its code with the user's variables
_COPIED = ("--link-mode", "copy")
_NO_HASHES = ("--no-require-hashes", "--no-verify-hashes")
_UNKNOWN_DATE = date(1980, 1, 1)  # of reproducible archives
_NO_NETWORK = re.compile(r"Failed to (fetch|download)|network\s+was\s+disabled")


@dataclass(frozen=True)
class Built:
    """A built environment, after one import of TensorFlow.

    Attributes:
        request: request of the environment.
        python: its interpreter.
        lock: `name==version` of every distribution, sorted; for a local wheel
            `name==version @ sha256:<hash>`.
        python_version: such as `3.11.7`.
        versions: result of `bench.environments.interpreters.import_tensorflow`.
        note: reason and age of an earlier build in place of today's; usually empty.
        use: keeps the environment from being removed, as long as this object is there.
    """

    request: Request
    python: Path
    lock: tuple[str, ...]
    python_version: str
    versions: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    use: Use | None = field(default=None, compare=False, repr=False)


def default_cache(environment: Mapping[str, str]) -> Path:
    """Returns `lenet5-bench` in the user's cache folder.

    Raises:
        InputError: the user has no home folder.
    """
    folder = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return absolute("the cache", folder) / "lenet5-bench"


def build(request: Request, cache: Path, *, say: Callable[[str], None]) -> Built:
    """Builds an environment, or reuses a cached one, and imports TensorFlow in it once.

    Args:
        request: request from `bench.environments.request.parse_request`.
        cache: folder of the environments.
        say: receives progress messages, one line each.

    Raises:
        EnvironmentProblem: the build or the import of TensorFlow failed.
    """
    try:
        with scratch_folder() as scratch:
            note, use = "", None
            if request.interpreter is not None:
                python = request.interpreter
                version, lock = packages_in(python, request.settings, scratch)
            else:
                version = platform.python_version()
                make_private(cache.absolute())
                python, lock, note, use = _from_cache(request, cache.absolute(), scratch, say)
            try:
                versions = import_tensorflow(python, request.settings, scratch)
            except EnvironmentProblem:
                if request.interpreter is not None or not _is_damaged(python, scratch):
                    raise
                say(f"{request.text}: {python.parents[2]} is damaged")
                (python.parents[2] / COMPLETE).unlink()
                cached = request, cache.absolute(), scratch, say
                python, lock, note, use = _from_cache(*cached, anew=True)
                versions = import_tensorflow(python, request.settings, scratch)
            if request.interpreter is None:
                _note_import(python, request.settings)
    except (EnvironmentProblem, InputError) as error:
        raise EnvironmentProblem(f"{request.text}: {error}") from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise EnvironmentProblem(f"{request.text}: {place}{error.strerror or error}") from None
    return Built(request, python, lock, version, {**versions, **_nightly(request)}, note, use)


def _nightly(request: Request) -> dict[str, str]:
    """Returns the date of a local wheel of TensorFlow whose development version has no date."""
    for wheel in _wheels(request):
        name, version, *_ = parse_wheel_filename(wheel.name)
        is_undated = version.is_devrelease and not date_in_version(str(version))
        if is_tensorflow(name) and is_undated and (built := _date_of_wheel(wheel)):
            return {"tensorflow_built": built.isoformat()}
    return {}


def _wheels(request: Request) -> list[Path]:
    """Returns the local wheels of a request, each once."""
    words = dict.fromkeys((*request.requirements, *request.overrides))
    return [Path(word) for word in words if word.endswith(".whl")]


def _date_of_wheel(wheel: Path) -> date | None:
    """Returns the date of a wheel's newest file; None if the wheel hides it."""
    with zipfile.ZipFile(wheel) as archive:
        newest = max((item.date_time for item in archive.infolist()), default=(1980, 1, 1))
    with contextlib.suppress(ValueError):
        found = date(*newest[:3])
        return found if found > _UNKNOWN_DATE else None
    return None


def _from_cache(
    request: Request, cache: Path, scratch: Path, say: Callable[[str], None], *, anew: bool = False
) -> tuple[Path, tuple[str, ...], str, Use]:
    """Returns interpreter, lock, note and use of an environment; builds it unless it is cached.

    With `anew`, uv downloads the packages again: its own cache may be damaged.
    """
    wheels = {str(path): _sha256(path) for path in _wheels(request)}
    asked, overrides = (
        [wheels.get(word, word) for word in words]
        for words in (request.requirements, request.overrides)
    )
    dates = [request.as_of] if request.as_of else []  # without one: the name in older caches
    remembered = cache / "requests" / f"{_digest([asked, overrides, *dates])}.json"
    try:
        pins = _resolve(request, wheels, scratch)
    except ConnectionError as error:
        if (before := _built_before(cache, remembered)) is None:
            raise EnvironmentProblem(
                f"cannot be resolved without network and has no earlier build\n{error}"
            ) from None
        note = (
            f"the index could not be reached; TensorFlow {tensorflow_version(before[1])} is of an "
            f"earlier build, resolved {_resolved_on(remembered)}"
        )
        say(f"{request.text}: {note}")
        check_overlaps(before[1], request.requirements)
        python, locked_before, use = before
        return python, locked_before, note, use
    lock = tuple(sorted(pins))
    check_overlaps(lock, request.requirements)
    folder = cache / "environments" / _digest(lock)
    for parent in (folder.parent, remembered.parent):
        parent.mkdir(parents=True, exist_ok=True)
    waiting = f"{request.text}: another process builds it, waiting"
    with locked(Path(f"{folder}.lock"), say, waiting):
        if (built := complete(folder)) is None:
            expected = costs.costs_of(pins, _wheels(request), cache, scratch)
            expected.check_space()
            say(f"{request.text}: building in {folder}: {expected}")
            folder.mkdir(exist_ok=True)
            start = time.monotonic()
            home = _install(
                *(folder, pins.values(), scratch, ("--reinstall",) if anew else ()),
                lambda seconds: say(f"{request.text}: still building, {seconds / 60:.0f} min"),
            )
            about = {"request": request.text, "home": home.name, "lock": lock}
            notes = costs.noted(expected, home, time.monotonic() - start)
            write_json(folder / COMPLETE, {**about, **notes})
            built = home / PYTHON, lock
        use = Use(folder)
        for other in folder.iterdir():  # left by killed processes
            if other not in built[0].parents:
                shutil.rmtree(other, ignore_errors=True)  # keeps files such as complete.json
        today = datetime.now(timezone.utc).date().isoformat()
        write_json(remembered, {"request": request.text, "key": folder.name, "resolved": today})
    return *built, "", use


def _resolve(request: Request, wheels: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Resolves a request; returns the requirements for uv by their entries in the lock.

    Raises:
        ConnectionError: there is no network.
        EnvironmentProblem: the requirements cannot be met.
    """
    lines, local = {}, {}
    for wheel in map(Path, wheels):
        name, version, *_ = parse_wheel_filename(wheel.name)
        local[str(name)] = f"{name}=={version} @ sha256:{wheels[str(wheel)]}"
        lines[str(wheel)] = f"{name} @ {wheel.as_uri()}"
    wanted, overrides = scratch / "requirements.in", scratch / "overrides.txt"
    for file, words in ((wanted, request.requirements), (overrides, request.overrides)):
        text = "".join(f"{lines.get(word, word)}\n" for word in words)
        file.write_text(text, encoding="utf-8")
    done = commands.uv(
        scratch,
        *("pip", "compile", wanted, "--python", sys.executable, "--no-header", "--no-annotate"),
        *(*_AS_REQUESTED, _WHEELS_ONLY),
        *(("--override", overrides) if request.overrides else ()),  # uv warns about an empty file
        # A moment: uv would take a date in the zone of this machine.
        *(("--exclude-newer", moment_of(request.as_of).isoformat()) if request.as_of else ()),
    )
    if done.returncode:
        reason = uv_text(done.stderr)
        if _NO_NETWORK.search(done.stderr):
            raise ConnectionError(reason)
        raise EnvironmentProblem(f"cannot be resolved\n{reason}")
    found = [line.strip() for line in done.stdout.splitlines()]
    found = [line for line in found if line and not line.startswith(("#", "-"))]
    for package, _, url in (line.partition(" @ ") for line in found):
        if url and package not in local:
            raise EnvironmentProblem(f"{package} is required from a URL: give its version or wheel")
    return {local.get(line.partition(" @ ")[0], line): line for line in found}


def _install(
    folder: Path,
    pins: Iterable[str],
    scratch: Path,
    options: Sequence[str],
    still: Callable[[float], None],
) -> Path:
    """Creates an environment in a new subfolder.

    Its files are copies: an edit in another environment would reach the files of a link
    (findings/uv_edit_reaches_other_environments.sh).
    """
    # Never in an earlier subfolder: the uv of a killed process may still write to it.
    home = folder / uuid.uuid4().hex[:8]
    pinned = scratch / "requirements.txt"
    pinned.write_text("\n".join(pins) + "\n", encoding="utf-8")
    to = ("--python", home / PYTHON)
    steps: tuple[tuple[str | Path, ...], ...] = (
        ("venv", home, "--python", sys.executable, "--no-project"),
        # Without compiled bytecode, the workload `import` would include the compilation.
        (
            "pip",
            "install",
            *to,
            "--no-deps",
            "--compile-bytecode",
            *_NO_HASHES,
            *(*_COPIED, _WHEELS_ONLY),
            *options,
            "-r",
            pinned,
        ),
    )
    try:
        for command in steps:
            done = commands.uv(scratch, *command, still=still)
            if done.returncode:
                raise EnvironmentProblem(f"cannot be installed\n{uv_text(done.stderr)}")
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    return home


def _built_before(cache: Path, remembered: Path) -> tuple[Path, tuple[str, ...], Use] | None:
    with contextlib.suppress(InputError, KeyError, TypeError):
        folder = cache / "environments" / checked_name(read_json(remembered)["key"])
        use = Use(folder)  # first: afterwards nobody removes it
        if built := complete(folder):
            return *built, use
    return None


def _is_damaged(python: Path, scratch: Path) -> bool:
    """Returns whether TensorFlow was imported here before, but fails now with the same settings."""
    imported = read_json(python.parents[2] / COMPLETE).get("imported")
    if not imported:
        return False
    settings = imported if isinstance(imported, dict) else {}  # older caches: True
    try:
        import_tensorflow(python, settings.get("settings", {}), scratch)
    except EnvironmentProblem:
        return True
    return False


def _note_import(python: Path, settings: Mapping[str, str]) -> None:
    """Notes the first successful import: a later failure with its settings is damage."""
    complete = python.parents[2] / COMPLETE
    about = read_json(complete)
    if not about.get("imported"):
        write_json(complete, {**about, "imported": {"settings": dict(settings)}})


def _resolved_on(remembered: Path) -> str:
    """Returns date and age of the last resolution, from the file's time in older caches."""
    written = datetime.fromtimestamp(remembered.stat().st_mtime, timezone.utc).date()
    with contextlib.suppress(ValueError):
        written = date.fromisoformat(str(read_json(remembered).get("resolved")))
    days = (datetime.now(timezone.utc).date() - written).days
    return f"on {written} ({days:,} day{'' if days == 1 else 's'} ago)"


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


Say = Callable[[str], None]


def build_candidates(
    candidates: Sequence[Request], cache: Path, say: Say
) -> tuple[Built | EnvironmentProblem, ...]:
    """Builds every environment; returns the problem in place of a failed one."""
    built: list[Built | EnvironmentProblem] = []
    for request in candidates:
        try:
            built.append(build(request, cache, say=say))
        except EnvironmentProblem as problem:
            say(str(problem))
            built.append(problem)
    return tuple(built)
