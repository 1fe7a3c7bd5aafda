"""Small wheels written by the tests."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

KERAS = "tensorflow/keras.py"


def write_wheel(
    folder: Path,
    source: str = "from tensorflow import keras\n",
    *,
    distribution: str = "tensorflow",
    version: str = "2.21.0",
    tag: str = "py3-none-any",
    requires: Sequence[str] = (),
) -> Path:
    """Writes a small wheel, with a package `tensorflow` unless `source` is empty."""
    stem = f"{distribution.replace('-', '_')}-{version}"
    about = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    about += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    files = {
        f"{stem}.dist-info/METADATA": about,
        f"{stem}.dist-info/WHEEL": (
            f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
        ),
        f"{stem}.dist-info/RECORD": "",
    }
    if source:
        files |= {"tensorflow/__init__.py": source, KERAS: "layers = None\n"}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path
