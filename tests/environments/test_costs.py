"""Size and time of a build, told before it starts."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.environments import commands
from bench.environments.cache import costs
from bench.environments.cache.costs import Bytes, Costs, Noted
from bench.environments.commands import EnvironmentProblem
from tests.environments.building import (
    Completed,
    Recorder,
    build_here,
    environments_in,
    failed,
    problem,
)
from tests.environments.small_index import serving
from tests.environments.wheels import write_wheel

GB = 10**9
# 44 packages of tensorflow[and-cuda]==2.21.0, on the public index on 2026-11-28.
WHEELS = Bytes(nvidia=2_807_208_857, others=633_447_118)


def costs_here(
    wheels: Bytes | None, *earlier: Noted, free: float = 21 * GB, local: int = 0
) -> Costs:
    return Costs(44, wheels, local, Path("/cache"), int(free), earlier)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Returns the folder of an index with TensorFlow, which has an extra, and the extra's package.

    Its packages are in no cache of uv's.
    """
    folder = tmp_path / "index"
    requires = ["nvidia-small==1; extra == 'and-cuda'", "helper"]
    write_wheel(folder, requires=requires, extras=["and-cuda"])
    for name in ("helper", "nvidia-small"):
        package = name.partition("-")[0]
        write_wheel(folder, "x = 1\n", distribution=name, version="1", package=package)
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(folder) as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", address)
        yield folder


# Words


def test_a_first_build_has_no_time_yet() -> None:
    assert str(costs_here(WHEELS)) == (
        "44 packages, at most 3.4 GB to download (2.8 GB of NVIDIA's), about 8.0 GB to install, "
        "21 GB free on the disk; time unknown: no earlier build here"
    )


def test_earlier_builds_give_factors_and_time() -> None:
    """Small ones say nothing about large ones."""
    small = Noted(Bytes(0, 9_000_000), Bytes(0, 900_000_000), 900)
    cpus = Noted(Bytes(0, 300_000_000), Bytes(0, 1_200_000_000), 20)
    gpus = Noted(Bytes(3 * GB, 700_000_000), Bytes(5 * GB, 2_800_000_000), 180)
    found = costs_here(WHEELS, small, cpus, cpus, gpus)
    assert found.disk_bytes == pytest.approx(WHEELS.nvidia * 5 / 3 + WHEELS.others * 4)
    assert found.seconds == pytest.approx(WHEELS.total * 220 / 4.3e9)
    assert str(found).endswith("; about 3 minutes by 3 earlier builds")
    known = costs_here(Bytes(0, 300_000_000), cpus)
    assert str(known) == (
        "44 packages, at most 300 MB to download, about 1.2 GB to install, 21 GB free on the "
        "disk; about 20 s by 1 earlier build"
    )


@pytest.mark.parametrize("seconds", ["1e999", "NaN", "-5", '"soon"', "1e12"])
@pytest.mark.parametrize("size", ["20000000", "-1", "1" + 400 * "0"])
def test_impossible_notes_of_a_build_are_left_out(seconds: str, size: str, tmp_path: Path) -> None:
    """Somebody may have edited them; a build that needs none of them goes on."""
    folder = tmp_path / "environments" / "ab"
    folder.mkdir(parents=True)
    sizes = f'{{"nvidia": 0, "others": {size}}}'
    build = f'{{"wheels": {sizes}, "installed": {sizes}, "seconds": {seconds}}}'
    (folder / "complete.json").write_text(f'{{"build": {build}}}')
    found = costs.costs_of({}, [], tmp_path, tmp_path)
    assert found.earlier == ()
    assert str(found).endswith("time unknown: no earlier build here")


def test_unknown_sizes_and_local_wheels_are_told() -> None:
    earlier = Noted(Bytes(0, 300_000_000), Bytes(0, 1_200_000_000), 20)
    told = "44 packages, size unknown, 2.1 GB free on the disk; time unknown"
    assert str(costs_here(None, earlier, free=2.1 * GB)) == told
    costs_here(None, earlier, free=0).check_space()
    local = costs_here(Bytes(0, 1001), local=1001)
    assert str(local).startswith("44 packages, nothing to download, about 5 kB to install, ")


def test_too_little_space_is_told_in_one_line_with_its_factors() -> None:
    costs_here(WHEELS, free=8 * GB).check_space()
    with pytest.raises(EnvironmentProblem) as caught:
        costs_here(WHEELS, free=2 * GB).check_space()
    assert str(caught.value) == (
        "needs about 8.0 GB on the disk (2.8 GB of NVIDIA's wheels times 1.8 by a measurement, "
        "633 MB of wheels times 4.6 by a measurement), and /cache has 2.0 GB free: "
        "python -m bench environments removes environments"
    )
    earlier = Noted(Bytes(0, 300_000_000), Bytes(0, 1_200_000_000), 20)
    told = re.escape("1.0 GB of wheels times 4.0 by 1 build here)")
    with pytest.raises(EnvironmentProblem, match=told):
        costs_here(Bytes(0, GB), earlier, free=2 * GB).check_space()


# Builds


