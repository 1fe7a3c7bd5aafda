"""Option `--cluster` of `pytest bench` and `python -m bench reference`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

# It replaces Python's finder of installed packages; pytester would take the new one back.
import distributed  # noqa: F401
import pytest

from bench import __main__ as command
from bench.measure.cluster import executor
from bench.records import results
from bench.records.trainings import read_trainings
from tests.measure.dask import HOSTS, ON_MACHINE, scheduler

LOOP = "train_step[loop,b128]"

Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.usefixtures("black_images", "short_blocks")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a cluster with two workers that measure blocks."""
    with scheduler(tmp_path_factory.mktemp("dask")) as (address, start):
        for host in HOSTS:
            start(host, *ON_MACHINE, "--no-nanny")
        yield address


def test_a_comparison_of_speed_on_a_cluster_has_the_same_verdict(
    run: Run, stub: str, address: str, pytester: pytest.Pytester
) -> None:
    slow = f"{stub} TF_STUB_RATIO=1.092"
    terms = ("--baseline", stub, "--candidate", slow, "--workloads", LOOP, "--cluster", address)
    done = run(*terms, "--results", "r.jsonl")
    assert done.ret == 1
    done.stdout.fnmatch_lines([f"{LOOP.replace('[', '[[]')}: * takes 1.092x the time of 9.9.0 *"])
    found = results.read(pytester.path / "r.jsonl")
    assert found.complete
    assert len({block.number for block in found.blocks}) == 4
    assert command.main(["verdict", str(pytester.path / "r.jsonl")]) == 1


def test_a_comparison_of_accuracy_and_a_reference_on_a_cluster_equal_those_made_here(
    run: Run, stub: str, address: str, tmp_path: Path
) -> None:
    terms = ("--seeds", "10", "--baseline", stub, "--candidate", f"{stub} TF_STUB_LOSS=1")
    paths = [tmp_path / "here.jsonl", tmp_path / "there.jsonl"]
    for path, more in zip(paths, ((), ("--cluster", address)), strict=True):
        assert run(*terms, "--results", str(path), *more).ret == 0
    here, there = (read_trainings(path) for path in paths)
    assert [item.seeds for item in here] == [item.seeds for item in there]
    out = tmp_path / "reference.jsonl"
    reference = ["reference", "--environment", stub, "--seeds", "3", "--engine", "graph"]
    assert command.main([*reference, "--out", str(out), "--cluster", address]) == 0
    assert read_trainings(out)[0].seeds == here[0].seeds[:3]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("kind", ["speed", "accuracy"])
def test_a_cluster_that_does_not_answer_gives_status_4(
    run: Run, stub: str, monkeypatch: pytest.MonkeyPatch, kind: str, device: str
) -> None:
    """Its machines have their own GPUs: this one is not asked for any."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(executor.Cluster.__init__, "__defaults__", (0.3,))
    terms = ("--workloads", LOOP) if kind == "speed" else ("--seeds", "10")
    where = ("--cluster", "127.0.0.1:1", "--device", device)
    done = run("--baseline", stub, "--candidate", stub, *terms, *where)
    assert done.ret == 4
    said = done.stdout.str() + done.stderr.str()
    assert re.search(r"--cluster 127\.0\.0\.1:1: no scheduler answers within 0\.3 s", said)
    assert "Traceback" not in said


def test_options_that_contradict_the_cluster_are_refused(
    run: Run, stub: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "--cluster trains on all cores of its workers: remove --processes"
    both = ("--cluster", "127.0.0.1:1", "--processes", "2")
    done = run("--seeds", "10", "--baseline", stub, *both)
    assert done.ret == 4
    assert told in done.stderr.str()
    assert command.main(["reference", *both]) == 4
    assert told in capsys.readouterr().err
    done = run("--cluster", "127.0.0.1:1")
    assert done.ret == 4
    assert "--cluster needs --baseline or --seeds" in done.stderr.str()
