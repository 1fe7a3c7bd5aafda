"""Copies the workers' files to a private folder, and computes their digest."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lenet5.data import PARTS, Dataset, Subset
from lenet5.run_directory import writing

_ROOT = Path(__file__).parents[2]
# All imports of a worker for timed work; their digest identifies the measured code.
_FILES = (
    *(f"bench/{name}.py" for name in ("__init__", "worker/__init__", "worker/main")),
    "bench/worker/workloads.py",
    *(
        f"lenet5/{name}.py"
        for name in (
            *("__init__", "errors", "recipe", "recipes", "devices", "runtime", "data"),
            *("augmentation", "model", "steps"),
        )
    ),
)
# Further imports for whole training runs, and for the numerics problem.
TRAINING_FILES = (
    "bench/worker/training.py",
    *(
        f"lenet5/{name}.py"
        for name in ("history", "early_stopping", "keras_engine", "graph_engine", "training")
    ),
)
NUMERICS_FILES = ("bench/worker/numerics.py",)
# Code with an effect on a training, in addition to recipe, seed and images. It excludes the named
# recipes and the timed workloads.
_TRAINING_CODE = (
    "bench/worker/training.py",
    *(
        f"lenet5/{name}.py"
        for name in (
            *("recipe", "devices", "runtime", "data", "augmentation", "model", "steps"),
            *("early_stopping", "keras_engine", "graph_engine", "training"),
        )
    ),
)
# Workers get the images as arrays, so the code for download and split is excluded.
_PARTS_OF_FILES = {"lenet5/data.py": ("CLASSES", "PARTS", "Subset", "normalise")}
_IMAGES = 19_200  # 600 steps of 32, 150 of 128


def prepare_folder(folder: Path, images: Subset) -> str:
    """Copies code and images for timed work to a private folder.

    Returns:
        `code_digest` of the code, in hexadecimal.
    """
    np.save(folder / "images.npy", images.images[:_IMAGES])
    np.save(folder / "labels.npy", images.labels[:_IMAGES])
    return copy_code(folder)


def prepare_training_folder(folder: Path, dataset: Dataset) -> str:
    """Copies code and images for training to a private folder.

    Returns:
        `training_code()`.

    Raises:
        InputError: a file cannot be written, for example because the disk is full.
    """
    with writing(folder):
        for part in PARTS:
            subset = getattr(dataset, part)
            np.save(folder / f"{part}_images.npy", subset.images)
            np.save(folder / f"{part}_labels.npy", subset.labels)
        copy_code(folder, TRAINING_FILES)
    return training_code()


def copy_code(folder: Path, more: Sequence[str] = ()) -> str:
    """Copies the worker's code and `more` files to a private folder.

    Returns:
        `code_digest` of all these files, in hexadecimal.
    """
    names = (*_FILES, *more)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((_ROOT / name).read_bytes())
    (folder / "home").mkdir(exist_ok=True)
    return code_digest(_ROOT, names)


def training_code() -> str:
    """Returns `code_digest` of the files with an effect on a training, in hexadecimal."""
    return code_digest(_ROOT, _TRAINING_CODE)


def numerics_code() -> str:
    """Returns `code_digest` of the files with an effect on the numerics problem."""
    return code_digest(_ROOT, (*_FILES, *NUMERICS_FILES))


def code_digest(root: Path, names: Sequence[str]) -> str:
    """Returns the SHA-256 of the behaviour of Python files, in hexadecimal.

    Comments, docstrings, layout, messages of raised errors and file names are excluded, since they
    change no result. Every supported Python gives the same digest.

    Args:
        root: folder of the relative names.
        names: files, in order; of `lenet5/data.py` only the parts used by a worker.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(_meaning_of((root / name).read_bytes(), _PARTS_OF_FILES.get(name)))
    return digest.hexdigest()


@cache
def _meaning_of(source: bytes, wanted: tuple[str, ...] | None) -> bytes:
    nodes = [n for n in ast.parse(source).body if wanted is None or _name_of(n) in wanted]
    return repr([_meaning(node) for node in _without_docstring(nodes)]).encode()


def _meaning(value: Any) -> Any:
    """Returns a syntax tree as nested tuples, without empty fields: some Pythons omit them."""
    if isinstance(value, list):
        return [_meaning(item) for item in value]
    if not isinstance(value, ast.AST):
        return value
    return (type(value).__name__, *_fields(value))


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    for name, value in ast.iter_fields(node):
        if isinstance(node, ast.Raise) and name == "exc" and isinstance(value, ast.Call):
            yield name, _meaning(value.func)
        elif name == "body" and isinstance(value, list):
            yield name, _meaning(_without_docstring(value))
        elif value not in (None, []) and name not in ("kind", "type_comment"):
            yield name, _meaning(value)


def _without_docstring(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    return [
        node
        for node in body
        if not (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        )
    ]


def _name_of(node: ast.stmt) -> str:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return str(getattr(node, "name", ""))
