"""Answers of the real worker have the form that is demanded of every worker."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.measure import answers
from bench.measure.processes import Interpreter, Worker
from bench.measure.worker_files import prepare_folder
from lenet5.data import Dataset


def test_the_real_worker_is_understood(digits: Dataset, tmp_path: Path) -> None:
    prepare_folder(tmp_path, digits.training)
    with Worker(Interpreter(Path(sys.executable), {}), tmp_path) as worker:
        versions = worker.ask(300, "start", cores=[], threads=1)["versions"]
        assert isinstance(versions["onednn"], bool | None)
        assert worker.ask(300, "first_step")["value"] > 0
        loop = {"workload": "w", "builder": "loop", "arguments": {"batch_size": 32}}
        assert len(worker.ask(300, "prepare", **loop)["check"]) == 20
        assert worker.ask(300, "slice", workload="w", steps=2)["value"] > 0


@pytest.mark.parametrize("fact", [True, None, "text", 3, 1.5, {"cuda": "no"}])
def test_versions_may_hold_any_fact(fact: object) -> None:
    answers.checked("start", {"versions": {"onednn": fact}})


@pytest.mark.parametrize("fact", [[1], {"a": {"b": 1}}])
def test_versions_hold_no_lists(fact: object) -> None:
    with pytest.raises(ValueError, match=r"versions\[\.\.\.\]"):
        answers.checked("start", {"versions": {"onednn": fact}})
