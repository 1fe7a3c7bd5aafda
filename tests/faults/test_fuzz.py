"""Damaged files, words and answers: refused in one line, or read and judged; never a traceback."""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from bench import accuracy, speed
from bench.environments.request import parse_request
from bench.measure import seeds
from bench.measure.processes import Worker, WorkerError
from bench.measure.rounds import _add, _side_samples, one_sample
from bench.records import results, trainings
from bench.records.blocks import Samples
from bench.records.together import together
from bench.report.accuracy import accuracy_table
from bench.report.comparison import table_text
from bench.report.tables import reference_table
from bench.verdicts.accuracy import decide_all, margin_points
from bench.verdicts.outcomes import exit_code
from bench.verdicts.speed import decide
from lenet5 import run_directory
from lenet5.errors import InputError
from lenet5.history import Epoch, History
from lenet5.recipes import find_recipe
from tests import synthetic
from tests.faults.fuzz import LONG, SHORT, damaged, fuzz, share
from tests.records.test_results import comparison
from tests.records.test_torn_ledgers import SETS, TERMS
from tests.records.test_trainings import SOME

COUNTS = [
    pytest.param(SHORT, id="short"),
    pytest.param(LONG, id="long", marks=pytest.mark.faults),
]
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.parametrize("count", COUNTS)


@dataclass(frozen=True)
class Fuzz:
    """Runs a fuzz test in a folder, and records its counts as properties of the test."""

    folder: Path
    count: int
    record: Callable[[str, object], None]

    def __call__(
        self,
        inputs: st.SearchStrategy[Any],
        use: Callable[[Any], None],
        refusals: type[Exception] | tuple[type[Exception], ...] = InputError,
        **options: Any,
    ) -> None:
        counts = fuzz(inputs, use, refusals, self.count, self.folder, **options)
        for name in ("accepted", "refused"):
            self.record(name, counts[name])
        print(f"{counts['accepted']} accepted, {counts['refused']} refused")
        assert sum(counts.values()) >= self.count
        assert share(counts) < 1
        assert share(counts) > 0 or self.count < LONG


@pytest.fixture
def fuzzed(tmp_path: Path, count: int, record_property: Callable[[str, object], None]) -> Fuzz:
    folder = tmp_path / "fuzz"
    folder.mkdir()
    return Fuzz(folder, count, record_property)


def test_ledgers_of_speed(fuzzed: Fuzz) -> None:
    """What is read is also judged and shown."""
    path = fuzzed.folder / "r.jsonl"
    valid = []
    for found in (comparison(), synthetic.simulated(pairs=3, blocks=5)):
        results.write(path, found)
        valid.append(path.read_bytes())

    def use(content: bytes) -> None:
        path.write_bytes(content)
        found = together([results.read(path)])
        exit_code(speed.outcomes_of(found).values())
        assert table_text(found, decide(found))

    for content in valid:
        use(content)
    fuzzed(damaged(valid, is_json=True), use)


def test_ledgers_of_accuracy(fuzzed: Fuzz) -> None:
    path = fuzzed.folder / "r.jsonl"
    trainings.write_trainings(path, SETS, TERMS)
    valid = [path.read_bytes()]
    counted = replace(SOME, seeds=tuple(trainings.Trained(n, 150 + n, 10_000) for n in range(10)))
    trainings.write_trainings(path, [counted, counted], TERMS)
    valid.append(path.read_bytes())

    def use(content: bytes) -> None:
        path.write_bytes(content)
        sets, terms = trainings.read_comparison(path)
        exit_code(accuracy.outcomes_of(sets, terms))
        assert accuracy_table(sets, decide_all(sets, terms))

    for content in valid:
        use(content)
    fuzzed(damaged(valid, is_json=True), use)


