"""Costs of a build before it starts: bytes to download, bytes on the disk, and time.

uv tells the size of each wheel as the index does (PEP 700), in a `pylock.toml` (PEP 751). No index
is asked again: uv has its answers from the resolution. NVIDIA's packages count apart, since their
wheels unpack to fewer times their size. Each finished build notes its bytes and seconds; later
estimates come from these notes.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import msgspec
from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

from bench.environments import commands
from bench.environments.cache.entries import COMPLETE, bytes_in, environments_in
from bench.environments.commands import EnvironmentProblem
from lenet5.errors import InputError
from lenet5.run_directory import read_json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NVIDIA = "nvidia"  # begins the names of its packages, and is the folder of most of their files
_OTHERS = "others"
_KINDS = {_NVIDIA: "NVIDIA's wheels", _OTHERS: "wheels"}
# Bytes on the disk per byte of a wheel, on Linux, x86-64, 2026-11-28. NVIDIA's: 8 of the 13 wheels
# of tensorflow[and-cuda]==2.21.0 (0.8 of 2.8 GB), from 1.4 (cufft, nccl together) to 2.6 (the six
# small ones together). Others: four environments of tensorflow-cpu, from 4.4 to 4.8.
_MEASURED = {_NVIDIA: 1.8, _OTHERS: 4.6}
_LEAST_BYTES = 10_000_000  # of wheels; smaller builds say nothing about large ones
_HASH = " @ sha256:"  # in the lock entry of a local wheel
# Limits of the notes, which somebody may have edited: 1 PB, 1 year.
_Size = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=31_536_000)]


class Bytes(msgspec.Struct, frozen=True):
    """Bytes of NVIDIA's packages, and of all others."""

    nvidia: _Size
    others: _Size

    @property
    def total(self) -> int:
        """All bytes."""
        return self.nvidia + self.others


class Noted(msgspec.Struct, frozen=True):
    """Notes of a finished build.

    Attributes:
        wheels: bytes of its wheels.
        installed: bytes of the environment on the disk.
        seconds: wall time of the installation.
    """

    wheels: Bytes
    installed: Bytes
    seconds: _Seconds


@dataclass(frozen=True)
class Factor:
    """Bytes on the disk per byte of a wheel.

    Attributes:
        value: the factor.
        builds: number of earlier builds here that gave it; 0: `_MEASURED`.
    """

    value: float
    builds: int


@dataclass(frozen=True)
class Costs:
    """Costs of a build.

    Attributes:
        packages: number of distributions.
        wheels: bytes of their wheels; None if a size is not known.
        local_bytes: bytes of local wheels among them, which are not downloaded.
        folder: folder of the environments.
        free_bytes: bytes that are free there.
        earlier: notes of earlier builds there.
    """

    packages: int
    wheels: Bytes | None
    local_bytes: int
    folder: Path
    free_bytes: int
    earlier: tuple[Noted, ...] = ()

    def factor(self, kind: str) -> Factor:
        """Returns the factor of a kind of packages, a field of `Bytes`."""
        large = [each for each in self.earlier if getattr(each.wheels, kind) >= _LEAST_BYTES]
        if not large:
            return Factor(_MEASURED[kind], 0)
        before, after = (
            sum(getattr(each, kind) for each in sizes)
            for sizes in ([one.wheels for one in large], [one.installed for one in large])
        )
        return Factor(after / before, len(large))

    @property
    def disk_bytes(self) -> float | None:
        """Estimated bytes of the environment on the disk; None if they are not known."""
        if self.wheels is None:
            return None
        kinds = self.factor(_NVIDIA).value, self.factor(_OTHERS).value
        return self.wheels.nvidia * kinds[0] + self.wheels.others * kinds[1]

    @property
    def seconds(self) -> float | None:
        """Estimated wall time by the earlier builds' bytes a second; None without these."""
        large = self._large_builds
        if self.wheels is None or not large:
            return None
        rate = sum(one.seconds for one in large) / sum(one.wheels.total for one in large)
        return self.wheels.total * rate

    def check_space(self) -> None:
        """Raises EnvironmentProblem if the disk has less space than the environment may take."""
        if self.wheels is None or self.disk_bytes is None or self.disk_bytes <= self.free_bytes:
            return
        factors = []
        for kind, name in _KINDS.items():
            if size := getattr(self.wheels, kind):
                factor = self.factor(kind)
                by = f"{_count(factor.builds, 'build')} here" if factor.builds else "a measurement"
                factors.append(f"{_size(size)} of {name} times {factor.value:.1f} by {by}")
        raise EnvironmentProblem(
            f"needs about {_size(self.disk_bytes)} on the disk ({', '.join(factors)}), and "
            f"{self.folder} has {_size(self.free_bytes)} free: python -m bench environments "
            "removes environments"
        )

    def __str__(self) -> str:
        """The costs in words, for one line."""
        free = f"{_size(self.free_bytes)} free on the disk"
        packages = _count(self.packages, "package")
        if self.wheels is None or self.disk_bytes is None:
            return f"{packages}, size unknown, {free}; time unknown"
        size = f"at most {_size(self.wheels.total - self.local_bytes)} to download"
        if self.wheels.total == self.local_bytes:
            size = "nothing to download"
        if self.wheels.nvidia:
            size += f" ({_size(self.wheels.nvidia)} of NVIDIA's)"
        size += f", about {_size(self.disk_bytes)} to install"
        time = "time unknown: no earlier build here"
        if self.seconds is not None:
            time = f"{_time(self.seconds)} by {_count(len(self._large_builds), 'earlier build')}"
        return f"{packages}, {size}, {free}; {time}"

    @property
    def _large_builds(self) -> list[Noted]:
        return [each for each in self.earlier if each.wheels.total >= _LEAST_BYTES]


