"""Small wheels written by the tests."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path


def write_wheel(
    folder: Path,
    source: str = "from tensorflow import keras\n",
    *,
    distribution: str = "tensorflow",
    version: str = "2.21.0",
    tag: str = "py3-none-any",
    requires: Sequence[str] = (),
    extras: Sequence[str] = (),
    package: str = "tensorflow",
) -> Path:
    """Writes a small wheel, with one package unless `source` is empty."""
    stem = f"{distribution.replace('-', '_')}-{version}"
    about = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    about += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    about += "".join(f"Provides-Extra: {extra}\n" for extra in extras)
    files = {
        f"{stem}.dist-info/METADATA": about,
        f"{stem}.dist-info/WHEEL": (
            f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
        ),
    }
    if source:
        files |= {f"{package}/__init__.py": source, f"{package}/keras.py": "layers = None\n"}
    files[f"{stem}.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path
