"""Packages neither run code while they are resolved nor come from unnamed places."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from bench.environments import commands
from bench.environments.commands import uv_text
from tests.environments.building import Recorder, build_here, problem
from tests.environments.wheels import write_wheel


def write_source_archive(folder: Path, marker: Path) -> None:
    """Writes an archive `source-1` whose build creates the file `marker`."""
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: source\nVersion: 1\n",
        "pyproject.toml": (
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        ),
        "backend.py": f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n",
    }
    folder.mkdir()
    with tarfile.open(folder / "source-1.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"source-1/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


def test_a_source_archive_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code would run with all variables of the user, tokens of a CI job among them."""
    marker = tmp_path / "was-run"
    write_source_archive(tmp_path / "links", marker)
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "links"))
    wheel = write_wheel(tmp_path / "wheels", requires=["source==1"])
    told = problem(str(wheel), tmp_path)
    assert not marker.exists()
    assert "cannot be resolved" in told
    assert "no usable wheels" in told or "building from source is disabled" in told


def test_a_url_in_uvs_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock would not identify the package."""
    wheel = write_wheel(tmp_path)
    answer = f"tensorflow @ {wheel.as_uri()}\nother @ https://x.invalid/other-1.whl\n"
    Recorder(monkeypatch, {"compile": subprocess.CompletedProcess([], 0, answer, "")})
    told = problem(str(wheel), tmp_path)
    assert told == "other is required from a URL: give its version or wheel"
    assert not (tmp_path / "cache" / "environments").exists()


def test_a_wheels_folder_is_no_variable_comment_or_escape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requirements file of uv may contain variables, comments and percent signs."""
    monkeypatch.setenv("PLACE", "elsewhere")
    wheel = write_wheel(tmp_path / "${PLACE}$PLACE#x%41{b};[c]@d")
    assert build_here(str(wheel), tmp_path).lock[0].startswith("tensorflow==2.21.0 @ sha256:")


def test_passwords_of_an_index_are_not_repeated() -> None:
    told = uv_text("error: Failed to fetch: `https://user:secret@index.invalid/simple/keras/`")
    assert told == "  error: Failed to fetch: `https://****@index.invalid/simple/keras/`"


def test_output_of_a_command_is_printable(tmp_path: Path) -> None:
    code = "import sys; print('\\x1b[2J'); print('\\x07\\0', file=sys.stderr)"
    done = commands.run(["python3", "-c", code], {"PATH": "/usr/bin:/bin"}, tmp_path)
    assert (done.stdout, done.stderr) == ("\\x1b[2J\n", "\\x07\\x00\n")


def test_names_of_installed_packages_are_printable(tmp_path: Path) -> None:
    source = 'from tensorflow import keras\n__version__ = "2.21.0\\x1b[2J"\n'
    built = build_here(str(write_wheel(tmp_path, source)), tmp_path)
    assert built.versions["tensorflow"] == "2.21.0\\x1b[2J"
