"""Kept environments: their list, and a removal that never takes one in use."""

from __future__ import annotations

import gc
import os
import re
import shutil
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from filelock import FileLock

from bench.environments.cache.entries import InUseError, Use, bytes_in
from bench.environments.cache.kept import Kept, kept_in, named, older_than, remove
from lenet5.errors import InputError
from tests.environments.building import (
    Recorder,
    build_here,
    environments_in,
    failed,
    problem,
)
from tests.environments.wheels import write_wheel

NOW = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)
DAY = timedelta(days=1)
LATER = datetime.now(timezone.utc) + DAY


def an_environment(key: str, days: float = 0) -> Kept:
    return Kept(Path("/cache/environments") / key, "keras", 10, NOW - days * DAY, is_in_use=False)


def only(tmp_path: Path) -> Kept:
    (found,) = kept_in(tmp_path / "cache")
    return found


def set_time(path: Path, moment: datetime) -> None:
    os.utime(path, (moment.timestamp(), moment.timestamp()))


def forget(tmp_path: Path) -> Kept:
    """Removes the mark of use, as caches of earlier versions have none."""
    found = only(tmp_path)
    (found.folder / "used").unlink()
    return found


# List


def test_a_built_environment_is_listed_with_its_last_use(tmp_path: Path) -> None:
    text = str(write_wheel(tmp_path))
    before = datetime.now(timezone.utc) - timedelta(seconds=2)  # of a coarse file clock
    built = build_here(f"{text} TF_A=1", tmp_path)
    found = only(tmp_path)
    assert found.key == built.python.parents[2].name
    assert found.request == f"{text} TF_A=1"
    assert found.used >= before
    assert found.size_bytes == bytes_in(built.python.parents[2]) > 1000
    assert found.is_in_use
    del built
    gc.collect()
    assert not only(tmp_path).is_in_use


def test_each_use_counts_also_in_a_cache_without_marks(tmp_path: Path) -> None:
    """There the last resolution tells it."""
    text = str(write_wheel(tmp_path))
    build_here(text, tmp_path)
    gc.collect()
    long_ago = NOW - 300 * DAY
    found = only(tmp_path)
    for name in ("used", "complete.json"):
        set_time(found.folder / name, long_ago)
    (remembered,) = (tmp_path / "cache" / "requests").iterdir()
    set_time(remembered, long_ago + DAY)
    assert only(tmp_path).used == long_ago + DAY
    set_time(found.folder / "used", long_ago + 2 * DAY)
    assert only(tmp_path).used == long_ago + 2 * DAY
    remembered.write_text("[]")
    forget(tmp_path)
    assert only(tmp_path).used == long_ago
    build_here(text, tmp_path)
    assert only(tmp_path).used > long_ago + 3 * DAY


def test_links_and_other_files_are_no_environments(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "environments"
    assert kept_in(tmp_path / "cache") == []
    (folder / "abc0").mkdir(parents=True)
    (folder / "notes").mkdir()
    (folder / "abc1").symlink_to(tmp_path)
    (folder / "abc2").touch()
    found = only(tmp_path)
    assert (found.key, found.request) == ("abc0", "")


# Choice


def test_environments_are_chosen_by_age() -> None:
    found = [an_environment("a", 31), an_environment("b", 30), an_environment("c", 0.5)]
    assert [each.key for each in older_than(found, 30, NOW)] == ["a"]
    assert [each.key for each in older_than(found, 0, NOW)] == ["a", "b", "c"]
    with pytest.raises(InputError, match="--remove-older-than is -1, expected 0 or more days"):
        older_than(found, -1, NOW)
    with pytest.raises(InputError, match="expected 0 or more days"):
        older_than(found, 10**15, NOW)


def test_environments_are_chosen_by_the_beginning_of_their_keys() -> None:
    found = [an_environment("ab1"), an_environment("ab2"), an_environment("c3")]
    assert named(found, ["c", "ab2", "c3"]) == [found[2], found[1]]
    for key, told in (("ab", "begins 2 keys: give more of it"), ("d", "no such"), ("", "no such")):
        with pytest.raises(InputError, match=re.escape(f"--remove {key}: {told}")):
            named(found, [key])


# Removal


def test_a_removed_environment_is_built_again(tmp_path: Path) -> None:
    text = str(write_wheel(tmp_path))
    first = build_here(text, tmp_path).python
    gc.collect()
    found = only(tmp_path)
    assert remove(found, datetime.now(timezone.utc)) == found.size_bytes
    assert environments_in(tmp_path) == []
    second = build_here(text, tmp_path).python
    assert second.parents[2] == first.parents[2]


def test_an_environment_in_use_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long ago it was built; a build from an index and one without network count."""
    text = str(write_wheel(tmp_path))
    for answers in ({}, {"compile": failed("error: Failed to fetch: x")}):
        Recorder(monkeypatch, answers)
        built = build_here(text, tmp_path)
        copy = replace(built, note="")
        del built
        with pytest.raises(InUseError, match="a process uses it"):
            remove(only(tmp_path), LATER)
        del copy
        gc.collect()
    remove(only(tmp_path), LATER)


def test_an_environment_that_is_being_built_stays(tmp_path: Path) -> None:
    build_here(str(write_wheel(tmp_path)), tmp_path)
    gc.collect()
    found = only(tmp_path)
    with FileLock(f"{found.folder}.lock"), pytest.raises(InUseError, match="a process builds it"):
        remove(found, LATER)
    remove(found, LATER)


def test_without_a_mark_an_hour_without_use_is_needed(tmp_path: Path) -> None:
    build_here(str(write_wheel(tmp_path)), tmp_path)
    gc.collect()
    found = forget(tmp_path)
    set_time(found.folder / "complete.json", NOW)
    with pytest.raises(InUseError, match="used within the last hour"):
        remove(found, NOW + timedelta(minutes=59))
    assert not (found.folder / "used").exists()
    remove(found, NOW + timedelta(minutes=61))
    assert environments_in(tmp_path) == []


def test_half_of_a_removed_environment_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = str(write_wheel(tmp_path))
    build_here(text, tmp_path)
    gc.collect()

    def fail(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder / "x"))

    found = only(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", fail)
        with pytest.raises(InputError, match="x: cannot be removed: Permission denied"):
            remove(found, LATER)
    Recorder(monkeypatch, {"compile": failed("error: Failed to fetch: x")})
    assert "has no earlier build" in problem(text, tmp_path)


def test_a_use_is_marked_where_that_is_possible(tmp_path: Path) -> None:
    """A folder that is not there, or whose mark is a link, has no mark."""
    Use(tmp_path / "missing")
    target = tmp_path / "target"
    target.touch()
    set_time(target, NOW)
    (tmp_path / "used").symlink_to(target)
    Use(tmp_path)
    assert target.stat().st_mtime == NOW.timestamp()
