"""A whole training run: recipe, seed and data in, run directory out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from lenet5 import run_directory
from lenet5.data import Dataset
from lenet5.evaluation import Evaluation, evaluate
from lenet5.plots import save_plots
from lenet5.run_directory import Run
from lenet5.runtime import keras_version, save_model, threads_in_use
from lenet5.training import Epoch, History, Progress, TrainingInterrupted, train


def train_run(
    run: Run,
    dataset: Dataset,
    directory: Path,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_evaluation: Callable[[Evaluation], None] = lambda _: None,
) -> tuple[Evaluation, History]:
    """Trains, scores the test images once, and fills a directory that `create` has made.

    An older run there is replaced when training has ended, not before. An interrupted run is
    kept without test scores; where that would replace an older run, in `<directory>.interrupted`.

    Args:
        run: what to train.
        dataset: what to train on.
        directory: made by `run_directory.create`.
        on_progress: called several times a second while training.
        on_epoch: called after each epoch.
        on_evaluation: called with the test scores before anything depends on the disk's room.

    Returns:
        The evaluation on the test images and the history.

    Raises:
        InputError: a file could not be written.
        DivergenceError: the loss became NaN or infinite.
        TrainingInterrupted: Ctrl-C; what was finished is written.
    """
    try:
        model, history = train(
            run.recipe,
            dataset.training,
            dataset.validation,
            run.seed,
            on_progress=on_progress,
            on_epoch=on_epoch,
        )
    except TrainingInterrupted as interruption:
        interruption.directory = _keep_interrupted(run, directory, interruption)
        raise
    try:
        run_directory.discard(directory)
        _write_training(run, directory, history)
        with run_directory.written_whole(directory / run_directory.MODEL) as partial:
            save_model(model, partial)
    finally:  # a full disk does not cost the result
        evaluation = evaluate(model, dataset.test)
        on_evaluation(evaluation)
    run_directory.write_json(
        directory / run_directory.METRICS, run_directory.metrics_content(evaluation, history)
    )
    save_plots(directory / run_directory.PLOTS, history, evaluation, dataset.test.images)
    return evaluation, history


def _keep_interrupted(run: Run, directory: Path, interruption: TrainingInterrupted) -> Path:
    if (directory / run_directory.RECIPE).exists():
        directory = directory.with_name(f"{directory.name}.interrupted")
        run_directory.create(directory, force=True)
        run_directory.discard(directory)
    _write_training(run, directory, interruption.history)
    if interruption.history.best_epoch:
        with run_directory.written_whole(directory / run_directory.MODEL) as partial:
            save_model(interruption.model, partial)
    return directory


def _write_training(run: Run, directory: Path, history: History) -> None:
    environment = run_directory.describe_environment(threads_in_use(), keras_version())
    run_directory.write_json(directory / run_directory.RECIPE, run_directory.run_content(run))
    run_directory.write_json(directory / run_directory.ENVIRONMENT, environment)
    run_directory.write_json(directory / run_directory.HISTORY, asdict(history))