def test_a_requirement_with_an_extra_is_built_from_an_index(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sizes are those of the index; the finished build notes bytes and seconds."""
    said: list[str] = []
    built = build_here("tensorflow[and-cuda]==2.21.0", tmp_path, said.append)
    assert built.lock == ("helper==1", "nvidia-small==1", "tensorflow==2.21.0")
    (folder,) = environments_in(tmp_path)
    assert len(said) == 1
    assert re.fullmatch(
        rf"tensorflow\[and-cuda\]==2\.21\.0: building in {re.escape(str(folder))}: "
        r"3 packages, at most \d kB to download \(\d kB of NVIDIA's\), about \d+ kB to install, "
        r"\d+(\.\d)? [GM]B free on the disk; time unknown: no earlier build here",
        said[0],
    )
    note = json.loads((folder / "complete.json").read_text())["build"]
    sizes = {path.name.partition("-")[0]: path.stat().st_size for path in index.iterdir()}
    nvidia = sizes.pop("nvidia_small")
    assert note["wheels"] == {"nvidia": nvidia, "others": sum(sizes.values())}
    assert note["installed"]["nvidia"] > 0
    assert note["installed"]["others"] > note["installed"]["nvidia"]
    assert note["seconds"] >= 0

    plain = build_here("tensorflow==2.21.0", tmp_path)
    assert plain.lock == ("helper==1", "tensorflow==2.21.0")
    assert plain.python != built.python

    recorder = Recorder(monkeypatch, {"compile": failed("error: Failed to fetch: x")})
    again = build_here("tensorflow[and-cuda]==2.21.0", tmp_path)  # without network
    assert (again.python, again.lock) == (built.python, built.lock)
    assert recorder.kinds() == ["compile", "python"]


@pytest.mark.usefixtures("index")
def test_a_local_wheel_gets_an_extra_from_a_word_beside_it(tmp_path: Path) -> None:
    requires = ["nvidia-small==1; extra == 'and-cuda'"]
    wheel = write_wheel(tmp_path, version="2.22.0", requires=requires, extras=["and-cuda"])
    lock = build_here(f"{wheel} tensorflow[and-cuda]", tmp_path).lock
    assert [entry.partition(" ")[0] for entry in lock] == ["nvidia-small==1", "tensorflow==2.22.0"]


def test_an_index_without_sizes_is_no_reason_to_stop(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with serving(index, has_sizes=False) as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", address)
        build_here("tensorflow==2.21.0", tmp_path, said.append)
    assert re.search(": 2 packages, size unknown, .* free on the disk; time unknown$", said[0])
    (folder,) = environments_in(tmp_path)
    assert "build" not in json.loads((folder / "complete.json").read_text())


class Usage(NamedTuple):
    """As `shutil.disk_usage` returns it."""

    total: int
    used: int
    free: int


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 100, 100))
    told = problem(str(write_wheel(tmp_path)), tmp_path)
    assert re.fullmatch(r"needs about \d+ kB on the disk \(.*\), and .* has 1 kB free: .*", told)
    assert environments_in(tmp_path) == []


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "no TOML = = =",
        "packages = 3\n",
        "[[packages]]\nname = 'a'\n",
        "[[packages]]\nname = 'a'\nwheels = []\n",
        "[[packages]]\nname = 'a'\nwheels = [{url = 'x', size = 3}]\n",
        "[[packages]]\nname = 'a'\nwheels = [{url = 'https://x.invalid/a-1-py3-none-any.whl'}]\n",
    ],
)
def test_an_unexpected_answer_of_uv_is_an_unknown_size(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Completed([], 0, answer, "")
    Recorder(monkeypatch, {"compile": done})
    assert costs.costs_of({"a==1": "a==1"}, [], tmp_path, tmp_path).wheels is None


def test_the_size_is_that_of_the_wheel_that_fits_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = f"cp3{sys.version_info.minor}"
    wheels = ", ".join(
        f"{{url = 'https://x.invalid/f/a-1-{tags}.whl', size = {size}}}"
        for tags, size in (("py3-none-any", 1), (f"{tag}-none-any", 2), ("cp27-none-any", 3))
    )
    done = Completed([], 0, f"[[packages]]\nname = 'nvidia-a'\nwheels = [{wheels}]\n", "")
    Recorder(monkeypatch, {"compile": done})
    found = costs.costs_of({"nvidia-a==1": "nvidia-a==1"}, [], tmp_path, tmp_path)
    assert found.wheels == Bytes(nvidia=2, others=0)


# Signs of life


def test_a_long_build_says_each_minute_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, said = commands.run, list[str]()

    def run(command: list[str], *arguments: Any, **named: Any) -> Any:
        if "install" in command:
            named["still"](60.0)
            named["still"](120.0)
        return real(command, *arguments, **named)

    monkeypatch.setattr(commands, "run", run)
    text = str(write_wheel(tmp_path))
    build_here(text, tmp_path, said.append)
    assert said[1:] == [f"{text}: still building, 1 min", f"{text}: still building, 2 min"]


def test_a_long_command_is_reported_at_intervals_and_keeps_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits here for the second report."""
    monkeypatch.setattr(commands, "_NEWS_SECONDS", 0.01)
    go_on, told = tmp_path / "go on", list[float]()

    def still(seconds: float) -> None:
        told.append(seconds)
        if len(told) == 2:
            go_on.touch()

    code = "import os, time\nprint('a', flush=True)\n"
    code += f"while not os.path.exists({str(go_on)!r}):\n    time.sleep(0.001)\nprint('b')\n"
    done = commands.run([sys.executable, "-c", code], {}, tmp_path, still=still)
    assert (done.returncode, done.stdout) == (0, "a\nb\n")
    assert told[:2] == pytest.approx([0.01, 0.02])


def test_an_interrupted_command_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_NEWS_SECONDS", 0.01)

    def still(_: float) -> None:
        raise KeyboardInterrupt

    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(KeyboardInterrupt):
        commands.run(sleep, {}, tmp_path, still=still)
