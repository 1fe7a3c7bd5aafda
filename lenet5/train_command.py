"""The command `lenet5 train`: new runs and interrupted ones."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from lenet5 import checkpoint, data, run_directory, runtime
from lenet5.checkpoint import Interrupted
from lenet5.devices import CPU, Device, describe_device, read_device
from lenet5.distributions import check_distributions
from lenet5.environment import device_text
from lenet5.errors import InputError
from lenet5.history import TrainingInterrupted
from lenet5.recipe import DEFAULT_ENGINE
from lenet5.recipes import find_recipe
from lenet5.run_directory import Run
from lenet5.terminal import ProgressBar, print_accuracy, tell


def train(options: argparse.Namespace) -> int:
    """Trains a new run, or continues an interrupted one; returns the exit status."""
    if options.resume is not None:
        return _resume(options)
    device = _device(options, CPU.name)
    overrides = {} if options.epochs is None else {"epochs": options.epochs}
    run = Run(
        find_recipe(options.recipe or "fast").with_overrides(overrides),
        overrides,
        options.seed or 0,
        options.dataset or "mnist",
        options.engine or DEFAULT_ENGINE,
    )
    engine = "" if run.engine == DEFAULT_ENGINE else f"-{run.engine}"
    name = f"{run.dataset}-{run.recipe.name}{engine}-seed{run.seed}"
    directory = options.out or Path("runs") / name
    runtime.check_settings()
    check_distributions()
    check_mnist_dir(run.dataset, options)
    with run_directory.reserved(directory, force=options.force):
        place = run_directory.place_to_write(directory)
        interrupted = Interrupted(run, {"threads": options.threads or 1, "device": device.name})
        run_directory.remove_partial_files(place)
        if place != directory:
            run_directory.clear(place)
        with _resumable(place / run_directory.CHECKPOINT, interrupted):
            return _train_into(directory, place, interrupted, device, options)


def _resume(options: argparse.Namespace) -> int:
    """Continues an interrupted run; its checkpoint stays until the run is complete."""
    fixed = ("recipe", "seed", "engine", "epochs", "dataset", "out", "force")
    for name in fixed:
        if getattr(options, name) is not (False if name == "force" else None):
            raise InputError(f"--resume continues the run as it was begun: leave out --{name}")
    directory = checkpoint.run_directory_of(options.resume)
    if not directory.is_dir():
        raise InputError(f"{directory}: no such run directory")
    if checkpoint.find(directory) is None:
        complete = (directory / run_directory.METRICS).is_file()
        state = "the run is complete" if complete else "contains no interrupted run"
        raise InputError(f"{directory}: {state}, there is nothing to resume")
    runtime.check_settings()
    check_distributions()
    with run_directory.reserved(directory, force=True):
        path = checkpoint.find(directory)
        if path is None:
            raise InputError(f"{directory}: another process has completed the run")
        interrupted = checkpoint.read(path)
        threads = options.threads or interrupted.threads
        device = _device(options, interrupted.device)
        checkpoint.check_environment(interrupted, {"threads": threads, "device": device.name})
        check_mnist_dir(interrupted.run.dataset, options)
        run_directory.remove_partial_files(path.parent)
        try:
            return _train_into(directory, path.parent, interrupted, device, options)
        except TrainingInterrupted:
            raise
        except KeyboardInterrupt as interruption:  # before the first new epoch
            raise ResumedRunInterrupted(directory) from interruption


def _device(options: argparse.Namespace, otherwise: str) -> Device:
    name = otherwise if options.device is None else options.device
    return read_device(name, options.environment)


@contextlib.contextmanager
def _resumable(path: Path, interrupted: Interrupted) -> Iterator[None]:
    """Writes a new run's first checkpoint; removes it if the run ends without a result."""
    checkpoint.write(path, interrupted)
    try:
        yield
    except TrainingInterrupted:
        raise
    except BaseException:
        checkpoint.discard(path, unless_epochs=True)
        raise


def _train_into(
    directory: Path,
    place: Path,
    interrupted: Interrupted,
    device: Device,
    options: argparse.Namespace,
) -> int:
    run, threads = interrupted.run, options.threads or interrupted.threads
    runtime.start_tensorflow(threads, device)
    from lenet5.history import DivergenceError
    from lenet5.run import train_run

    dataset = load_data(run.dataset, options)
    done = 0 if interrupted.checkpoint is None else len(interrupted.checkpoint.epochs)
    print(
        f"recipe {run.recipe.name}, engine {run.engine}, seed {run.seed}, "
        f"{len(dataset.training.labels):,} training images of {run.dataset}, "
        f"threads {threads}, {device_text(describe_device(device))}"
        + (f"; continues after epoch {done}" if done else ""),
        flush=True,
    )
    bar = ProgressBar(run.recipe.epochs)
    try:
        _, history = train_run(
            run,
            dataset,
            directory,
            on_progress=bar.update,
            on_epoch=bar.write_epoch,
            on_evaluation=lambda evaluation: print_accuracy(evaluation, bar),
            on_problem=lambda line: tell(f"note: {line}"),
            place=place,
            resume=interrupted,
            device=device,
        )
    except DivergenceError as error:
        checkpoint.discard(place / run_directory.CHECKPOINT, unless_epochs=False)
        tell(f"training diverged: {error}")
        return 1
    finally:
        bar.close()
    early = ", stopped early" if history.stopped_early else ""
    print(
        f"best epoch {history.best_epoch} of {len(history.epochs)}{early}, "
        f"{history.train_seconds:.1f} s; run directory {directory}"
    )
    return 0


class ResumedRunInterrupted(KeyboardInterrupt):
    """Ctrl-C in a resumed run without new results.

    Attributes:
        directory: run directory.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory


def load_data(name: str, options: argparse.Namespace) -> data.Dataset:
    """Loads a dataset from the folders in the options."""
    return data.load_dataset(
        name,
        data_dir=options.data_dir,
        mnist_dir=options.mnist_dir,
        cache_dir=options.cache_dir,
        report=tell,
    )


def check_mnist_dir(dataset: str, options: argparse.Namespace) -> None:
    """Checks MNIST's files before anything slow; raises InputError if one is missing or wrong."""
    if dataset == "mnist" and options.mnist_dir is not None:
        data.check_mnist_dir(options.mnist_dir)
