"""Environment variables of processes in a measured environment."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path

IMPORT_PATHS = ("PYTHONPATH", "PYTHONUSERBASE")
"""Variables with folders of modules, for existing interpreters only."""
FOLDERS = ("PYTHONPATH", "LD_LIBRARY_PATH")
"""Variables with folders, separated by colons."""
_MEASURED = ("tensorflow", "keras", "tf_keras", "numpy")


def clean_variables(home: Path) -> dict[str, str]:
    """Returns all variables for processes in a measured environment; none of ours is inherited."""
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(home),
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def isolation(settings: Mapping[str, str]) -> tuple[str, ...]:
    """Returns Python's options: no import path of the user's, except one from the settings."""
    if not any(settings.get(name) for name in IMPORT_PATHS):
        return ("-I",)
    return () if settings.get("PYTHONUSERBASE") else ("-s",)


def import_paths_of_session() -> dict[str, str]:
    """Returns this session's `PYTHONPATH` and user's site, each if it holds measured packages.

    Returns:
        Values of `IMPORT_PATHS`. A `PYTHONPATH` without TensorFlow, Keras, NumPy and installed
        distributions is left out: it names a checkout.
    """
    given = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
    folders = [os.path.abspath(folder) for folder in given.split(os.pathsep) if folder]
    found = {"PYTHONPATH": os.pathsep.join(folders) if any(map(_has_packages, folders)) else ""}
    if site.ENABLE_USER_SITE and _has_packages(site.getusersitepackages()):
        found["PYTHONUSERBASE"] = site.getuserbase()
    return {name: value for name, value in found.items() if value}


def _has_packages(folder: str) -> bool:
    installed = any(Path(folder).glob("*.dist-info"))
    return installed or any(Path(folder, name, "__init__.py").exists() for name in _MEASURED)