def test_references(fuzzed: Fuzz, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fuzzed.folder / "r.jsonl"
    monkeypatch.setattr(trainings, "reference_path", lambda *_: path)
    counted = tuple(trainings.Trained(n, 150 + n, 10_000) for n in range(20))
    trainings.write_trainings(path, [replace(SOME, seeds=counted)])
    valid = [path.read_bytes()]

    def use(content: bytes) -> None:
        path.write_bytes(content)
        reference = trainings.read_reference("fast", "graph")
        assert margin_points(reference.seeds) >= 0
        assert reference_table(reference)

    for content in valid:
        use(content)
    fuzzed(damaged(valid, is_json=True), use)


REQUESTS = (
    "tensorflow-cpu==2.20.0 keras==3.15.1",
    ". TF_ENABLE_ONEDNN_OPTS=0 XLA_FLAGS=--x=1",
    "python:/opt/before/bin/python KERAS_BACKEND=tensorflow",
    "tensorflow>=2.12,<3 override:numpy<2 without:keras-nightly",
)


def test_requests(fuzzed: Fuzz) -> None:
    def text(content: bytes) -> str:
        return content.decode("utf-8", "replace")

    words = [word for request in REQUESTS for word in request.split()]
    joined = st.lists(st.sampled_from(words), max_size=5).map(" ".join)
    mutated = damaged([request.encode() for request in REQUESTS]).map(text)

    def use(request: str) -> None:
        parse_request(request)

    fuzzed(st.one_of(mutated, mutated, joined), use)


def _run_files() -> dict[str, bytes]:
    recipe = run_directory.run_content(
        run_directory.Run(find_recipe("fast"), {"epochs": 2}, 7, "mnist", "keras")
    )
    epochs = tuple(Epoch(n, 0.5, 0.9, 0.4, 0.95, 1e-3, 1.5) for n in (1, 2, 3))
    history = asdict(History(epochs, 2, 4.5))
    return {
        run_directory.RECIPE: json.dumps(recipe).encode(),
        run_directory.HISTORY: json.dumps(history).encode(),
    }


@pytest.mark.parametrize("name", _run_files())
def test_run_directories(fuzzed: Fuzz, name: str) -> None:
    """Their recipes and histories."""
    files = _run_files()
    for other, content in files.items():
        (fuzzed.folder / other).write_bytes(content)

    def use(content: bytes) -> None:
        (fuzzed.folder / name).write_bytes(content)
        run = run_directory.read_run(fuzzed.folder)
        history = run_directory.read_history(fuzzed.folder)
        assert run.recipe.learning_rates(7).shape == (7,)
        assert len(history.epochs) >= history.best_epoch

    use(files[name])
    fuzzed(damaged([files[name]], is_json=True), use)


class _Gone:
    """A process that takes every signal."""

    stdin = None
    pid = 2**22 + 1  # above Linux's largest

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int:  # noqa: ARG002 - as in Popen
        return 3

    def poll(self) -> int:
        return 3


ANSWERS: dict[str, dict[str, Any]] = {
    "start": {"versions": {"tensorflow": "2.21.0", "onednn": True, "build": {"cuda": "no"}}},
    "prepare": {"check": [2.3, 2.2]},
    "first_step": {"value": 0.5, "loss": 2.3},
    "slice": {"value": 0.03, "start": 1.0, "end": 1.03, "cpu_seconds": 0.03, "loss": 2.0},
    "memory": {"value": 300.0, "loss": 2.0},
    "growth": {"value": -0.01, "threads": 12},
    "train": {
        "seed": 3,
        "images": 4,
        "wrong": 1,
        "digits": "7210",
        "train_seconds": 2.5,
        "best_epoch": 1,
        "epochs": 1,
        "curves": [[0.5, 0.9, 0.4, 0.95]],
        "weight_norms": [1.5],
    },
    "numerics": {"quantities": {"bits": "0" * 64, "gradients": [[0.5]] * 10, "loss": [2.3]}},
    "move": {},
}


@pytest.mark.parametrize("do", ANSWERS)
def test_answers_of_workers(fuzzed: Fuzz, do: str) -> None:
    """What is accepted can be stored and read back."""
    valid = json.dumps({**ANSWERS[do], "idle_cpu_seconds": 0.0}).encode() + b"\n"
    path = fuzzed.folder / "r.jsonl"
    base = synthetic.results({synthetic.LOOP: [0.0]})
    kinds = {"slice": synthetic.LOOP, "first_step": synthetic.LOOP, "memory": synthetic.PEAK}
    name = kinds.get(do, synthetic.GROWTH)
    terms = {
        synthetic.LOOP: synthetic.terms(),
        synthetic.PEAK: synthetic.terms(unit="MiB"),
        synthetic.GROWTH: synthetic.growth_terms(),
    }

    def use(content: bytes) -> None:
        answer = _received(do, content)
        if do in ("slice", "first_step", "memory", "growth"):
            side = one_sample(answer)
            if do == "slice":
                sums = dict.fromkeys(("value", "cpu", "idle", "loss"), 0.0)
                _add(sums, answer)
                side = _side_samples([sums])
            block = replace(base.blocks[0], samples={name: Samples(side, side)})
            results.write(path, replace(base, workloads=terms, blocks=(block,)))
            results.read(path)
        if do == "prepare":
            samples = base.blocks[0].samples[synthetic.LOOP]
            checked = replace(samples, candidate_check=tuple(answer["check"]))
            block = replace(base.blocks[0], samples={synthetic.LOOP: checked})
            results.write(path, replace(base, blocks=(block,)))
            decide(results.read(path))
        if do == "start":
            told = replace(base.baseline, versions=answer["versions"])
            results.write(path, replace(base, baseline=told))
            found = results.read(path)
            assert table_text(found, decide(found))
        if do == "train":
            trained = seeds._read(answer, 3)
            trainings.write_trainings(path, [replace(SOME, seeds=(trained,))])
            trainings.read_trainings(path)

    use(valid)
    fuzzed(damaged([valid], is_json=True), use, WorkerError, may_write=["r.jsonl"])


def _received(do: str, content: bytes) -> dict[str, Any]:
    """Returns what a worker's answer to a command gives."""
    ours, theirs = socket.socketpair()
    worker = object.__new__(Worker)
    with ours, theirs:
        state: dict[str, Any] = {"_channel": ours, "_process": _Gone(), "_buffer": bytearray()}
        vars(worker).update(state, _asked=deque([do]), _log=Path("/nonexistent/log"))
        vars(worker).update(_kills_for_memory=0)
        theirs.sendall(content)
        theirs.close()
        return worker.receive(5.0)
