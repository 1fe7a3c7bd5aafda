"""A complete training run, from recipe, seed and data to run directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet5 import checkpoint, run_directory
from lenet5.checkpoint import Interrupted
from lenet5.data import Dataset
from lenet5.devices import CPU, Device
from lenet5.environment import describe_environment
from lenet5.errors import InputError
from lenet5.evaluation import Evaluation, evaluate
from lenet5.history import Checkpoint, Epoch, History, Progress, TrainingInterrupted
from lenet5.plots import save_plots
from lenet5.run_directory import Run
from lenet5.runtime import keras_version, save_model, threads_in_use
from lenet5.training import train

if TYPE_CHECKING:
    import tensorflow as tf


def train_run(
    run: Run,
    dataset: Dataset,
    directory: Path,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_evaluation: Callable[[Evaluation], None] = lambda _: None,
    on_problem: Callable[[str], None] = lambda _: None,
    place: Path | None = None,
    resume: Interrupted | None = None,
    device: Device = CPU,
) -> tuple[Evaluation, History]:
    """Trains, scores the test images once, and fills a directory made by `create`.

    The new run replaces an older run only when it is complete. A checkpoint is written after every
    epoch. An interrupted run is saved without test scores; next to an older run, in the subfolder
    `unfinished`.

    Args:
        run: run to train.
        dataset: data to train and score on.
        directory: directory made by `run_directory.create`.
        on_progress: called several times per second during training.
        on_epoch: called after each epoch.
        on_evaluation: called with the test scores before any file is written.
        on_problem: called with a line if the first of several checkpoints cannot be written.
        place: folder to write to until the run is complete; None: of `place_to_write`.
        resume: content of the run's checkpoint file, to continue from.
        device: device that TensorFlow was started for.

    Returns:
        The evaluation on the test images and the history.

    Raises:
        InputError: a file could not be written, or the checkpoint is of another environment.
        DivergenceError: the loss became NaN or infinite.
        TrainingInterrupted: Ctrl-C; the results of the finished epochs are saved.
    """
    place = place or run_directory.place_to_write(directory)
    environment = describe_environment(threads_in_use(), keras_version(), device)
    if resume is not None:
        checkpoint.check_environment(resume, environment)

    problems: list[Exception] = []

    def keep(state: Checkpoint) -> None:
        try:
            place.mkdir(parents=True, exist_ok=True)
            path = place / run_directory.CHECKPOINT
            checkpoint.write(path, Interrupted(run, environment, state))
            problems.clear()
        except (InputError, OSError) as error:  # training goes on: the disk may have room later
            if not problems:
                on_problem(f"no checkpoint of epoch {len(state.epochs)}: {error}")
            problems.append(error)

    try:
        model, history = train(
            run.recipe,
            dataset.training,
            dataset.validation,
            run.seed,
            engine=run.engine,
            on_progress=on_progress,
            on_epoch=on_epoch,
            on_checkpoint=keep,
            resume=None if resume is None else resume.checkpoint,
        )
        try:
            evaluation = evaluate(model, dataset.test)
            on_evaluation(evaluation)  # before writing: a full disk must not lose the result
            _write_training(run, place, environment, model, history)
            _write_scores(run, place, dataset, evaluation, history)
        except KeyboardInterrupt:
            raise TrainingInterrupted(model, replace(history, interrupted=True)) from None
    except TrainingInterrupted as interruption:
        _write_training(run, place, environment, interruption.model, interruption.history)
        interruption.directory = place
        raise
    run_directory.publish(place, directory)
    return evaluation, history


def _write_training(
    run: Run,
    place: Path,
    environment: Mapping[str, Any],
    model: tf.keras.Model,
    history: History,
) -> None:
    run_directory.clear(place)
    run_directory.write_json(place / run_directory.RECIPE, run_directory.run_content(run))
    run_directory.write_json(place / run_directory.ENVIRONMENT, environment)
    run_directory.write_json(place / run_directory.HISTORY, asdict(history))
    if history.best_epoch:  # untrained weights are no result
        with run_directory.written_whole(place / run_directory.MODEL) as partial:
            save_model(model, partial)


def _write_scores(
    run: Run, place: Path, dataset: Dataset, evaluation: Evaluation, history: History
) -> None:
    metrics = run_directory.metrics_content(evaluation, history, run.engine)
    with run_directory.writing(place / run_directory.PLOTS):
        save_plots(place / run_directory.PLOTS, history, evaluation, dataset.test.images)
    run_directory.write_json(place / run_directory.METRICS, metrics)
