"""An interpreter's packages, and whether it imports TensorFlow."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from packaging.utils import canonicalize_name

from bench.environments import commands
from bench.environments.commands import EnvironmentProblem
from bench.environments.lifeline import IS_LINUX, lifeline
from bench.environments.request import quoted
from bench.environments.variables import clean_variables, isolation
from lenet5 import distributions
from lenet5.printable import all_printable, printable

_IMPORT_SECONDS = 600
_LEAST_PYTHON = (3, 10)
_LONGEST_REASON = 300
_LIST = """
import json, platform
from importlib.metadata import distributions
found = [[item.metadata["Name"], item.version] for item in distributions()]
print(json.dumps([platform.python_version(), found]))
"""
_REQUIREMENTS = """
import json
from importlib.metadata import distributions
print(json.dumps([[item.metadata["Name"], item.requires or []] for item in distributions()]))
"""


def forget_pages(folder: str) -> None:
    """Drops the cached pages of a folder's shared libraries, so that they are read from disk.

    Linux maps a library that was just written in larger pieces than one that was read: the same
    environment took 7 % more memory on the day of its installation (bench/README.md). Pages of
    libraries in use stay. The source of this function runs in the interpreter, before TensorFlow.

    Args:
        folder: folder of the packages.
    """
    import os

    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if ".so" not in name or os.path.islink(path):
                continue
            try:
                file = os.open(path, os.O_RDONLY)
            except OSError:  # not readable, then no process of ours maps it
                continue
            try:
                if os.fstat(file).st_size >= 2**20:
                    os.fsync(file)  # pages that are not on the disk yet cannot be dropped
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            except (AttributeError, OSError):  # not on macOS, and not on every file system
                pass
            finally:
                os.close(file)


_FATAL = "Fatal Python error"
_NONE = "contains no TensorFlow"
_FAILS = "TensorFlow cannot be imported there"
# A failed import may print its reason in the middle of many lines.
_IMPORT = f"""
import importlib, json, os, re, sys
from importlib.metadata import distributions
from importlib.util import find_spec
{inspect.getsource(distributions.place_of)}
{inspect.getsource(distributions.distributions_of)}
{inspect.getsource(distributions.installed_twice)}
def only_one(package):
    found = distributions_of(package)
    if len(found) > 1:
        sys.exit(installed_twice(package, found))
    return "".join(found)
of_tensorflow = only_one("tensorflow")
{inspect.getsource(forget_pages)}
if place := place_of("tensorflow"):
    forget_pages(os.path.dirname(place))
try:
    import tensorflow
    tensorflow.keras.layers
except Exception as error:
    if isinstance(error, ModuleNotFoundError) and error.name == "tensorflow":
        sys.exit("{_NONE}")
    told = [line for line in str(error).splitlines() if line.strip()]
    told = [line for line in told if not line.startswith(("Traceback", " "))] or told or [""]
    sys.exit("{_FAILS}: %s: %s" % (type(error).__name__, told[0]))
versions = {{"tensorflow": getattr(tensorflow, "__version__", "")}}
try:
    package = tensorflow.keras.Model.__module__.partition(".")[0]
    versions.update(keras=importlib.import_module(package).__version__, keras_package=package)
    only_one(package)
except (AttributeError, ImportError):
    pass  # the lock has to tell it
