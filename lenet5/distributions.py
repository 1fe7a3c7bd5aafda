"""Distributions that installed an importable package: TensorFlow's have many names."""

from __future__ import annotations

import os
import re
from importlib.metadata import distributions
from importlib.util import find_spec

from lenet5.errors import InputError

PACKAGES = ("tensorflow", "keras", "tf_keras")
"""Packages with several distributions, such as `tensorflow-cpu` and `tf-nightly`."""


# Measured interpreters run the source text of these two functions.
def place_of(package: str) -> str:
    """Returns the path of a package's `__init__.py`, without an import; empty if there is none."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):  # ValueError: a module without a specification
        return ""
    return (spec and spec.origin) or ""


def distributions_of(package: str) -> list[str]:
    """Returns `name version` of each distribution whose list of files holds the imported package.

    There is none if the package lies in a folder of the import path without an installation. Of
    two, the later one has overwritten files of the other.
    """
    place = os.path.realpath(place_of(package))
    file = f"{package}/{os.path.basename(place)}"
    found = set()
    for each in distributions():
        if os.path.basename(getattr(each, "_path", "")).startswith("~"):
            continue  # pip's remains of an interrupted removal
        try:
            listed = "\n" + (each.read_text("RECORD") or "")
        except UnicodeDecodeError:  # of another package: names in TensorFlow's are ASCII
            continue
        if f"\n{file}," in listed and os.path.realpath(str(each.locate_file(file))) == place:
            name = re.sub("[-_.]+", "-", str(each.metadata["Name"])).lower()
            found.add(f"{name} {each.version}")
    return sorted(found)


def check_distributions() -> None:
    """Rejects an installation of TensorFlow or Keras over another one.

    Raises:
        InputError: two distributions installed the same package.
    """
    for package in PACKAGES:
        if len(found := distributions_of(package)) > 1:
            raise InputError(installed_twice(package, found))


def installed_twice(package: str, found: list[str]) -> str:
    """Returns the reason for the rejection of two distributions of a package, in one line."""
    return (
        f"{' and '.join(found)} both install the package {package}, one over the other: "
        "uninstall both, then install one"
    )


def tensorflow_package() -> str:
    """Returns name and version of TensorFlow's distribution: `tf-nightly 2.23.0.dev20260905`.

    Without a distribution it returns the path of the package, and without TensorFlow `none`.
    """
    place = place_of("tensorflow")
    return " and ".join(distributions_of("tensorflow")) or os.path.dirname(place) or "none"
