"""A small stand-in for MNIST, and processes that prepare it.

`python -m tests.preparing SECONDS` is `lenet5 data` with the stand-in.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lenet5 import data
from lenet5.data import Dataset, Subset
from lenet5.errors import InputError
from tests.commands import ROOT

CACHE = "mnist-3.0.1-split1"
LOCK = f"{CACHE}.lock"
UNSET = {"LENET5_MNIST_DIR": "", "LENET5_CACHE_DIR": ""}
MOMENTS = {
    "original": "lenet5.data._original_mnist",
    "save": "numpy.save",
    "rmtree": "shutil.rmtree",
    "rename": "pathlib.Path.rename",
    "renamed": "pathlib.Path.rename",
}


class Small:
    """5,100 training and 20 test images of 2x2 pixels instead of MNIST's."""

    def __init__(self) -> None:
        self.calls = 0
        self.fail: Callable[[], None] = lambda: None
        random = np.random.RandomState(0)
        self.training, self.test = (
            Subset(
                random.randint(0, 256, (10 * per_class, 2, 2, 1)).astype(np.uint8),
                np.tile(np.arange(10), per_class).astype(np.uint8),
            )
            for per_class in (510, 2)
        )
        self.sha256 = data.sha256_of(data._split_mnist(self.training, self.test))

    def original_mnist(self, *_: object, **__: object) -> Dataset:
        self.calls += 1
        self.fail()
        return data._split_mnist(self.training, self.test)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Takes MNIST's place in `load_dataset`."""
        monkeypatch.setattr(data, "_original_mnist", self.original_mnist)
        monkeypatch.setattr(data, "_MNIST_SHA256", self.sha256)


def load(data_dir: Path, **more: Any) -> Dataset:
    return data.load_dataset("mnist", data_dir=data_dir, **more)


def refusal(data_dir: Path, **more: Any) -> str:
    with pytest.raises(InputError) as info:
        load(data_dir, **more)
    message = str(info.value)
    assert "\n" not in message
    return message


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(data_dir: Path, seconds: float = 0) -> subprocess.Popen[str]:
    """Starts `lenet5 data` with the stand-in.

    Args:
        data_dir: folder that gets the file `calls` when the preparation starts.
        seconds: duration of the preparation.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "tests.preparing", str(seconds)],
        cwd=ROOT,
        env={**os.environ, "TFDS_DATA_DIR": str(data_dir), **UNSET},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> None:
    """Returns when a file is there."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def fork(run: Callable[[], object]) -> int:
    """Runs a function in a copy of this process, which starts at once; returns the process id."""
    process = os.fork()
    if process == 0:
        try:
            run()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return process


def status_of(process: int) -> int:
    """Waits for a forked process; returns 0, or what ended it as a negative signal number."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill_at(moment: str, count: int, run: Callable[[], object]) -> None:
    """Runs a function; kills this process at the COUNTth moment of that name."""
    place, _, name = MOMENTS[moment].rpartition(".")
    target: Any = Path if place == "pathlib.Path" else sys.modules[place]
    function, calls = getattr(target, name), 0

    def killed(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and moment != "renamed":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **more)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(target, name, killed)
    run()


def _main(seconds: float) -> int:
    from lenet5.__main__ import main

    small, calls = Small(), Path(os.environ["TFDS_DATA_DIR"]) / "calls"

    def called() -> None:
        calls.touch()
        time.sleep(seconds)

    small.fail = called
    small.install(pytest.MonkeyPatch())
    sys.argv = ["lenet5", "data"]
    return main()


if __name__ == "__main__":
    sys.exit(_main(float(sys.argv[1])))
