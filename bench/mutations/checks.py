"""Runs the ordinary tests on a broken project or a broken TensorFlow.

The tests do not know about the breakage. The accuracy gate is slowest and least sensitive. It runs
after the other tests if none failed, or alone, to list the breakages that it notices.
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
# Tests of computations only; tests of commands, files and reports are omitted.
_OTHER_TESTS = (
    *("tests/test_architecture.py", "tests/test_recipe.py", "tests/test_data.py"),
    *("tests/test_gradients.py", "tests/test_regularisation.py", "tests/test_training.py"),
    *("tests/test_augmentation.py", "tests/test_early_stopping.py", "tests/test_evaluation.py"),
    *("tests/test_run.py", "tests/test_saved_models.py", "bench/test_numerics.py"),
)
# All checks of broken code except the gate.
ORDINARY_CHECKS = (*_TESTS_OF_FIT, *_OTHER_TESTS)
GATE = "tests/test_accuracy_gate.py"
HEADER = ("breakage", "part", "noticed by", "first failed test", "failed tests (at most 3)")


@dataclass(frozen=True)
class Noticed:
    """Result of the tests for one breakage or mutation.

    Attributes:
        name: name of the breakage or mutation.
        kind: kind of the broken part.
        tests: ids of the first failed tests.
    """

    name: str
    kind: str
    tests: tuple[str, ...]

    @property
    def by(self) -> str:
        """Category of the first test that failed."""
        if not self.tests:
            return "nothing"
        if self.tests[0].startswith(_OF_FIT):
            return "a test of fit"
        return "the gate alone" if self.tests[0].startswith(GATE) else "another test"


def notice(
    folder: Path, *, breakage: str | None = None, gate_only: bool = False, mnist_dir: Path | None
) -> tuple[tuple[str, ...], str]:
    """Runs the ordinary tests in a copy of the project, and the gate if none of them fails.

    Args:
        folder: folder of the copy.
        breakage: name of a breakage of Keras or TensorFlow for the tests.
        gate_only: whether only the gate runs.
        mnist_dir: folder with MNIST's four files, if MNIST is not prepared yet.

    Returns:
        The result of `run_checks`.

    Raises:
        RuntimeError: pytest itself did not finish.
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
    """Runs tests in a copy of the project, in a separate process.

    Args:
        folder: folder of the copy.
        checks: test modules, in order.
        breakage: name of a breakage of Keras or TensorFlow for the tests.
        seed: seed of the accuracy gate's training.
        mnist_dir: folder with MNIST's four files, if MNIST is not prepared yet.

    Returns:
        Ids of the failed tests, at most three (none if all pass), and the end of pytest's output.

    Raises:
        RuntimeError: pytest itself did not finish.
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
        raise RuntimeError(f"the tests did not finish within {_LONGEST_SECONDS:g} s") from None
    output = done.stdout[-3000:] + done.stderr[-1000:]
    failed = tuple(_FAILED.findall(done.stdout))
    # 2: a test module could not be imported; pytest lists it as well.
    if done.returncode not in (0, 1) and not (done.returncode == 2 and failed):
        raise RuntimeError(f"pytest ended with status {done.returncode}:\n{output}")
    if done.returncode == 1 and not failed:
        raise RuntimeError(f"no test ran, or the failed tests have no names:\n{output}")
    return failed, output


def rows(found: Sequence[Noticed]) -> list[tuple[str, ...]]:
    """Returns the cells under `HEADER`, with the first failed test for each breakage."""
    return [
        (
            *(noticed.name, noticed.kind, noticed.by),
            noticed.tests[0].rpartition("/")[2] if noticed.tests else "",
            str(len(noticed.tests)),
        )
        for noticed in found
    ]
