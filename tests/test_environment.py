"""Description of the environment, for `environment.json`."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from lenet5 import __version__, environment
from lenet5.devices import Device
from lenet5.distributions import tensorflow_package
from tests import stand_in_gpu


def test_the_environment_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    described = environment.describe_environment(threads=3, keras_version="3.8.0")
    assert {key: described[key] for key in ("numpy", "python", "lenet5", "onednn")} == {
        "numpy": np.__version__,
        "python": platform.python_version(),
        "lenet5": __version__,
        "onednn": "0",
    }
    assert described["tensorflow"] == tf.__version__
    assert described["tensorflow_package"] == tensorflow_package()
    assert described["keras"] == "3.8.0"
    assert described["threads"] == 3
    assert described["device"] == "cpu"
    assert not set(stand_in_gpu.ENTRIES) - {"device"} & set(described)
    assert described["operating_system"] == platform.platform()
    assert described["cpu"]
    assert 1 <= described["usable_cores"] <= (os.cpu_count() or 1)
    assert "git_commit" in described


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_gpu.install(monkeypatch)
    described = environment.describe_environment(1, "3.8.0", Device("gpu:0", "0"))
    assert {name: described[name] for name in stand_in_gpu.ENTRIES} == stand_in_gpu.ENTRIES


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({}, "CPU only"),
        ({"device": "cpu", "cpu": "Z80"}, "CPU only"),
        (stand_in_gpu.ENTRIES, "GPU Stand-in (gpu:0), TF32 on"),
        ({**stand_in_gpu.ENTRIES, "tf32": False}, "GPU Stand-in (gpu:0), TF32 off"),
        ({"device": "gpu:1"}, "GPU (gpu:1)"),
    ],
)
def test_the_device_is_told_in_words(entries: dict[str, object], text: str) -> None:
    """Files of earlier versions have no device: they are of a CPU."""
    assert environment.device_text(entries) == text


@pytest.mark.parametrize("told", ["2.22.0-rc0", "2.23.0-dev20261101", "2.15.0"])
def test_the_tensorflow_version_is_that_of_the_imported_module(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the distribution does not matter."""
    module = ModuleType("tensorflow")
    module.__version__ = told  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorflow", module)
    described = environment.describe_environment(threads=1, keras_version="3.8.0")
    assert described["tensorflow"] == told


def test_a_missing_tensorflow_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    assert environment.describe_environment(1, "3.8.0")["tensorflow"] is None


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="makes real repositories")


def repository(folder: Path) -> str:
    """Makes a git repository of a folder's files; returns its commit."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text("one")
    name = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    for arguments in (["init", "-q"], ["add", "."], [*name, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True
    )
    return head.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like this project's, without a repository."""
    folder = tmp_path / "around" / "checkout"
    (folder / "lenet5").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    monkeypatch.setattr(environment, "__file__", str(folder / "lenet5" / "environment.py"))
    monkeypatch.chdir(folder)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set in git's hooks
        monkeypatch.delenv(name, raising=False)
    return folder


@needs_git
def test_the_commit_marks_a_checkout_with_changes(checkout: Path) -> None:
    commit = repository(checkout)
    assert environment.git_commit() == commit
    (checkout / "file").write_text("two")
    assert environment.git_commit() == f"{commit}+changes"


@needs_git
@pytest.mark.parametrize("variable", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"])
def test_the_commit_is_not_that_of_a_repository_named_by_variables(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    commit = repository(checkout)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "another").touch()
    repository(tmp_path / "other")
    place = {"GIT_DIR": ".git", "GIT_WORK_TREE": ".", "GIT_INDEX_FILE": ".git/index"}[variable]
    monkeypatch.setenv(variable, str(tmp_path / "other" / place))
    assert environment.git_commit() == commit


@needs_git
def test_the_commit_is_not_that_of_a_repository_around_an_unpacked_archive(checkout: Path) -> None:
    repository(checkout.parent)
    assert environment.git_commit() is None


def test_the_commit_is_unknown_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert environment.git_commit() is None
