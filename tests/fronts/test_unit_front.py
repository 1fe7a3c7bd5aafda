"""Command `python -m bench measure`: one task, one ledger; the others put ledgers together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench.measure import blocks as measured_blocks
from bench.records import results
from bench.records.trainings import read_trainings, write_trainings
from tests.measure.fake_nvml import DESCRIBED, H200, FakeNvml, NVMLError, install

LOOP = "train_step[loop,b128]"
SLOW = "TF_STUB_RATIO=1.5"

pytestmark = pytest.mark.usefixtures("black_images", "short_blocks")


def block(stub: str, path: Path, number: int, *more: str) -> int:
    sides = ("--baseline", stub, "--candidate", f"{stub} {SLOW}", "--workloads", LOOP)
    return command.main(["measure", "--block", str(number), *sides, "--results", str(path), *more])


def seed(stub: str, path: Path, number: int, *more: str) -> int:
    terms = ("--environment", stub, "--engine", "graph", "--results", str(path))
    return command.main(["measure", "--seed", str(number), *terms, *more])


def test_blocks_of_four_machines_give_a_verdict_together(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{number}.jsonl" for number in range(4)]
    for number, path in enumerate(paths):
        assert block(stub, path, number) == 0
        (one,) = results.read(path).blocks
        assert (one.number, one.first) == (number, ("baseline", "candidate")[number % 2])
        assert results.read(path).complete
    capsys.readouterr()
    texts = [str(path) for path in paths]
    assert command.main(["verdict", *texts]) == 1
    told = capsys.readouterr().out
    assert told.startswith(f"FAIL: {LOOP}: 9.9.0 {SLOW} takes 1.500x the time of 9.9.0 (")
    assert "4 blocks" in told
    for order in (texts[::-1], [*texts, texts[0]]):
        assert command.main(["verdict", *order]) == 1
        assert capsys.readouterr().out == told
    assert command.main(["show", *texts]) == 0
    assert command.main(["report", *texts, "--out", str(tmp_path / "out")]) == 0
    assert len(results.read(tmp_path / "out" / "results.jsonl").blocks) == 4


def test_one_block_has_no_verdict_yet(stub: str, tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    assert block(stub, path, 0) == 0
    assert command.main(["verdict", str(path)]) == 6


def test_a_measured_block_is_not_measured_again(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "0.jsonl"
    assert block(stub, path, 3) == 0
    before = path.read_bytes()
    capsys.readouterr()
    assert block(stub, path, 3) == 0
    assert capsys.readouterr().out == f"{path} is complete\n"
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("number", "more", "told"),
    [
        (4, (), "holds block 3"),
        (3, ("--margin", "1.2"), "holds a block with other workloads or margins"),
        (3, ("--threads", "2"), "holds a block with another number of threads"),
        (3, ("--workloads", "fit_call"), "holds a block with other workloads or margins"),
        (3, ("--candidate", "."), "holds a block with other candidates"),
    ],
)
def test_a_ledger_of_another_block_is_refused(
    stub: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: int,
    more: Sequence[str],
    told: str,
) -> None:
    path = tmp_path / "0.jsonl"
    assert block(stub, path, 3) == 0
    capsys.readouterr()
    assert block(stub, path, number, *more) == 4
    assert capsys.readouterr().err == f"bench: error: {path}: {told}: choose another --results\n"


def test_an_interrupted_block_is_measured_again_as_a_whole(
    stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is stored."""
    path = tmp_path / "0.jsonl"
    with monkeypatch.context() as patch:
        real = measured_blocks.BlockRecorder.measure

        def interrupt(self: Any) -> None:
            real(self)
            raise KeyboardInterrupt

        patch.setattr(measured_blocks.BlockRecorder, "measure", interrupt)
        assert block(stub, path, 0) == 2
    assert not path.exists()
    assert block(stub, path, 0) == 0