print(json.dumps({{**versions, "tensorflow_package": of_tensorflow}}))
"""
_FIND = f"""
import json, site
from importlib.util import find_spec
{inspect.getsource(distributions.place_of)}
print(json.dumps([place_of("tensorflow"), site.ENABLE_USER_SITE, site.getuserbase()]))
"""
_LIBRARY_IS_MISSING = re.compile(
    r"shared librar|shared object|GLIBC|CXXABI|undefined symbol|Library not loaded"
)


def packages_in(
    python: Path, settings: Mapping[str, str], scratch: Path
) -> tuple[str, tuple[str, ...]]:
    """Returns an existing interpreter's version and lock.

    Args:
        python: path of the interpreter.
        settings: settings of the request.
        scratch: folder for temporary files.

    Raises:
        EnvironmentProblem: it is no Python 3.10 or newer, or cannot be started.
    """
    if python.is_dir():
        raise EnvironmentProblem("is a folder, name the interpreter in it: bin/python")
    try:
        done = _run(python, _LIST, settings, scratch)
    except OSError as error:
        raise EnvironmentProblem(f"cannot be run: {error.strerror}") from None
    try:
        version, found = all_printable(json.loads(done.stdout.splitlines()[-1]))
        lock: dict[str, str] = {}
        for name, number in found:
            if name and number:  # remains of a broken uninstall have neither
                lock.setdefault(canonicalize_name(name), number)  # Python imports the first
    except (IndexError, ValueError, TypeError, RecursionError):
        told = _told(done.stderr)
        hint = _library_hint(told, settings)
        if hint or told.startswith(_FATAL):
            raise EnvironmentProblem(f"cannot be started: {told}{hint}") from None
        raise EnvironmentProblem(f"is not Python 3.10 or newer: {told}") from None
    if tuple(map(int, version.split(".")[:2])) < _LEAST_PYTHON:
        raise EnvironmentProblem(f"is not Python 3.10 or newer: it is {version}")
    return version, tuple(sorted(f"{name}=={number}" for name, number in lock.items()))


def requirements_in(
    python: Path, settings: Mapping[str, str], scratch: Path
) -> dict[str, tuple[str, ...]]:
    """Returns the requirements of an interpreter's packages, by the name of the distribution.

    Args:
        python: path of the interpreter.
        settings: settings of the request.
        scratch: folder for temporary files.

    Raises:
        EnvironmentProblem: its packages cannot be listed.
    """
    try:
        done = _run(python, _REQUIREMENTS, settings, scratch)
        found = all_printable(json.loads(done.stdout.splitlines()[-1]))
        required: dict[str, tuple[str, ...]] = {}
        for name, lines in found:
            if name:  # remains of a broken uninstall have none
                required.setdefault(canonicalize_name(name), tuple(map(str, lines)))
    except OSError as error:
        raise EnvironmentProblem(f"{python} cannot be run: {error.strerror}") from None
    except (IndexError, ValueError, TypeError, RecursionError):
        raise EnvironmentProblem(f"{python} does not list its packages") from None
    return required


def import_tensorflow(python: Path, settings: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Imports TensorFlow in an interpreter.

    Args:
        python: path of the interpreter.
        settings: settings of the request.
        scratch: folder for temporary files.

    Returns:
        `tensorflow`, `keras`, `keras_package` and `tensorflow_package` (name and version of the
        distribution), as far as they are known.

    Raises:
        EnvironmentProblem: the import failed, or two distributions installed one package.
    """
    done = _run(python, _IMPORT, settings, scratch)
    reason = ""
    if done.returncode < 0:  # C++ logs the reason of an abort at the lowest level only
        reason = f"{_FAILS}: killed by signal {-done.returncode}: "
        done = _run(python, _IMPORT, {**settings, "TF_CPP_MIN_LOG_LEVEL": "0"}, scratch)
    elif done.returncode and not done.stderr.strip():
        reason = f"{_FAILS}: exit status {done.returncode}"
    if reason or done.returncode:
        told = reason + _told(done.stderr)
        hint = _elsewhere(python) if told == _NONE else _library_hint(told, settings)
        raise EnvironmentProblem(told + hint)
    for line in reversed(done.stdout.splitlines()):
        with contextlib.suppress(ValueError, RecursionError):
            said = all_printable(json.loads(line))
            if isinstance(said, dict):  # all other output is ignored
                return {name: str(version) for name, version in said.items() if version}
    return {}


def _run(
    python: Path, code: str, settings: Mapping[str, str], scratch: Path
) -> subprocess.CompletedProcess[str]:
    variables = {**clean_variables(scratch), **settings}
    ends_with_us = lifeline() if IS_LINUX else ""  # elsewhere it ends after the import
    command = [str(python), *isolation(settings), "-c", ends_with_us + code]
    return commands.run(command, variables, scratch, _IMPORT_SECONDS)


def _elsewhere(python: Path) -> str:
    """Names a TensorFlow that the interpreter imports with the variables of this session."""
    done = commands.run([python, "-c", _FIND], os.environ, Path.cwd(), _IMPORT_SECONDS)
    with contextlib.suppress(IndexError, ValueError, TypeError, RecursionError):
        place, has_user_site, user_base = json.loads(done.stdout.splitlines()[-1])
        if place:
            folder = Path(place).parents[1]
            is_of_user = has_user_site and Path(user_base) in folder.parents
            setting = f"PYTHONUSERBASE={user_base}" if is_of_user else f"PYTHONPATH={folder}"
            return (
                f" of its own: it imports the one in {folder}, which measured processes do not "
                f"inherit; add {quoted(setting)} to the request"
            )
    return ""


def _library_hint(told: str, settings: Mapping[str, str]) -> str:
    """Names the withheld variable, if a message is about a shared library."""
    if not _LIBRARY_IS_MISSING.search(told) or "LD_LIBRARY_PATH" in settings:
        return ""
    known = os.environ.get("LD_LIBRARY_PATH") or "FOLDER"
    return (
        "; measured processes do not inherit LD_LIBRARY_PATH: add "
        f"{quoted(f'LD_LIBRARY_PATH={known}')} to the request if the library lies there"
    )


def _told(output: str) -> str:
    """Returns the last line, at most `_LONGEST_REASON` characters."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(_FATAL)]
    return printable((fatal or lines or [""])[-1][:_LONGEST_REASON])
