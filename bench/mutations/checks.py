"""Would the suite notice? The ordinary tests on a broken project, or on a broken TensorFlow.

The tests that run there know nothing of what is broken. The accuracy gate takes longest and sees
least: it runs where no other test has failed, or by itself, for a list of what it notices.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LONGEST_SECONDS = 1800.0
_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)  # ids may have blanks

_OF_FIT = "tests/test_fit_"
_TESTS_OF_FIT = tuple(  # quickest first
    f"{_OF_FIT}{name}.py"
    for name in (
        *("forward", "weights", "gradients", "dropout", "metrics", "saving"),
        *("loss", "early_stopping", "order", "engine", "steps"),
    )
)
# Those that hold what is computed; those of commands, files and reports are left out.
_OTHER_TESTS = (
    *("tests/test_architecture.py", "tests/test_recipe.py", "tests/test_data.py"),
    *("tests/test_gradients.py", "tests/test_regularisation.py", "tests/test_training.py"),
    *("tests/test_augmentation.py", "tests/test_early_stopping.py", "tests/test_evaluation.py"),
    *("tests/test_run.py", "tests/test_saved_models.py", "bench/test_numerics.py"),
)
# What runs on what is broken, without the gate.
ORDINARY_CHECKS = (*_TESTS_OF_FIT, *_OTHER_TESTS)
GATE = "tests/test_accuracy_gate.py"
HEADER = ("broken", "of", "noticed by", "first test that failed", "failed, of at most 3")


@dataclass(frozen=True)
class Noticed:
    """What became of something broken.

    Attributes:
        name: what was broken.
        kind: of what it is a part.
        tests: ids of those that failed, the first few.
    """

    name: str
    kind: str
    tests: tuple[str, ...]

    @property
    def by(self) -> str:
        """Which sort of test was the first to fail."""
        if not self.tests:
            return "nothing"
        if self.tests[0].startswith(_OF_FIT):
            return "a test of fit"
        return "the gate alone" if self.tests[0].startswith(GATE) else "another test"


def notice(
    folder: Path, *, breakage: str | None = None, gate_only: bool = False, mnist_dir: Path | None
) -> tuple[tuple[str, ...], str]:
    """Finds out which tests fail in a copy of the project: the ordinary ones, else the gate.

    Args:
        folder: of the copy.
        breakage: name of one of Keras or TensorFlow, under which the tests run.
        gate_only: whether the gate runs by itself at once.
        mnist_dir: folder with MNIST's four files, where it must be prepared.

    Returns:
        As `run_checks`.

    Raises:
        RuntimeError: pytest itself did not run to an end.
    """
    failed: tuple[str, ...] = ()
    if not gate_only:
        failed, output = run_checks(folder, ORDINARY_CHECKS, breakage=breakage, mnist_dir=mnist_dir)
    if not failed:
        failed, output = run_checks(folder, [GATE], breakage=breakage, mnist_dir=mnist_dir)
    return failed, output


def run_checks(
    folder: Path,
    checks: Sequence[str],
    *,
    breakage: str | None = None,
    seed: int = 0,
    mnist_dir: Path | None = None,
) -> tuple[tuple[str, ...], str]:
    """Runs tests in a copy of the project, in a process of their own.

    Args:
        folder: of the copy.
        checks: test modules, in their order.
        breakage: name of one of Keras or TensorFlow, under which the tests run.
        seed: that the accuracy gate trains.
        mnist_dir: folder with MNIST's four files, where it must be prepared.

    Returns:
        Ids of those that failed, three at most, and the end of what pytest printed; no id where
        nothing failed.

    Raises:
        RuntimeError: pytest itself did not run to an end.
    """
    broken = ["pytest"] if breakage is None else ["bench.mutations.broken_pytest", breakage]
    command = [sys.executable, "-m", *broken, *checks, "-q", "-o", "addopts=", "--maxfail=3"]
    command += ["-p", "no:cacheprovider", "-p", "no:html", "--one-process", f"--seed={seed}"]
    command += [f"--mnist-dir={mnist_dir}"] if mnist_dir else []
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={
                **{name: v for name, v in os.environ.items() if not name.startswith("PYTEST_")},
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONPATH": str(folder),
            },
            capture_output=True,
            text=True,
            timeout=_LONGEST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"the tests did not end in {_LONGEST_SECONDS:g} s") from None
    output = done.stdout[-3000:] + done.stderr[-1000:]
    failed = tuple(_FAILED.findall(done.stdout))
    # 2: a test module could not even be imported, which is listed as well.
    if done.returncode not in (0, 1) and not (done.returncode == 2 and failed):
        raise RuntimeError(f"pytest ended with status {done.returncode}:\n{output}")
    if done.returncode == 1 and not failed:
        raise RuntimeError(f"no test ran, or none that failed has a name:\n{output}")
    return failed, output


def rows(found: Sequence[Noticed]) -> list[tuple[str, ...]]:
    """Cells under `HEADER`: the test that noticed each breakage first."""
    return [
        (
            *(noticed.name, noticed.kind, noticed.by),
            noticed.tests[0].rpartition("/")[2] if noticed.tests else "",
            str(len(noticed.tests)),
        )
        for noticed in found
    ]