def test_a_ledger_without_its_end_continues(stub: str, tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    assert block(stub, path, 0) == 0
    whole = results.read(path)
    for kept in (whole.blocks, ()):
        results.write(path, replace(whole, blocks=kept, complete=False))
        assert block(stub, path, 0) == 0
        found = results.read(path)
        assert (len(found.blocks), found.complete) == (1, True)


def test_seeds_of_several_machines_give_a_verdict_together(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for place, request in enumerate((stub, f"{stub} TF_STUB_LOSS=99")):
        for number in range(10):
            paths.append(str(tmp_path / f"{place}-{number}.jsonl"))
            assert seed(request, Path(paths[-1]), number) == 0
    capsys.readouterr()
    terms = ("--baseline", stub, "--accuracy-margin", "0.2")
    assert command.main(["verdict", *paths, *terms]) == 1
    told = capsys.readouterr().out
    assert told.startswith("FAIL: accuracy[fast]: 9.9.0 TF_STUB_LOSS=99 loses 0.990 points")
    assert "10 seeds, paired, engine graph" in told
    assert command.main(["verdict", *paths[::-1], *terms]) == 1
    assert capsys.readouterr().out == told
    assert command.main(["show", *paths, *terms]) == 0
    assert "baseline" in capsys.readouterr().out
    assert command.main(["show", *paths]) == 0
    assert len(capsys.readouterr().out.split("fast")) == 3  # a table of each environment
    out = tmp_path / "out"
    assert command.main(["report", *paths, *terms, "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *("report-plain", "report.html", "results.jsonl", "summary.md"),
    ]
    capsys.readouterr()
    assert command.main(["verdict", str(out / "results.jsonl")]) == 1
    assert capsys.readouterr().out == told


def test_seeds_need_a_baseline_for_a_verdict(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "0.jsonl"
    assert seed(stub, path, 0) == 0
    for more, told in (
        ([], "holds seeds without a comparison: add --baseline REQ, or --baseline reference"),
        (["--baseline", "."], "name one of several"),
        (["--baseline", stub], "name one of several"),
    ):
        capsys.readouterr()
        assert command.main(["verdict", str(path), *more]) == 4
        assert told in capsys.readouterr().err


def test_a_trained_seed_is_not_trained_again(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "3.jsonl"
    assert seed(stub, path, 3) == 0
    before = path.read_bytes()
    capsys.readouterr()
    assert seed(stub, path, 3) == 0
    assert capsys.readouterr().out == f"{path} is complete\n"
    assert path.read_bytes() == before
    told = f"bench: error: {path}: holds another task: choose another --results\n"
    for number, more in ((4, ()), (3, ("--recipe", "best")), (3, ("--environment", "."))):
        assert seed(stub, path, number, *more) == 4
        assert capsys.readouterr().err == told


def test_a_crash_is_the_result_of_its_seed(stub: str, tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    assert seed(f"{stub} TF_STUB_FAULT=train_-_crash", path, 0) == 0
    (found,) = read_trainings(path)
    assert [trained.crashed for trained in found.seeds] == [True]


@pytest.mark.parametrize("fault", ["TF_STUB_FAULT=start_-_raise", "TF_STUB_FAULT=start_-_crash"])
def test_an_environment_that_is_not_there_gives_status_7_and_may_be_tried_again(
    stub: str, tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "0.jsonl"
    for _ in range(2):
        assert seed(f"{stub} {fault}", path, 0) == 7
        assert "cannot start" in read_trainings(path)[0].problem
    other = tmp_path / "1.jsonl"
    assert seed("python:/no/such", other, 0) == 7
    assert read_trainings(other)[0].problem
    third = tmp_path / "2.jsonl"
    assert block("python:/no/such", third, 0) == 7
    assert results.read(third).baseline.problem


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "one of the arguments --block --seed is required"),
        (("--block", "0", "--seed", "0"), "not allowed with argument"),
        (("--block", "0"), "--block needs --baseline"),
        (("--block", "-1", "--baseline", "."), "--block is -1"),
        (("--block", "0", "--baseline", ".", "--recipe", "fast"), "--recipe belongs to --seed"),
        (("--seed", "0", "--baseline", "."), "--baseline belongs to --block"),
        (("--seed", "-1"), "seed is -1"),
        (("--block", "0", "--baseline", ".", "--threads", "0"), "--threads is 0"),
    ],
)
def test_invalid_options_give_status_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], told: str
) -> None:
    path = tmp_path / "0.jsonl"
    assert command.main(["measure", *arguments, "--results", str(path)]) == 4
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said
    assert not path.exists()


def test_results_of_speed_and_accuracy_are_not_combined(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert block(stub, tmp_path / "b.jsonl", 0) == 0
    assert seed(stub, tmp_path / "s.jsonl", 0) == 0
    capsys.readouterr()
    for name in ("verdict", "show"):
        assert command.main([name, str(tmp_path / "b.jsonl"), str(tmp_path / "s.jsonl")]) == 4
        told = "bench: error: results of speed and of accuracy cannot be combined\n"
        assert capsys.readouterr().err == told
    assert command.main(["verdict", str(tmp_path / "b.jsonl"), "--baseline", "."]) == 4
    assert "belong to results of accuracy" in capsys.readouterr().err


def test_unlike_machines_are_refused_in_one_line(
    stub: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{number}.jsonl" for number in range(4)]
    for number, path in enumerate(paths):
        assert (block if number < 2 else seed)(stub, path, number) == 0
    results.write(paths[1], replace(results.read(paths[1]), machine={"cpu": "another"}))
    (found,) = read_trainings(paths[3])
    write_trainings(paths[3], [replace(found, machine={"cpu": "another"})])
    capsys.readouterr()
    for one, other in (paths[:2], paths[2:]):
        assert command.main(["show", str(one), str(other)]) == 4
        told = "bench: error: results of different machines cannot be combined\n"
        assert capsys.readouterr().err == told


def test_seeds_of_a_gpu_are_trained_there_and_put_together_only_with_their_like(
    stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver = FakeNvml(H200, driver="560.35.03")
    paths = [tmp_path / f"{number}.jsonl" for number in range(4)]
    for number, (nvml, *device) in enumerate(
        ((FakeNvml(H200), "gpu"), (FakeNvml(H200), "gpu:0"), (driver, "gpu"), (driver, "cpu"))
    ):
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        assert seed(stub, paths[number], number, "--device", *device) == 0
    (first,), (last,) = (read_trainings(paths[place]) for place in (0, 3))
    assert first.machine == {**last.machine, "gpu": DESCRIBED}
    assert (first.side.versions["device"], last.side.versions.get("device")) == ("gpu:0", None)
    capsys.readouterr()
    assert command.main(["show", *map(str, paths[:2])]) == 0
    for other, what, both in (
        (2, "GPUs: driver", {"550.90.07", "560.35.03"}),
        (3, "devices:", {"NVIDIA H200", "the CPU"}),
    ):
        assert command.main(["show", str(paths[0]), str(paths[other])]) == 4
        told = capsys.readouterr().err
        start = f"bench: error: results of different {what} "
        assert told.startswith(start)
        assert told.endswith(" cannot be combined\n")
        named = told.removeprefix(start).removesuffix(" cannot be combined\n")
        assert {*named.split(" and ")} == both
    assert seed(stub, paths[3], 3, "--device", "gpu") == 4
    told = f"bench: error: {paths[3]}: holds a seed of the CPU: choose another --results\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    "arguments", [["measure", "--seed", "0", "--results", "r.jsonl"], ["calibrate"]]
)
@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("gpu", "--device gpu:0: NVIDIA's driver gives no answer: no driver"),
        ("tpu", "--device is 'tpu', expected cpu, gpu or gpu:N"),
    ],
)
def test_without_the_device_a_command_ends_at_once_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: Sequence[str],
    device: str,
    told: str,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    install(monkeypatch, init=NVMLError("no driver"))
    assert command.main([*arguments, "--device", device]) == 4
    assert capsys.readouterr() == ("", f"bench: error: {told}\n")
