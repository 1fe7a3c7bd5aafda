"""Reports of failed environment builds and TensorFlow imports."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import pytest

from bench.environments import interpreters
from bench.records.sides import named_sides
from tests.environments.building import (
    Recorder,
    build_here,
    failed,
    homes_in,
    problem,
)
from tests.environments.wheels import write_wheel


def test_uv_errors_of_resolution_and_installation_are_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_wheel(tmp_path, version="2.4.0", tag="cp36-cp36m-any")
    told = problem(str(old), tmp_path)  # uv 0.8 detects it during installation
    assert re.match(r"cannot be (resolved|installed)\n(.|\n)*(no wheels|incompatible)", told)
    wheel = write_wheel(tmp_path)
    Recorder(monkeypatch, {"install": failed("error: Failed to install: x\n  cause: disk full\n")})
    told = "cannot be installed\n  error: Failed to install: x\n    cause: disk full"
    assert problem(str(wheel), tmp_path) == told
    assert homes_in(tmp_path) == []


def test_an_unwritable_cache_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    assert str(tmp_path / "cache") in problem(str(write_wheel(tmp_path)), tmp_path)


def test_a_missing_uv_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = "uv is required to build environments: pip install uv"
    assert problem("tf-nightly", tmp_path) == expected


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "contains no TensorFlow"),
        (
            "import sys\n",
            "TensorFlow cannot be imported there: AttributeError: module 'tensorflow'",
        ),
        (
            "raise ImportError('Traceback (most recent call last):\\n  File x\\nlib.so is "
            "missing\\n\\nSee the page\\n')\n",
            "TensorFlow cannot be imported there: ImportError: lib.so is missing",
        ),
        (
            "import nothing_there\n",
            "TensorFlow cannot be imported there: ModuleNotFoundError: No module named "
            "'nothing_there'",
        ),
        ("raise SystemExit(3)", "TensorFlow cannot be imported there: exit status 3"),
        (
            "import os\nif os.environ['TF_CPP_MIN_LOG_LEVEL'] == '0':\n"
            "    os.write(2, b'started\\nF core.cc: needs AVX2\\n')\nos.abort()\n",
            "TensorFlow cannot be imported there: killed by signal 6: F core.cc: needs AVX2",
        ),
    ],
)
def test_a_failed_import_is_reported(source: str, reason: str, tmp_path: Path) -> None:
    distribution = "tensorflow" if source else "numpy"
    wheel = write_wheel(tmp_path, source, distribution=distribution)
    told = problem(str(wheel), tmp_path)
    assert told.startswith(reason)
    assert problem(str(wheel), tmp_path) == told  # now from the cache


def test_an_import_timeout_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "_IMPORT_SECONDS", 0.01)
    wheel = write_wheel(tmp_path, "import time\ntime.sleep(60)\n")
    assert problem(str(wheel), tmp_path).endswith("python timed out after 0.01 s")


def test_tensorflow_is_imported_with_its_settings_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    source = "import os\nraise ImportError(' '.join(['seen', *sorted(os.environ)]))\n"
    told = problem(f"{write_wheel(tmp_path, source)} TF_USE_LEGACY_KERAS=1", tmp_path)
    names = set(told.partition("seen ")[2].split()) - {"LC_CTYPE"}  # set by Python itself
    assert names == {
        *("CUDA_VISIBLE_DEVICES", "HOME", "KERAS_BACKEND", "LANG", "PATH", "TMPDIR"),
        *("TF_CPP_MIN_LOG_LEVEL", "TF_USE_LEGACY_KERAS"),
    }


TENSORFLOW = """\
import os, sys, types
__version__ = "2.22.0-rc0"
print("a stray line")
package = "tf_keras" if os.environ.get("TF_USE_LEGACY_KERAS") else "keras"
sys.modules[package] = types.ModuleType(package)
sys.modules[package].__version__ = "2.22.1" if package == "tf_keras" else "3.16.0.dev1"
class keras:
    layers = None
    Model = type("Model", (), {"__module__": package + ".src.models.model"})
"""


@pytest.mark.parametrize("distribution", ["tensorflow", "intel-tensorflow", "tf-nightly-cpu", "x"])
@pytest.mark.parametrize(
    ("setting", "keras", "package"),
    [("", "3.16.0.dev1", "keras"), (" TF_USE_LEGACY_KERAS=1", "2.22.1", "tf_keras")],
)
def test_versions_come_from_the_imported_modules(
    distribution: str, setting: str, keras: str, package: str, tmp_path: Path
) -> None:
    """Name and version of the distribution have no influence."""
    wheel = write_wheel(tmp_path, TENSORFLOW, distribution=distribution, version="9.9")
    built = build_here(f"{wheel}{setting}", tmp_path)
    told = {"tensorflow": "2.22.0-rc0", "keras": keras, "keras_package": package}
    told["tensorflow_package"] = f"{distribution} 9.9"
    assert built.versions == told
    (side,) = named_sides([built.request], [built])
    assert side.label == "2.22.0rc0"
    assert side.versions == {"python": platform.python_version(), **told}


def test_a_tensorflow_without_versions_is_labelled_by_its_lock(tmp_path: Path) -> None:
    built = build_here(str(write_wheel(tmp_path, distribution="tf-nightly-cpu")), tmp_path)
    assert built.versions == {"tensorflow_package": "tf-nightly-cpu 2.21.0"}
    (side,) = named_sides([built.request], [built])
    assert side.label == "2.21.0"