def costs_of(pins: Mapping[str, str], local: Sequence[Path], cache: Path, scratch: Path) -> Costs:
    """Returns the costs of a build.

    Args:
        pins: requirements for uv, by their entries in the lock.
        local: local wheels.
        cache: folder with the earlier builds.
        scratch: folder for temporary files.
    """
    remote = [line for entry, line in pins.items() if _HASH not in entry]
    wheels = _sizes(remote, scratch)
    local_bytes = sum(path.stat().st_size for path in local)
    if wheels is not None:
        wheels = Bytes(wheels.nvidia, wheels.others + local_bytes)
    free = shutil.disk_usage(cache).free
    return Costs(len(pins), wheels, local_bytes, cache, free, tuple(_earlier(cache)))


def noted(costs: Costs, home: Path, seconds: float) -> dict[str, Any]:
    """Returns the entry `build` of a finished build's notes; empty if sizes are not known."""
    if costs.wheels is None:
        return {}
    everything, others = bytes_in(home), bytes_in(home, without=_NVIDIA)
    return {
        "build": msgspec.to_builtins(
            Noted(costs.wheels, Bytes(everything - others, others), round(seconds, 1))
        )
    }


def _earlier(cache: Path) -> Iterable[Noted]:
    for folder in environments_in(cache):
        with contextlib.suppress(InputError, KeyError, msgspec.ValidationError):
            yield msgspec.convert(read_json(folder / COMPLETE)["build"], Noted)


def _sizes(pins: Sequence[str], scratch: Path) -> Bytes | None:
    """Returns the bytes of the wheels that uv would install; None if uv does not know one."""
    if not pins:
        return Bytes(0, 0)
    pinned = scratch / "pins.txt"
    pinned.write_text("\n".join(pins) + "\n", encoding="utf-8")
    done = commands.uv(
        scratch,
        *("pip", "compile", pinned, "--python", sys.executable, "--no-header", "--offline"),
        *("--format", "pylock.toml", "--no-deps", "--no-universal", "--no-build"),
    )
    if done.returncode:
        return None
    order = {tag: place for place, tag in enumerate(sys_tags())}
    sizes = dict.fromkeys(_KINDS, 0)
    try:
        for package in tomllib.loads(done.stdout)["packages"]:
            best = min(package["wheels"], key=lambda wheel: _place(wheel["url"], order))
            kind = _NVIDIA if package["name"].startswith(_NVIDIA) else _OTHERS
            sizes[kind] += int(best["size"])
    except (KeyError, ValueError, TypeError, AttributeError):  # no sizes, or another format
        return None
    return Bytes(**sizes)


def _place(url: str, order: Mapping[Any, int]) -> int:
    """Returns a place by which the wheel that fits this Python best comes first."""
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    tags = parse_wheel_filename(name)[3]
    return min((order[tag] for tag in tags if tag in order), default=len(order))


def _size(size: float) -> str:
    if size < 1e6:
        return f"{math.ceil(size / 1e3)} kB"
    if size < 1e9:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.1f} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(10 * math.ceil(seconds / 10), 10)} s"
    return f"about {round(seconds / 60)} minutes"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
