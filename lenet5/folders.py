"""Folders of the data, named by variables of the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lenet5.errors import InputError

_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # gs://, s3://, file:/


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """Returns TFDS's data folder: `TFDS_DATA_DIR`, or `tensorflow_datasets` in the home folder.

    Raises:
        InputError: the variable names a bucket or another address instead of a folder.
    """
    variable = "TFDS_DATA_DIR"
    return _folder(variable, environment.get(variable) or "~/tensorflow_datasets")


def default_mnist_dir(environment: Mapping[str, str]) -> Path | None:
    """Returns the folder in `LENET5_MNIST_DIR`; None if the variable is empty or unset.

    Raises:
        InputError: the variable names an address instead of a folder.
    """
    named = environment.get("LENET5_MNIST_DIR")
    return _folder("LENET5_MNIST_DIR", named) if named else None


def default_cache_dir(environment: Mapping[str, str]) -> Path | None:
    """Returns the folder in `LENET5_CACHE_DIR`; None if the variable is empty or unset.

    Raises:
        InputError: the variable names an address instead of a folder.
    """
    named = environment.get("LENET5_CACHE_DIR")
    return _folder("LENET5_CACHE_DIR", named) if named else None


def _folder(variable: str, named: str) -> Path:
    if _ADDRESS.match(named):
        raise InputError(f"{variable} is {named}: name a local folder")
    try:
        return Path(named).expanduser()
    except RuntimeError as error:  # unknown user, or a user without a home folder
        raise InputError(f"{named}: {error}") from None


def is_address(text: str) -> bool:
    """Returns whether a text is an address, such as `gs://bucket`, and no local folder."""
    return bool(_ADDRESS.match(text))
