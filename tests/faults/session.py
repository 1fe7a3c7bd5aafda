"""A session of the measuring side in a process of its own, so that a trial can kill it.

python -m tests.faults.session KIND PROJECT LEDGER BASELINE CANDIDATE DATASET

KIND is `speed`, `accuracy` or `reference`. The session runs through pytest's plugin or through
`python -m bench`, as for a user. Only the data are replaced: DATASET is `black` or `digits`.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bench.__main__ as command
from bench import plugin, speed
from bench.measure import machine
from bench.measure.workers import Bench
from bench.plans.speed import Terms
from bench.records.blocks import Witness
from lenet5 import data

ROOT = Path(__file__).parents[2]
LOOP = "train_step[loop,b128]"
SEEDS = 10
CONFTEST = """
pytest_plugins = ["bench.plugin"]

def pytest_addoption(parser):
    parser.addoption("--threads", type=int)
    parser.addoption("--device")
    for name in ("--mnist-dir", "--recipe", "--seed", "--engine"):
        parser.addoption(name, default=None)
"""


def main(argv: Sequence[str]) -> int:
    """Runs a session and returns its exit status."""
    kind, project, ledger, baseline, candidate, dataset = argv
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    replaced_data(dataset)
    if kind == "reference":
        terms = ("--environment", baseline, "--seeds", str(SEEDS), "--processes", "2")
        return command.main(["reference", "--out", ledger, *terms])
    folder = _prepared(Path(project))
    terms = ("--baseline", baseline, "--candidate", candidate, "--results", ledger)
    probe = "peak_memory" if dataset == "black" else "import"
    more = {
        "speed": ("--workloads", f"{LOOP} {probe}", "--budget", "3600"),
        "accuracy": ("--seeds", str(SEEDS), "--accuracy-margin", "99", "--processes", "2"),
    }
    quiet = ("-p", "no:cacheprovider", "--html", "report.html", "-c", str(folder.parent / "x.ini"))
    return int(pytest.main([str(folder), *quiet, *terms, *more[kind]]))


def _prepared(project: Path) -> Path:
    """Returns the folder of a small pytest project with the modules of verdicts."""
    folder = project / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (project / "conftest.py").write_text(CONFTEST)
    (project / "x.ini").write_text("[pytest]\n")
    for name in ("test_accuracy.py", "test_speed.py"):
        shutil.copy(ROOT / "bench" / name, folder)
    os.chdir(project)
    plugin.FOLDER = folder
    make_quick()
    return folder


def make_quick() -> None:
    """Limits blocks to four pairs, and takes the machine for quiet, so that none is repeated."""
    real = speed.bench_of

    def short(terms: Terms, private: Path) -> Bench:
        return real(replace(terms, pair_seconds=0.0), private)

    speed.bench_of = short  # type: ignore[assignment]
    machine.witness = lambda *_: Witness(1e-4, load=0.0)


def replaced_data(name: str) -> data.Dataset:
    """Replaces MNIST by `black` images or by `digits`, and returns them."""
    images = _black() if name == "black" else _digits()

    def load(*_: object, **__: object) -> data.Dataset:
        return images

    data.load_dataset = load
    return images


def _black() -> data.Dataset:
    black = data.Subset(np.zeros((2, 28, 28, 1), np.uint8), np.zeros(2, np.uint8))
    return data.Dataset("mnist", black, black, black)


def _digits() -> data.Dataset:
    digits = data.load_dataset("digits", data_dir=Path("/nonexistent"), mnist_dir=None)
    return replace(digits, name="mnist")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
