"""Computes the numerics problem in several environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.measure.processes import Interpreter, Worker, WorkerError, private_folder
from bench.measure.worker_files import NUMERICS_FILES, copy_code
from bench.records.numerics import make_problem
from lenet5.data import Subset
from lenet5.run_directory import writing

_LIMIT_SECONDS = 300.0


def compute_in(
    interpreters: Sequence[Interpreter], training: Subset, threads: int = 1
) -> list[Mapping[str, Any] | WorkerError]:
    """Computes the problem in each environment, one after the other.

    Returns:
        The output of `bench.worker.numerics.compute` in each environment, or its error.

    Raises:
        InputError: the problem cannot be written, for example because the disk is full.
    """
    found: list[Mapping[str, Any] | WorkerError] = []
    with private_folder() as folder:
        with writing(folder):
            copy_code(folder, NUMERICS_FILES)
            make_problem(training).save(folder)
        for interpreter in interpreters:
            has_started = False
            try:
                with Worker(interpreter, folder) as worker:
                    worker.ask(_LIMIT_SECONDS, "start", cores=[], threads=threads)
                    has_started = True
                    found.append(worker.ask(_LIMIT_SECONDS, "numerics")["quantities"])
            except WorkerError as error:
                error.has_started = has_started
                found.append(error)
    return found
