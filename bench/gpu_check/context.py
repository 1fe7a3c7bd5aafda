"""What the lines of the check share: the environment, its workers, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import speed
from bench.environments.builds import Built
from bench.measure import capacity
from bench.measure.numerics import Task, compute_all, prepare_numerics_folder
from bench.measure.processes import Interpreter, Worker, WorkerError, interpreter_of
from bench.measure.worker_files import prepare_folder, prepare_training_folder
from bench.records import ledger
from bench.records.numerics import Computed, Mode, Quantities, make_problem
from bench.records.trainings import Trained, check_trained
from bench.verdicts.numerics import solve
from lenet5.data import Dataset
from lenet5.devices import Device
from lenet5.errors import InputError
from lenet5.printable import short_line
from lenet5.recipe import Recipe

_IMAGES = 40_960  # 20 steps of batch 2048
_EARLIER_SECONDS = 0.5  # a worker's own time out says more than the end of the line's budget
_REFUSED = "InputError: --device "  # how a worker refuses a device

Measure = Callable[..., Any]


class NoGpuError(InputError):
    """TensorFlow cannot compute on the GPU."""


@dataclass
class Context:
    """Environment, workers and time of the lines; `close` ends its processes.

    Attributes:
        built: the checked environment.
        device: its device.
        dataset: MNIST.
        folder: private folder, prepared by `prepare`.
        modes: modes of the numerics problem, each with its number of processes.
        training: recipe, seed and engine of the training.
        driver: the GPU as its driver describes it.
        clock: monotonic seconds.
        compare: `bench.speed.measure`.
        deadline: end of the current line on the clock.
    """

    built: Built
    device: Device
    dataset: Dataset
    folder: Path
    modes: tuple[tuple[Mode, int], ...]
    training: tuple[Recipe, int, str]
    driver: Mapping[str, Any]
    clock: Callable[[], float] = time.monotonic
    compare: Measure = speed.measure
    deadline: float = 0.0
    _truth: Quantities = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _workers: dict[str, tuple[Worker, ExitStack]] = field(default_factory=dict)
    _said: dict[str, dict[str, Any]] = field(default_factory=dict)
    _training: Worker | None = None
    _computing: Generator[Computed | WorkerError, None, None] | None = None
    _computed: list[Computed | WorkerError] = field(default_factory=list)

    def prepare(self) -> None:
        """Writes images, code and the numerics problem for all workers, and solves the problem.

        Raises:
            InputError: a file cannot be written.
        """
        training = self.dataset.training
        prepare_training_folder(self.folder, self.dataset)
        prepare_numerics_folder(self.folder, training)
        prepare_folder(self.folder, training)
        np.save(self.folder / "images.npy", training.images[:_IMAGES])
        np.save(self.folder / "labels.npy", training.labels[:_IMAGES])
        self._truth = solve(make_problem(training))

    @property
    def truth(self) -> Quantities:
        """True values of the numerics problem."""
        return self._truth

    @property
    def interpreter(self) -> Interpreter:
        """Interpreter of the environment's workers."""
        return interpreter_of(self.built, self.device)

    def left(self) -> float:
        """Returns the seconds that the current line may wait for an answer."""
        return max(self.deadline - _EARLIER_SECONDS - self.clock(), 0.05)

    def worker(self, name: str) -> Worker:
        """Returns the worker of this name, started on the device unless it already runs.

        Raises:
            NoGpuError: TensorFlow cannot compute on the device.
            WorkerError: the worker does not start.
        """
        if name not in self._workers:
            stack = self._stack.enter_context(ExitStack())
            worker = stack.enter_context(Worker(self.interpreter, self.folder))
            self._workers[name] = worker, stack
            try:
                device = self.interpreter.start_device
                answer = worker.ask(self.left(), "start", cores=[], threads=1, device=device)
            except WorkerError as error:
                self.end(name)
                if error.reason.startswith(_REFUSED):
                    told = error.reason[len(_REFUSED) :].partition(": ")[2]
                    raise NoGpuError(f"--device {self.device.name}: {told}") from None
                raise
            self._said[name] = answer["versions"]
        return self._workers[name][0]

    def said(self, name: str) -> dict[str, Any]:
        """Returns the versions that a started worker reported."""
        return self._said[name]

    def ask(self, name: str, do: str, **arguments: Any) -> dict[str, Any]:
        """Sends a command to a worker, and returns its answer; a failed worker ends.

        Raises:
            WorkerError: as `bench.measure.processes.Worker.ask`.
        """
        worker = self.worker(name)
        try:
            return worker.ask(self.left(), do, **arguments)
        except BaseException:
            self.end(name)
            raise

    def end(self, name: str) -> None:
        """Ends a worker, so that its memory on the GPU is free."""
        if name in self._workers:
            self._workers.pop(name)[1].close()

    def begin_training(self) -> Worker:
        """Returns a process that trains, started unless it already runs."""
        if self._training is None:
            worker = self._training = self._stack.enter_context(
                Worker(self.interpreter, self.folder)
            )
            device = self.interpreter.start_device
            worker.send("start", cores=[], threads=1, device=device)
            recipe, seed, engine = self.training
            worker.send("train", recipe=asdict(recipe), seed=seed, engine=engine)
        return self._training

    def trained(self) -> Trained:
        """Returns the result of the training.

        Raises:
            WorkerError: the process failed.
        """
        worker = self.begin_training()
        worker.receive(self.left())  # the answer to `start`
        answer = worker.receive(self.left())
        worker.close()
        try:
            trained = ledger.made(Trained, answer)
            check_trained(trained)
        except ValueError as error:
            raise WorkerError(f"sent an invalid answer: {short_line(error)}") from None
        return trained

    def computed(self, mode: Mode) -> list[Computed]:
        """Returns the numerics problem as computed in a mode, by each of its processes.

        All modes are computed side by side, and beside the training, as far as cores and memory
        allow: nothing of this is timed.

        Raises:
            WorkerError: a process failed.
        """
        tasks: list[Task] = [
            (self.interpreter, each) for each, count in self.modes for _ in range(count)
        ]
        if self._computing is None:
            at_once = capacity.processes(None)
            if at_once > len(tasks):
                self.begin_training()
            self._computing = compute_all(tasks, self.folder, at_once=at_once, limit=self.left)
        places = [place for place, (_, each) in enumerate(tasks) if each == mode]
        while len(self._computed) <= max(places):
            try:
                self._computed.append(next(self._computing))
            except StopIteration:
                raise WorkerError("was not computed: an earlier mode took too long") from None
        found = []
        for place in places:
            one = self._computed[place]
            if isinstance(one, WorkerError):
                raise one
            found.append(one)
        return found

    def close(self) -> None:
        """Ends all processes."""
        if self._computing is not None:
            self._computing.close()
        self._stack.close()
