"""Nobody else can write the programs that run here, nor put a folder in their place."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.environments.commands import EnvironmentProblem
from bench.environments.scratch import make_private
from lenet5.run_directory import write_json
from tests.environments.building import build_here, environments_in, problem
from tests.environments.wheels import write_wheel


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_new_cache_is_closed_to_others(cache: Path) -> None:
    before = os.umask(0)
    try:
        make_private(cache)
    finally:
        os.umask(before)
    assert mode(cache) == 0o700


def test_a_readable_cache_is_closed_to_others(cache: Path) -> None:
    cache.mkdir(mode=0o755)
    make_private(cache)
    assert mode(cache) == 0o700


@pytest.mark.parametrize("bits", [0o777, 0o775, 0o757, 0o1777])
def test_a_cache_that_others_can_write_is_refused(bits: int, cache: Path) -> None:
    cache.mkdir()
    cache.chmod(bits)
    with pytest.raises(EnvironmentProblem, match=r"others can write programs into .*: remove it"):
        make_private(cache)
    assert mode(cache) == bits


def test_a_cache_of_another_user_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    real = Path.stat

    def stat_of(path: Path, **options: Any) -> Any:
        found = real(path, **options)
        return SimpleNamespace(st_uid=54321, st_mode=found.st_mode) if path == cache else found

    monkeypatch.setattr(Path, "stat", stat_of)
    with pytest.raises(EnvironmentProblem, match="belongs to another user: give another cache"):
        make_private(cache)


def test_a_cache_in_a_folder_open_to_all_is_refused_without_its_sticky_bit(tmp_path: Path) -> None:
    """As in /tmp: with the bit, only its owner can rename a folder."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    make_private(shared / "one")
    shared.chmod(0o777)
    with pytest.raises(EnvironmentProblem, match=r"others can replace folders in .*/shared: give"):
        make_private(shared / "two")


def test_a_planted_environment_is_neither_built_into_nor_run(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels")
    build_here(str(wheel), tmp_path)
    (tmp_path / "cache").chmod(0o777)
    assert problem(str(wheel), tmp_path).startswith("others can write programs into ")


@pytest.mark.parametrize("home", ["../../../planted", "/planted", "", ".", 1])
def test_the_stored_name_of_an_environment_leads_nowhere_else(home: object, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels")
    first = build_here(str(wheel), tmp_path)
    planted = tmp_path / "planted" / "bin" / "python"
    planted.parent.mkdir(parents=True)
    planted.write_text("#!/bin/sh\ntouch " + str(tmp_path / "was-run"))
    planted.chmod(0o755)
    (folder,) = environments_in(tmp_path)
    write_json(folder / "complete.json", {"home": home, "lock": list(first.lock)})
    again = build_here(str(wheel), tmp_path)
    assert again.python.parents[2] == folder
    assert not (tmp_path / "was-run").exists()
