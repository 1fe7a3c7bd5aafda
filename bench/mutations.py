"""Would the suite notice? Broken variants of the project, and its ordinary tests on each.

A mutation is one edit of one file of `lenet5`, in a copy of the project; the tests that run there
know nothing of it. A mutation whose text is not found exactly once is an error: it would break
nothing. What only a trained model shows is left to the accuracy gate, which runs with the rest.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_COPIED = ("lenet5", "bench", "tests", "conftest.py", "pyproject.toml", "README.md", "tox.ini")
_LONGEST_SECONDS = 900.0
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)

# Tests that hold what is computed; those of commands, files and reports are left out.
CHECKS = (
    *("tests/test_architecture.py", "tests/test_recipe.py", "tests/test_data.py"),
    *("tests/test_gradients.py", "tests/test_regularisation.py", "tests/test_training.py"),
    *("tests/test_augmentation.py", "tests/test_early_stopping.py", "tests/test_evaluation.py"),
    *("tests/test_run.py", "bench/test_numerics.py", "tests/test_accuracy_gate.py"),
)

# Those of them that `--seed` changes; the others have seeds of their own.
SEEDED_CHECKS = ("tests/test_accuracy_gate.py",)


@dataclass(frozen=True)
class Mutation:
    """One edit that breaks the project.

    Attributes:
        name: what is broken.
        file: of `lenet5`.
        old: text that stands there exactly once.
        new: what takes its place.
    """

    name: str
    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Caught:
    """What became of a mutation.

    Attributes:
        mutation: which.
        checks: ids of the tests that failed, the first few.
    """

    mutation: Mutation
    checks: tuple[str, ...]


MUTATIONS = (
    Mutation("learning rate times 10", "steps.py", "lr=rate,", "lr=10 * rate,"),
    Mutation("learning rate divided by 30", "steps.py", "lr=rate,", "lr=rate / 30,"),
    Mutation(
        "no shuffling",
        "steps.py",
        "np.random.RandomState([seed, epoch]).permutation(images)",
        "np.arange(images)",
    ),
    Mutation("pixels not normalised", "data.py", "np.float32) / np.float32(255)", "np.float32)"),
    Mutation(
        "2 % wrong labels",
        "training.py",
        "labels = normalise(training.images), training.labels.astype(np.int32)",
        "labels = normalise(training.images), np.where(np.arange(len(training.labels)) % 50, "
        "training.labels, (training.labels + 1) % 10).astype(np.int32)",
    ),
    Mutation(
        "evaluation on training images",
        "run.py",
        "evaluate(model, dataset.test)",
        "evaluate(model, dataset.training)",
    ),
    Mutation(
        "relu for tanh",
        "model.py",
        'kernel_size=5,\n            activation="tanh"',
        'kernel_size=5,\n            activation="relu"',
    ),
    Mutation(
        "max for average pooling",
        "model.py",
        "layers.AveragePooling2D(pool_size=2),\n            convolution(16",
        "layers.MaxPooling2D(pool_size=2),\n            convolution(16",
    ),
    Mutation(
        "a bias missing",
        "model.py",
        "            kernel_size=5,\n",
        "            kernel_size=5,\n            use_bias=False,\n",
    ),
    Mutation(
        "L2 on only some layers",
        "model.py",
        "            kernel_initializer=kernel(stream),\n"
        "            kernel_regularizer=regularizer(),\n        )\n\n    def dense",
        "            kernel_initializer=kernel(stream),\n        )\n\n    def dense",
    ),
    Mutation(
        "dropout active in prediction",
        "evaluation.py",
        "model.predict(images, batch_size=batch_size, verbose=0)",
        "model(images, training=True).numpy()",
    ),
    Mutation("dropout rate wrong", "steps.py", "rate=layer.rate,", "rate=0.8 * layer.rate,"),
    Mutation(
        "rows and columns swapped in test",
        "evaluation.py",
        "images = normalise(subset.images)",
        "images = normalise(subset.images).transpose(0, 2, 1, 3)",
    ),
    Mutation(
        "the last partial batch dropped in training",
        "training.py",
        "steps_per_epoch = math.ceil(len(labels) / recipe.batch_size)",
        "steps_per_epoch = max(1, len(labels) // recipe.batch_size)",
    ),
    Mutation(
        "the last partial batch dropped in evaluation",
        "evaluation.py",
        "images = normalise(subset.images)\n",
        "whole = len(subset.labels) // batch_size * batch_size or len(subset.labels)\n"
        "    subset = type(subset)(subset.images[:whole], subset.labels[:whole])\n"
        "    images = normalise(subset.images)\n",
    ),
    Mutation(
        "early stopping watching the training loss",
        "training.py",
        "if loss < best_loss:\n                best_loss, best_weights, best_epoch = loss,",
        "if training_loss < best_loss:\n"
        "                best_loss, best_weights, best_epoch = training_loss,",
    ),
    Mutation("early stopping on the test set", "run.py", "dataset.validation,", "dataset.test,"),
    Mutation(
        "weights of the last epoch",
        "training.py",
        "            model.set_weights(best_weights)",
        "            pass",
    ),
    Mutation("Adam epsilon 1e-3", "steps.py", "epsilon=recipe.adam_epsilon", "epsilon=1e-3"),
    Mutation(
        "float16 rounding of weights",
        "training.py",
        "model.set_weights(best_weights)",
        "model.set_weights([np.asarray(w, np.float16) for w in best_weights])",
    ),
    Mutation(
        "gradients of one layer zeroed",
        "steps.py",
        "gradients = tape.gradient(loss, weights)",
        "gradients = tape.gradient(loss, weights)\n        gradients[2] *= 0.0",
    ),
)


def find_mutation(name: str) -> Mutation:
    """The mutation of that name."""
    return next(mutation for mutation in MUTATIONS if mutation.name == name)


def copy_project(root: Path, folder: Path) -> None:
    """Copies what the ordinary tests need."""
    for name in _COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)


def apply(mutation: Mutation, folder: Path) -> None:
    """Breaks a copy of the project.

    Raises:
        ValueError: the text to replace is not there exactly once.
    """
    path = folder / "lenet5" / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(
            f"{mutation.name}: {mutation.file} has {text.count(mutation.old)} times what the "
            "mutation replaces: it went stale"
        )
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


def run_checks(
    folder: Path, checks: Sequence[str] = CHECKS, *, seed: int = 0, mnist_dir: str | None = None
) -> tuple[tuple[str, ...], str]:
    """Runs the ordinary tests in a copy of the project.

    Args:
        folder: of the copy.
        checks: test modules.
        seed: that the accuracy gate trains.
        mnist_dir: folder with MNIST's four files, where it must be prepared.

    Returns:
        Ids of those that failed, three at most, and the end of what pytest printed; no id where
        nothing failed.

    Raises:
        RuntimeError: pytest itself did not run to an end.
    """
    command = [sys.executable, "-m", "pytest", *checks, "-q", "-o", "addopts=", "--maxfail=3"]
    command += ["-p", "no:cacheprovider", "-p", "no:html", f"--seed={seed}"]
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
    return failed, output


def table(found: Sequence[Caught]) -> str:
    """Markdown: what each mutation was caught by."""
    lines = ["| mutation | caught by |", "|---|---|"]
    for caught in found:
        ids = ", ".join(f"`{check.rpartition('/')[2]}`" for check in caught.checks)
        lines.append(f"| {caught.mutation.name} | {ids or '**nothing**'} |")
    return "\n".join(lines)
