"""Existing interpreters: their packages, import path, libraries, and distributions."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from bench.environments.interpreters import forget_pages
from bench.measure.processes import interpreter_of, time_import
from tests.environments.building import Recorder, build_here, problem
from tests.environments.wheels import write_wheel

SOURCE = "from tensorflow import keras\n__version__ = '2.99.0'\n"
MISSING = (
    "python: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object "
    "file: No such file or directory"
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter without TensorFlow."""
    folder = tmp_path_factory.mktemp("bare")
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True)
    return folder / "bin" / "python"


def unpacked(folder: Path) -> Path:
    """Writes a TensorFlow into a folder, as `pip install --target` does."""
    (folder / "tensorflow").mkdir(parents=True)
    (folder / "tensorflow" / "__init__.py").write_text(SOURCE)
    (folder / "tensorflow" / "keras.py").write_text("layers = None\n")
    about = folder / "tf_nightly-2.99.0.dist-info"
    about.mkdir()
    about.joinpath("METADATA").write_text("Name: tf-nightly\nVersion: 2.99.0\n")
    about.joinpath("RECORD").write_text("tensorflow/__init__.py,,\n")
    return folder


def test_an_existing_interpreter_reports_its_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = build_here(str(write_wheel(tmp_path)), tmp_path).python
    recorder = Recorder(monkeypatch)
    built = build_here(f"python:{python} TF_A=1", tmp_path)
    assert built.lock == ("tensorflow==2.21.0",)
    assert built.python == python
    assert built.python_version == platform.python_version()
    assert recorder.kinds() == ["python", "python"]


