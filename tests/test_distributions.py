"""TensorFlow's distributions are named, and two of one package are refused."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lenet5.distributions import check_distributions, distributions_of, tensorflow_package
from lenet5.errors import InputError
from tests.commands import ROOT, Answer


def install(folder: Path, name: str, version: str, package: str) -> None:
    """Installs a package with one empty module, as pip does."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    for path in (about, folder / package):
        path.mkdir(parents=True, exist_ok=True)
    (folder / package / "__init__.py").touch()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "RECORD").write_text(f"a.txt,,\n{package}/__init__.py,sha256=x,0\n")


def put_first(monkeypatch: pytest.MonkeyPatch, folder: Path, package: str) -> None:
    """Makes a folder the first of the import path, and forgets the imported package."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, package, raising=False)
    importlib.invalidate_caches()


def test_a_distribution_is_found_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name does not matter; a plugin for TensorFlow or a damaged other one is none of them."""
    install(tmp_path, "Acme_TF", "7.1", "tensorflow")
    install(tmp_path, "tensorflow-io", "1.0", "tensorflow_io")
    install(tmp_path, "damaged", "1.0", "damaged")
    (tmp_path / "damaged-1.0.dist-info" / "RECORD").write_bytes(b"\xe9.py,,\n")
    put_first(monkeypatch, tmp_path, "tensorflow")
    assert distributions_of("tensorflow") == ["acme-tf 7.1"]
    assert tensorflow_package() == "acme-tf 7.1"
    check_distributions()


def test_only_the_imported_tensorflow_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder before it on the import path hides an installed one and overwrites nothing."""
    install(tmp_path / "later", "tensorflow", "2.20.0", "tensorflow")
    install(tmp_path / "first", "tensorflow-cpu", "2.21.0", "tensorflow")
    put_first(monkeypatch, tmp_path / "later", "tensorflow")
    put_first(monkeypatch, tmp_path / "first", "tensorflow")
    assert distributions_of("tensorflow") == ["tensorflow-cpu 2.21.0"]
    check_distributions()


def test_remains_of_a_removal_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip renames the lists of files first: `~ensorflow-2.20.0.dist-info`."""
    install(tmp_path, "tensorflow", "2.20.0", "tensorflow")
    (tmp_path / "tensorflow-2.20.0.dist-info").rename(tmp_path / "~ensorflow-2.20.0.dist-info")
    install(tmp_path, "tensorflow", "2.21.0", "tensorflow")
    put_first(monkeypatch, tmp_path, "tensorflow")
    assert distributions_of("tensorflow") == ["tensorflow 2.21.0"]


def test_a_tensorflow_without_distribution_is_named_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").touch()
    put_first(monkeypatch, tmp_path, "tensorflow")
    assert tensorflow_package() == str(tmp_path / "tensorflow")


def test_a_missing_tensorflow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lenet5.distributions.find_spec", lambda _: None)
    assert tensorflow_package() == "none"


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("tensorflow", ("tensorflow", "tensorflow-cpu")),
        ("tensorflow", ("acme-tf", "tf-nightly")),
        ("keras", ("keras", "keras-nightly")),
    ],
)
def test_two_distributions_of_one_package_are_refused(
    package: str,
    names: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lenet5: Callable[..., Answer],
) -> None:
    for name in names:
        install(tmp_path, name, "2.21.0", package)
    put_first(monkeypatch, tmp_path, package)
    told = (
        f"{names[0]} 2.21.0 and {names[1]} 2.21.0 both install the package {package}, one over "
        "the other: uninstall both, then install one"
    )
    with pytest.raises(InputError) as caught:
        check_distributions()
    assert str(caught.value) == told
    answer = lenet5("train", "--dataset", "digits", "--out", "run")
    assert (answer.status, answer.err) == (2, f"lenet5: error: {told}\n")
    assert not (tmp_path / "run").exists()


def test_a_session_with_two_tensorflows_is_refused(tmp_path: Path) -> None:
    for name in ("tensorflow", "tensorflow-cpu"):
        install(tmp_path, name, "2.21.0", "tensorflow")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:html"]
    done = subprocess.run(
        [*command, "--one-process", "tests"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    both = "tensorflow 2.21.0 and tensorflow-cpu 2.21.0"
    assert f"TensorFlow of this environment: {both}" in done.stdout
    assert f"ERROR: {both} both install the package tensorflow" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
