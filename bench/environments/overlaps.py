"""Distributions that would be installed over each other, recognised by their names in a lock."""

from __future__ import annotations

import re
from collections.abc import Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.environments.commands import EnvironmentProblem
from bench.environments.labels import KERAS, TENSORFLOW_BUILD, packages_of

# Another prefix may be an add-on's: `mesh-tensorflow`.
_FAMILIES = {
    "tensorflow": re.compile(rf"((amd|intel|nvidia)-)?{TENSORFLOW_BUILD}"),
    **KERAS,
}
_PART = re.compile(r"(tensorflow|tf-nightly)-(intel|macos|cpu-aws)")


def package_of(name: str) -> str:
    """Returns `tensorflow`, `keras` or `tf_keras`, if a distribution installs it; else nothing."""
    return next((package for package, family in _FAMILIES.items() if family.fullmatch(name)), "")


def check_overlaps(lock: Sequence[str], requirements: Sequence[str]) -> None:
    """Rejects a lock with two distributions of one package.

    Args:
        lock: lock of `bench.environments.builds.Built`.
        requirements: requirements of the request.

    Raises:
        EnvironmentProblem: the later one would overwrite files of the other.
    """
    packages = packages_of(lock)
    asked = {
        canonicalize_name(Requirement(each).name)
        for each in requirements
        if not each.endswith(".whl")
    }
    for package, family in _FAMILIES.items():
        found = sorted(name for name in packages if family.fullmatch(name))
        parts = {packages[name] for name in found if _PART.fullmatch(name)}
        # On some systems `tensorflow` is empty and requires `tensorflow-macos` of its version.
        full = [name for name in found if _PART.fullmatch(name) or packages[name] not in parts]
        if len(full) > 1:
            both = " and ".join(f"{name}=={packages[name]}" for name in full)
            unasked = [f", such as without:{name}" for name in full if name not in asked]
            raise EnvironmentProblem(
                f"{both} both install the package {package}, one over the other: leave one out"
                f"{unasked[0] if unasked else ''}"
            )
