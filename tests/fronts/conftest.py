"""Fixtures of the command tests: a small pytest project, stub workers, no MNIST."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import plugin, speed
from bench.plans import speed as speed_plan
from bench.records import blocks
from lenet5 import data
from tests.measure.stub_worker import stub_python

ROOT = Path(__file__).parents[2]

# Plugin and options of the root conftest.py, without TensorFlow.
CONFTEST = """
import pytest
pytest_plugins = ["bench.plugin"]

def pytest_addoption(parser):
    parser.addoption("--threads", type=int)
    parser.addoption("--device", default=None)
    parser.addoption("--mnist-dir", default=None)
    parser.addoption("--recipe", default=None)
    parser.addoption("--seed", type=int, default=None)
    parser.addoption("--engine", choices=("keras", "graph"), default=None)
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture(autouse=True)
def all_gpus_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TensorFlow that has started in this process hides them."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def stub(tmp_path: Path) -> str:
    """Returns the requirement string of an environment with simulated times."""
    return f"python:{stub_python(tmp_path)}"


@pytest.fixture
def black_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Replaces MNIST with black images and the user's cache with an empty one."""
    black = data.Subset(np.zeros((200, 28, 28, 1), np.uint8), np.zeros(200, np.uint8))
    monkeypatch.setattr(
        data, "load_dataset", lambda *_, **__: data.Dataset("mnist", black, black, black)
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits blocks to four pairs and replaces their witnesses."""
    real = speed.bench_of

    def short(terms: speed_plan.Terms, folder: Path) -> object:
        return real(replace(terms, pair_seconds=0.0), folder)

    monkeypatch.setattr(speed, "bench_of", short)
    monkeypatch.setattr("bench.measure.machine.witness", lambda *_: blocks.Witness(1e-4, load=0.0))


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Returns a function that runs `pytest` on copies of the test modules collected on request.

    The tests run in the folder `bench`, unless the first argument is another path.
    """
    pytester.makeconftest(CONFTEST)
    folder = pytester.mkdir("bench")
    monkeypatch.setattr(plugin, "FOLDER", folder)
    for name in ("test_accuracy.py", "test_speed.py"):
        shutil.copy(ROOT / "bench" / name, folder)
    (folder / "test_other.py").write_text("def test_other(): pass\n")

    def go(*arguments: str) -> pytest.RunResult:
        named = bool(arguments) and Path(arguments[0]).exists()
        arguments = ("-p", "no:cacheprovider", *([] if named else ["bench"]), *arguments)
        return pytester.runpytest_inprocess(*arguments, no_reraise_ctrlc=True)

    return go