def test_an_invalid_interpreter_is_reported(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho 1\necho no such option >&2\nexit 2\n")
    assert problem(f"python:{script}", tmp_path) == "cannot be run: Permission denied"
    script.chmod(0o755)
    expected = "is not Python 3.10 or newer: no such option"
    assert problem(f"python:{script}", tmp_path) == expected
    script.write_text("""#!/bin/sh\necho '["3.9.18", [["tensorflow", "2.15.1"]]]'\n""")
    assert problem(f"python:{script}", tmp_path) == "is not Python 3.10 or newer: it is 3.9.18"
    missing = "cannot be run: No such file or directory"
    assert problem(f"python:{tmp_path}/missing", tmp_path) == missing
    folder = "is a folder, name the interpreter in it: bin/python"
    assert problem(f"python:{tmp_path}", tmp_path) == folder


def test_a_dot_measures_the_tensorflow_of_pythonpath(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hides an installed one, as it does in this session, and counts for the identity."""
    folder = unpacked(tmp_path / "a b")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    built = build_here(".", tmp_path)
    assert built.versions["tensorflow"] == "2.99.0"
    assert built.versions["tensorflow_package"] == "tf-nightly 2.99.0"
    assert "tf-nightly==2.99.0" in built.lock
    assert built.request.settings == {"PYTHONPATH": str(folder)}
    assert time_import(interpreter_of(built), tmp_path, [], 60) > 0


def test_an_interpreter_imports_the_tensorflow_of_a_named_folder(
    tmp_path: Path, bare: Path
) -> None:
    folder = unpacked(tmp_path / "folder")
    built = build_here(f"python:{bare} PYTHONPATH={folder}", tmp_path)
    assert built.versions["tensorflow"] == "2.99.0"
    assert built.lock == ("tf-nightly==2.99.0",)
    assert time_import(interpreter_of(built), tmp_path, [], 60) > 0


def test_an_interpreter_imports_the_tensorflow_of_the_users_site(tmp_path: Path) -> None:
    base = tmp_path / "user's base"
    site = sysconfig.get_path("purelib", "posix_user", vars={"userbase": str(base)})
    unpacked(Path(site))
    text = f'python:{sys._base_executable} "PYTHONUSERBASE={base}"'  # type: ignore[attr-defined]
    built = build_here(text, tmp_path)
    assert built.versions["tensorflow"] == "2.99.0"
    assert time_import(interpreter_of(built), tmp_path, [], 60) > 0


def test_a_withheld_tensorflow_is_named_with_its_setting(
    tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"python:{bare}"
    monkeypatch.chdir(tmp_path)
    assert problem(text, tmp_path) == "contains no TensorFlow"
    folder = unpacked(tmp_path / "a b")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    assert problem(text, tmp_path) == (
        f"contains no TensorFlow of its own: it imports the one in {folder}, which measured "
        f"processes do not inherit; add 'PYTHONPATH={folder}' to the request"
    )


def test_a_withheld_tensorflow_of_the_users_site_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    site = sysconfig.get_path("purelib", "posix_user", vars={"userbase": str(base)})
    unpacked(Path(site))
    monkeypatch.setenv("PYTHONUSERBASE", str(base))
    told = problem(f"python:{sys._base_executable}", tmp_path)  # type: ignore[attr-defined]
    assert told.endswith(f"do not inherit; add PYTHONUSERBASE={base} to the request")


def test_an_interpreter_that_needs_a_shared_library_is_told(
    tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the library's folder in the request it is measured."""
    script, libraries = tmp_path / "python", tmp_path / "lib"
    script.write_text(
        f'#!/bin/sh\nif [ "$LD_LIBRARY_PATH" = "{libraries}" ]; then exec "{bare}" "$@"; fi\n'
        f"echo '{MISSING}' >&2\nexit 127\n"
    )
    script.chmod(0o755)
    told = f"cannot be started: {MISSING}; measured processes do not inherit LD_LIBRARY_PATH: add "
    after = " to the request if the library lies there"
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert problem(f"python:{script}", tmp_path) == f"{told}LD_LIBRARY_PATH=FOLDER{after}"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    assert problem(f"python:{script}", tmp_path) == f"{told}LD_LIBRARY_PATH={libraries}{after}"
    folder = unpacked(tmp_path / "folder")
    text = f"python:{script} LD_LIBRARY_PATH={libraries} PYTHONPATH={folder}"
    built = build_here(text, tmp_path)
    assert built.versions["tensorflow"] == "2.99.0"
    assert time_import(interpreter_of(built), tmp_path, [], 60) > 0


def test_a_tensorflow_that_needs_a_shared_library_is_told(tmp_path: Path) -> None:
    source = "import os\nif 'LD_LIBRARY_PATH' not in os.environ:\n"
    source += "    raise ImportError('libx.so.1: cannot open shared object file: No such file')\n"
    wheel = write_wheel(tmp_path, source + SOURCE)
    assert problem(str(wheel), tmp_path).endswith(
        "add LD_LIBRARY_PATH=FOLDER to the request if the library lies there"
    )
    text = f"{wheel} LD_LIBRARY_PATH={tmp_path}"
    first = build_here(text, tmp_path)
    problem(str(wheel), tmp_path)
    assert build_here(text, tmp_path) == first  # the failure without the library is no damage


def test_an_interpreter_that_dies_at_its_start_is_not_called_old(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'Fatal Python error: no codec\n\nframe' >&2\nexit 1\n")
    script.chmod(0o755)
    told = problem(f"python:{script}", tmp_path)
    assert told == "cannot be started: Fatal Python error: no codec"


def test_two_distributions_of_tensorflow_in_an_interpreter_are_refused(
    tmp_path: Path, bare: Path
) -> None:
    folder = unpacked(tmp_path / "folder")
    about = folder / "acme-1.0.dist-info"
    about.mkdir()
    about.joinpath("METADATA").write_text("Name: acme\nVersion: 1.0\n")
    about.joinpath("RECORD").write_text("tensorflow/__init__.py,,\n")
    assert problem(f"python:{bare} PYTHONPATH={folder}", tmp_path) == (
        "acme 1.0 and tf-nightly 2.99.0 both install the package tensorflow, one over the other: "
        "uninstall both, then install one"
    )


def test_pages_of_large_libraries_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Freshly written libraries would take more memory than the same ones read from disk."""
    large, small = tmp_path / "a" / "large.so.2", tmp_path / "small.so"
    large.parent.mkdir()
    large.write_bytes(bytes(1 << 20))
    small.write_bytes(b"x")
    (tmp_path / "large.txt").write_bytes(bytes(1 << 20))
    (tmp_path / "link.so").symlink_to(large)
    dropped: list[str] = []
    monkeypatch.setattr(
        "os.posix_fadvise",
        lambda file, *_: dropped.append(os.readlink(f"/proc/self/fd/{file}")),
        raising=False,
    )
    forget_pages(str(tmp_path))
    assert dropped == [str(large)]
