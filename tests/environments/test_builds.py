"""Builds of environments: cached by lock and Python, with uv's messages in errors."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sysconfig
import threading
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from bench.environments import builds
from bench.environments.builds import Built
from bench.environments.commands import uv_text
from bench.environments.labels import labels
from bench.environments.request import quoted
from tests.environments.building import (
    Completed,
    Recorder,
    build_here,
    environments_in,
    failed,
    homes_in,
    problem,
)
from tests.environments.wheels import write_wheel

OFFLINE = """\
error: Failed to fetch: https://index.invalid/simple/tensorflow-cpu/
  cause: error sending request for url (https://index.invalid/simple/tensorflow-cpu/)
  cause: client error (Connect)
  cause: dns error
  cause: error resolving DNS
  cause: failed to lookup address information: Name or service not known
"""


# uv's messages


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (  # uv 0.13
            "error: No solution found when resolving dependencies\n"
            "  cause: Because tensorflow-cpu==2.16.2 depends on keras>=3.0.0 and you require "
            "keras==2.15.0, we can conclude that your requirements are unsatisfiable.\n"
            "\n"
            "hint: Pre-releases are available.\n"
            "\n",
            "  error: No solution found when resolving dependencies\n"
            "    cause: Because tensorflow-cpu==2.16.2 depends on keras>=3.0.0 and you require "
            "keras==2.15.0, we can conclude that your requirements are unsatisfiable.\n"
            "\n"
            "  hint: Pre-releases are available.",
        ),
        (  # uv 0.8
            "  \u00d7 No solution found when resolving dependencies:\n"
            "  ╰─▶ Because there is no version of tensorflow-cpu==9.9.9, we can conclude\n"
            "      that your requirements are unsatisfiable.\n",
            "    \u00d7 No solution found when resolving dependencies:\n"
            "    ╰─▶ Because there is no version of tensorflow-cpu==9.9.9, we can conclude\n"
            "        that your requirements are unsatisfiable.",
        ),
        ("\n\n", "  uv failed without a message"),
    ],
)
def test_uv_messages_are_quoted_unchanged(message: str, text: str) -> None:
    assert uv_text(message) == text


# Builds with the real uv and small wheels


def test_a_wait_for_another_build_is_told(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path)
    build_here(str(wheel), tmp_path)
    (folder,) = environments_in(tmp_path)
    other = FileLock(f"{folder}.lock")
    other.acquire()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        other.release()

    build_here(str(wheel), tmp_path, say)
    assert said == [f"{wheel}: another process builds it, waiting"]


def test_an_environment_is_built_once_and_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = write_wheel(tmp_path / "a folder")
    monkeypatch.chdir(wheel.parent)
    recorder, said = Recorder(monkeypatch), list[str]()
    built = build_here(f"./{wheel.name}", tmp_path, said.append)
    assert recorder.kinds() == ["compile", "venv", "install", "python"]
    (folder,) = environments_in(tmp_path)
    assert [line.partition(": 1 package, ")[0] for line in said] == [
        f"./{wheel.name}: building in {folder}"
    ]
    assert built.python.relative_to(folder).match("*/bin/python")
    assert built.python_version == platform.python_version()
    sha256 = builds._sha256(wheel)
    assert built.lock == (f"tensorflow==2.21.0 @ sha256:{sha256}",)
    assert list(folder.rglob("tensorflow/__pycache__/keras.*.pyc"))

    recorder.commands.clear()
    assert build_here(f"./{wheel.name} TF_A=1", tmp_path, said.append).lock == built.lock
    assert recorder.kinds() == ["compile", "python"]
    assert len(said) == 1


def test_paths_with_blanks_quotes_and_backslashes_are_built(tmp_path: Path) -> None:
    """The wheel, the cache and the interpreter of the built environment."""
    folder = tmp_path / "a b" / "it's" / 'say "so"' / "back\\slash" / "Grüße" / "100 % #1 $HOME"
    wheel = write_wheel(folder)
    built = build_here(quoted(str(wheel)), folder)
    assert built.lock == (f"tensorflow==2.21.0 @ sha256:{builds._sha256(wheel)}",)
    assert build_here(quoted(str(wheel)), folder) == built
    again = build_here(quoted(f"python:{built.python}"), folder)
    assert again.python == built.python
    assert again.versions == built.versions


def test_a_damaged_environment_is_built_again(tmp_path: Path) -> None:
    """Its folder is named, and settings that break TensorFlow are no damage."""
    text, said = str(write_wheel(tmp_path)), list[str]()
    first = build_here(text, tmp_path)
    (module,) = first.python.parents[1].rglob("tensorflow/__init__.py")
    module.write_text("import no_such_module\n")
    second = build_here(text, tmp_path, said.append)
    (folder,) = environments_in(tmp_path)
    assert said[0] == f"{text}: {folder} is damaged"
    assert said[1].startswith(f"{text}: building in {folder}: 1 package, ")
    assert len(said) == 2
    assert second.python != first.python
    assert not first.python.exists()
    assert build_here(text, tmp_path) == second


def test_an_edit_in_one_environment_reaches_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does where uv links files to its cache."""
    monkeypatch.setenv("UV_LINK_MODE", "hardlink")
    wheel, helper = write_wheel(tmp_path), write_wheel(tmp_path, "", distribution="helper")
    one, other = build_here(str(wheel), tmp_path), build_here(f"{wheel} {helper}", tmp_path)
    (module,) = one.python.parents[1].rglob("tensorflow/keras.py")
    module.write_text("edited = True\n")
    code = "from tensorflow import keras; keras.layers"
    subprocess.run([other.python, "-I", "-B", "-c", code], check=True)


def test_an_environment_that_fails_from_the_start_is_not_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = str(write_wheel(tmp_path, "import no_such_module\n"))
    recorder = Recorder(monkeypatch)
    for _ in range(2):
        assert "no_such_module" in problem(text, tmp_path)
    assert recorder.kinds().count("install") == 1


def test_settings_that_break_tensorflow_are_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import os\nfrom tensorflow import keras\nassert 'TF_BAD' not in os.environ\n"
    text = str(write_wheel(tmp_path, source))
    build_here(text, tmp_path)
    recorder = Recorder(monkeypatch)
    assert "AssertionError" in problem(f"{text} TF_BAD=1", tmp_path)
    assert "install" not in recorder.kinds()


def test_a_changed_wheel_is_another_environment(tmp_path: Path) -> None:
    text = str(write_wheel(tmp_path))
    first = build_here(text, tmp_path)
    write_wheel(tmp_path, "from tensorflow import keras\nchanged = True\n")
    second = build_here(text, tmp_path)
    assert first.python != second.python
    assert first.lock != second.lock
    code = "import tensorflow; tensorflow.changed"
    assert subprocess.run([second.python, "-I", "-c", code], check=False).returncode == 0
    assert labels([first.lock, second.lock], [{}, {}])[1].startswith("2.21.0 (wheel ")


def test_the_cache_key_depends_on_packages_and_python_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word order, settings and overrides do not change the key; another Python does."""
    one, two = write_wheel(tmp_path), write_wheel(tmp_path, "", distribution="helper")
    built = build_here(f"{one} {two}", tmp_path)
    assert [entry.partition("==")[0] for entry in built.lock] == ["helper", "tensorflow"]
    assert build_here(f"TF_A=1 {two} {one} without:x", tmp_path).python == built.python
    monkeypatch.setattr(sysconfig, "get_platform", lambda: "another")
    assert build_here(f"{one} {two}", tmp_path).python != built.python


@pytest.mark.parametrize("missing", ["complete.json", "*/bin/python"])
def test_an_incomplete_environment_is_removed_and_rebuilt_elsewhere(
    missing: str, tmp_path: Path
) -> None:
    """Processes left by a killed build may still write to the old folder."""
    text = str(write_wheel(tmp_path))
    first = build_here(text, tmp_path)
    (folder,) = environments_in(tmp_path)
    (lost,) = folder.glob(missing)
    lost.unlink()
    second = build_here(text, tmp_path)
    assert second.lock == first.lock
    assert second.python.parent != first.python.parent
    assert homes_in(tmp_path) == [second.python.parent.parent]
    (folder / "written late").mkdir()
    assert build_here(text, tmp_path) == second
    assert homes_in(tmp_path) == [second.python.parent.parent]


@pytest.mark.parametrize("command", ["venv", "install"])
def test_an_interrupted_build_leaves_nothing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = str(write_wheel(tmp_path))

    def interrupt() -> Completed:
        raise KeyboardInterrupt

    recorder = Recorder(monkeypatch, {command: interrupt})
    with pytest.raises(KeyboardInterrupt):
        build_here(text, tmp_path)
    assert homes_in(tmp_path) == []
    recorder.answers.clear()
    build_here(text, tmp_path)


def test_two_processes_build_an_environment_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, resolved = Recorder(monkeypatch), threading.Barrier(2, timeout=60)
    text = str(write_wheel(tmp_path))
    resolve = builds._resolve

    def resolve_together(*arguments: Any) -> dict[str, str]:
        pins = resolve(*arguments)
        resolved.wait()
        return pins

    monkeypatch.setattr(builds, "_resolve", resolve_together)
    built: list[Built] = []
    threads = [
        threading.Thread(target=lambda: built.append(build_here(text, tmp_path))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 2
    assert built[0] == built[1]
    assert recorder.kinds().count("install") == 1


def test_a_package_excluded_by_an_override_is_not_required(tmp_path: Path) -> None:
    """tf-keras requires `tensorflow`, which would overwrite the files of `tensorflow-cpu`."""
    wheel = write_wheel(tmp_path, requires=["nothing-there==1"])
    assert "nothing-there was not found in the cache" in problem(str(wheel), tmp_path)
    built = build_here(f"{wheel} without:nothing-there", tmp_path)
    assert [entry.partition("==")[0] for entry in built.lock] == ["tensorflow"]


def test_only_the_request_determines_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project in the current folder and an active environment have no influence."""
    wheel = write_wheel(tmp_path, requires=["helper"])
    write_wheel(tmp_path / "links", "", distribution="helper", version="1")
    write_wheel(tmp_path / "links", "", distribution="helper", version="2")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.uv]\nconstraint-dependencies = ["helper<2"]\n[tool.uv.pip]\nno-build = 5\n'
    )
    (tmp_path / "c.txt").write_text("helper<2\n")
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "UV_CONSTRAINT": "c.txt",
        "UV_PROJECT": "/missing",
        "UV_PYTHON": "3.1",
        "UV_REQUIRE_HASHES": "1",
        "UV_RESOLUTION": "lowest",
        "UV_SYSTEM_PYTHON": "1",
        "VIRTUAL_ENV": "/missing",
        "UV_FIND_LINKS": str(tmp_path / "links"),  # the user may choose the package sources
    }.items():
        monkeypatch.setenv(name, value)
    assert "helper==2" in build_here(str(wheel), tmp_path).lock


@pytest.mark.parametrize(
    "setting",
    [
        "generate-hashes = true",
        "require-hashes = true",
        "verify-hashes = true",
        "universal = true",
        "no-deps = true",
        "no-strip-markers = true",
        'resolution = "lowest"',
    ],
)
def test_the_users_uv_settings_do_not_change_a_build(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = write_wheel(tmp_path, requires=["helper; python_version > '3'"])
    for version in ("1", "2"):
        write_wheel(tmp_path / "links", "", distribution="helper", version=version)
    (tmp_path / "config" / "uv").mkdir(parents=True)
    (tmp_path / "config" / "uv" / "uv.toml").write_text(f"[pip]\n{setting}\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "links"))
    assert "helper==2" in build_here(str(wheel), tmp_path).lock


def test_the_date_of_a_nightly_wheel_is_that_of_its_files(tmp_path: Path) -> None:
    """Its version may have none."""
    wheel = write_wheel(tmp_path, distribution="tf-nightly", version="2.23.0.dev0")
    today = datetime.now(timezone.utc).date()  # the archive has local time
    for _ in range(2):  # the second time from the cache
        versions = build_here(str(wheel), tmp_path).versions
        built = datetime.fromisoformat(versions["tensorflow_built"]).date()
        assert abs((built - today).days) <= 1
    for version in ("2.22.0", "2.22.0rc0", "2.23.0.dev20261026"):
        wheel = write_wheel(tmp_path, distribution="tf-nightly", version=version)
        assert "tensorflow_built" not in build_here(str(wheel), tmp_path).versions


# Dates


def test_a_date_is_told_to_uv_as_a_moment_and_not_part_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request of another date is remembered apart; a local wheel stays."""
    recorder, wheel = Recorder(monkeypatch), write_wheel(tmp_path)
    built = build_here(str(wheel), tmp_path)
    assert "--exclude-newer" not in recorder.commands[0]
    for as_of, moment in (
        ("2020-01-01", "2020-01-02T00:00:00+00:00"),
        ("2020-01-02T01:00:00+01:00", "2020-01-02T00:00:00+00:00"),
    ):
        recorder.commands.clear()
        dated = build_here(f"{wheel} as-of:{as_of}", tmp_path)
        assert (dated.python, dated.lock) == (built.python, built.lock)
        place = recorder.commands[0].index("--exclude-newer")
        assert recorder.commands[0][place + 1] == moment
        assert recorder.kinds() == ["compile", "python"]
    assert len(list((tmp_path / "cache" / "requests").iterdir())) == 3


# Without network


def test_without_network_an_earlier_build_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, said = str(write_wheel(tmp_path)), list[str]()
    built = build_here(text, tmp_path)
    Recorder(monkeypatch, {"compile": failed(OFFLINE)})
    (remembered,) = (tmp_path / "cache" / "requests").iterdir()
    content = json.loads(remembered.read_text())
    assert content["resolved"] == datetime.now(timezone.utc).date().isoformat()
    newer = {**content, "resolved": "2026-02-03"}
    older = {"key": content["key"]}  # caches of earlier versions have no date
    for known, date in ((newer, "2026-02-03"), (older, "2026-01-02")):
        remembered.write_text(json.dumps(known))
        day = datetime(2026, 1, 2, 12, tzinfo=timezone.utc).timestamp()
        os.utime(remembered, (day, day))
        note = "the index could not be reached; TensorFlow 2.21.0 is of an earlier build, "
        age = (datetime.now(timezone.utc).date() - datetime.fromisoformat(date).date()).days
        note += f"resolved on {date} ({age} days ago)"
        said.clear()
        assert build_here(text, tmp_path, said.append) == replace(built, note=note)
        assert said == [f"{text}: {note}"]


@pytest.mark.parametrize("change", ["wheel", "word", "python", "folder", "memory"])
def test_without_network_only_an_identical_intact_build_is_used(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed wheel, request or Python is an error, as is a removed or damaged build."""
    text = str(write_wheel(tmp_path))
    build_here(text, tmp_path)
    if change == "wheel":
        write_wheel(tmp_path, "changed = True\n")
    elif change == "word":
        text += " without:keras"
    elif change == "python":
        monkeypatch.setattr(sysconfig, "get_platform", lambda: "another")
    elif change == "folder":
        (environments_in(tmp_path)[0] / "complete.json").unlink()
    else:
        (remembered,) = (tmp_path / "cache" / "requests").glob("*.json")
        remembered.write_text("{}")
    Recorder(monkeypatch, {"compile": failed(OFFLINE)})
    told = "cannot be resolved without network and has no earlier build"
    assert problem(text, tmp_path) == f"{told}\n{uv_text(OFFLINE)}"


@pytest.mark.parametrize(
    "message",
    [
        OFFLINE,
        "error: No solution found when resolving dependencies\n"
        "  cause: Because tensorflow-cpu was not found in the cache and you require "
        "tensorflow-cpu==2.13.0, we can conclude that your requirements are unsatisfiable.\n\n"
        "hint: Packages were unavailable because the network was disabled. When the network is "
        "disabled, registry packages may only be read from the cache.\n",
    ],
)
def test_a_missing_network_is_recognised(
    message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recorder(monkeypatch, {"compile": failed(message)})
    assert "without network" in problem("tensorflow-cpu==2.13.0", tmp_path)
