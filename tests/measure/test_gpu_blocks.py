"""Blocks on a GPU, with stub workers: warm-up, order, and workloads with budgets of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import speed
from bench.measure import machine, workers
from bench.measure.blocks import BlockRecorder, MeasuredBlock, measure_blocks
from bench.measure.processes import Interpreter, Worker
from bench.measure.rounds import measure_rounds
from bench.measure.workers import BASE, Bench, Limits, Workers, bench_here
from bench.plans.speed import Plan
from bench.records import catalogue
from bench.records.blocks import Block, BlockTask, Results, Witness, WorkloadTerms
from bench.records.catalogue import GPU_WORKLOADS
from bench.records.sides import Side
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import decide
from lenet5.devices import CPU, Device
from tests.measure.stub_worker import stub_python
from tests.synthetic import decided

GPU = Device("gpu:2", "GPU-1234")
LOOP, FIT = "train_step[loop,b512]", "fit[b512,nojit]"
NO_XLA, XLA, AUTO = "first_fit[nojit]", "first_fit[xla]", "fit[b512,auto]"

Asked = list[tuple[int, str, str]]


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.measure.machine.witness", lambda *_: Witness(1e-4, load=0.0))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "home").mkdir()
    limits = Limits(start_seconds=5, prepare_seconds=5, slice_seconds=5, compile_seconds=0.3)
    return Bench(tmp_path, (), ((), ()), (), pair_seconds=0, limits=limits, device=GPU)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return stub_python(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Returns the process, name and workload of each command; answers carry the name alone."""
    found: Asked = []
    send, receive = Worker.send, Worker.receive

    def sent(self: Worker, do: str, **more: Any) -> None:
        found.append((self.pid, do, more.get("workload", "")))
        send(self, do, **more)

    def received(self: Worker, seconds: float) -> dict[str, Any]:
        answer = receive(self, seconds)
        found.append((self.pid, "answer", ""))
        return answer

    monkeypatch.setattr(Worker, "send", sent)
    monkeypatch.setattr(Worker, "receive", received)
    return found


def sides(python: Path, *settings: Mapping[str, str]) -> dict[int, Interpreter]:
    """Returns a baseline and candidates on the GPU, with these settings."""
    each = enumerate(settings, start=BASE)
    return {place: Interpreter(python, own, device=GPU) for place, own in each}


def block_of(
    bench: Bench, there: Mapping[int, Interpreter], *names: str, **more: Any
) -> MeasuredBlock:
    task = BlockTask({0: [GPU_WORKLOADS[name] for name in names]}, {0: 0}, **more)
    (measured,) = measure_blocks([task], bench, there)
    return measured


def compared(
    bench: Bench, there: Mapping[int, Interpreter], *names: str, budget_seconds: float = 1e6
) -> Results:
    """Returns a comparison of the two sides, as the plan measures it."""
    specs = {name: GPU_WORKLOADS[name] for name in names}
    terms = {
        name: WorkloadTerms(
            *(1, spec.unit, spec.margin or 1.03, spec.gated),
            own_budget_seconds=spec.own_budget_seconds,
        )
        for name, spec in specs.items()
    }
    options = {"budget_seconds": budget_seconds, "device": GPU.name}
    empty = Results({}, "code", options, "now", Side("b", "base"), (Side("c", "c0"),), terms)
    plan = Plan((specs,), budget_seconds)
    return speed.run(plan, there[BASE], [there[0]], bench, empty, lambda *_: None)


class Scripted:
    """Workers whose slices take given seconds in turn, by side."""

    def __init__(self, seconds: Mapping[int, Sequence[float]]) -> None:
        self._left = {place: [*own] for place, own in seconds.items()}
        self.ran: list[tuple[int, int]] = []

    def slice(self, place: int, _workload: str, steps: int) -> dict[str, Any]:
        self.ran.append((place, steps))
        own = self._left[place]
        value = own.pop(0) if len(own) > 1 else own[0]
        return {"value": value, "cpu_seconds": 0.0, "idle_cpu_seconds": 0.0, "loss": 1.0}

    def slices(self, workload: str, steps: Mapping[int, int]) -> dict[int, dict[str, Any]]:
        return {place: self.slice(place, workload, count) for place, count in steps.items()}


def warm_ups(bench: Bench, seconds: Mapping[int, Sequence[float]]) -> list[int]:
    """Returns the sides of the slices before the four rounds, with fixed steps."""
    scripted = Scripted(seconds)
    spec, there = GPU_WORKLOADS[LOOP], [*seconds]
    workers: Any = scripted
    measure_rounds(spec, workers, there, bench, {LOOP: 3})
    assert {steps for _, steps in scripted.ran} == {3}
    return [place for place, _ in scripted.ran[: -4 * len(there)]]


def test_a_side_is_warm_when_two_slices_in_a_row_agree(bench: Bench) -> None:
    """The first calls on a GPU choose algorithms: each side has as many slices as it needs."""
    seconds = {BASE: [9.0, 2.0, 1.0, 0.95, 1.0], 0: [1.0, 1.05, 1.0]}
    assert warm_ups(bench, seconds) == [BASE] * 4 + [0] * 2


def test_a_side_that_never_settles_is_measured_after_twenty_slices(bench: Bench) -> None:
    assert warm_ups(bench, {BASE: [1.0, 2.0] * 50, 0: [1.0]}) == [BASE] * 20 + [0] * 2


def test_the_warm_up_has_a_limit_in_seconds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = iter(range(0, 100_000, 20))
    monkeypatch.setattr("bench.measure.rounds.time.monotonic", lambda: next(passed))
    assert warm_ups(bench, {BASE: [1.0, 2.0] * 50, 0: [1.0, 2.0] * 50}) == [BASE] * 2 + [0] * 2


def test_the_cpus_warm_up_is_two_slices_a_side(bench: Bench) -> None:
    seconds = {BASE: [9.0, 2.0, 1.0], 0: [1.0, 1.0]}
    assert warm_ups(replace(bench, device=CPU), seconds) == [BASE, 0, BASE, 0]


def test_the_steps_are_fixed_after_the_warm_up(bench: Bench) -> None:
    """A first call of 50 ms does not end the search for a slice of 30 ms."""
    scripted = Scripted({BASE: [50.0, 0.05, 0.002], 0: [0.002]})
    workers: Any = scripted
    steps: dict[str, int] = {}
    measure_rounds(GPU_WORKLOADS[LOOP], workers, [BASE, 0], bench, steps)
    assert steps == {LOOP: 15 * 15}  # the stub's time does not depend on the steps


@pytest.mark.parametrize(
    ("threads", "device", "pinned"), [(1, CPU, True), (1, GPU, False), (2, CPU, False)]
)
def test_only_one_thread_on_the_cpu_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, device: Device, pinned: bool
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: (0, 1, 2))
    made = bench_here(tmp_path, threads=threads, device=device)
    assert made.cores == ((2,) if pinned else (0, 1, 2))
    assert made.device == device


def test_no_process_is_stopped_and_each_side_is_built_alone(
    bench: Bench, python: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process leaves its kernels running; libraries time their algorithms."""

    def never(*_: object) -> None:
        raise AssertionError("a process was stopped")

    monkeypatch.setattr(Worker, "stop", never)
    monkeypatch.setattr(Workers, "slices_in_turns", never)
    long = replace(GPU_WORKLOADS[FIT], in_turns=True)
    task = BlockTask({0: [long, GPU_WORKLOADS["device_memory"]]}, {0: 0})
    (measured,) = measure_blocks([task], bench, sides(python, {}, {}))
    assert not measured.block.failures
    both = {"prepare", "slice", "device_memory"}
    for number, (pid, do, _) in enumerate(asked):
        if do in both:
            assert asked[number + 1] == (pid, "answer", "")


def test_workers_see_one_gpu_and_report_its_name(bench: Bench, python: Path) -> None:
    said = block_of(bench, sides(python, {}, {}), LOOP).said
    assert {place: own["shown"] for place, own in said.items()} == {BASE: "GPU-1234", 0: "GPU-1234"}
    assert {own["device"] for own in said.values()} == {"gpu:2"}


def test_a_witness_is_asked_about_the_device(
    bench: Bench, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about: list[object] = []

    def witness(*arguments: object) -> Witness:
        about.append(arguments[3])
        return Witness(1e-4, load=0.0)

    monkeypatch.setattr("bench.measure.machine.witness", witness)
    block_of(bench, sides(python, {}, {}), LOOP, NO_XLA)
    assert about == [GPU] * 3


# ---- workloads with budgets of their own


def test_a_first_fit_has_a_process_of_its_own_at_the_end(
    bench: Bench, python: Path, asked: Asked
) -> None:
    measured = block_of(bench, sides(python, {}, {"TF_STUB_RATIO": "3"}), NO_XLA, LOOP, AUTO)
    block = measured.block
    assert set(block.samples) == {LOOP, NO_XLA, AUTO}
    assert block.samples[NO_XLA].baseline.values == (0.01,)
    assert block.samples[NO_XLA].candidate.values == pytest.approx([0.03])
    assert set(block.own_seconds) == {NO_XLA, AUTO}
    fits = [pid for pid, do, _ in asked if do == "first_fit"]
    others = {pid for pid, do, name in asked if do == "slice"}
    assert len(set(fits)) == 2
    assert not set(fits) & others
    of_loop = {pid for pid, do, name in asked if (do, name) == ("slice", LOOP)}
    of_auto = {pid for pid, do, name in asked if (do, name) == ("slice", AUTO)}
    assert not of_loop & of_auto


@pytest.mark.parametrize("candidates", [1, 2])
def test_own_seconds_are_not_those_of_the_block(
    bench: Bench, python: Path, monkeypatch: pytest.MonkeyPatch, candidates: int
) -> None:
    """Both are shared by the candidates."""
    spent = iter([5.0, 100.0])
    now = [0.0]

    def passes(*_: object) -> list[Any]:
        now[0] += next(spent)
        return []

    monkeypatch.setattr("bench.measure.blocks.time.monotonic", lambda: now[0])
    monkeypatch.setattr(BlockRecorder, "_measure_in_workers", passes)
    monkeypatch.setattr(BlockRecorder, "_measure_first_fit", passes)
    specs = [GPU_WORKLOADS[name] for name in (XLA, LOOP)]
    places = range(candidates)
    task = BlockTask(dict.fromkeys(places, specs), dict.fromkeys(places, 0))
    recorder = BlockRecorder(bench, sides(python, {}, *({} for _ in places)), task, {})
    recorder.measure()
    for block in recorder.blocks():
        assert block.seconds == 5.0 / candidates
        assert block.own_seconds == {XLA: 100.0 / candidates}


@pytest.mark.parametrize("name", [XLA, AUTO])
@pytest.mark.parametrize("both", [True, False])
def test_a_hang_in_its_own_budget_concerns_this_workload_alone(
    bench: Bench, python: Path, name: str, both: bool
) -> None:
    """The other workloads are decided; two hangs of the baseline end the workload's blocks."""
    do = "first_fit" if name == XLA else "slice"
    hangs = {"TF_STUB_FAULT": f"{do} {name if do == 'slice' else '-'} hang"}
    found = compared(bench, sides(python, hangs, hangs if both else {}), LOOP, name)
    decisions = decided(found)
    assert decisions[LOOP].verdict is Verdict.PASS
    assert decisions[name].verdict is Verdict.INCONCLUSIVE
    assert "the baseline fails: timed out after 0.3 s" in decisions[name].finding
    tried = [any(f.workload == name for f in block.failures) for block in found.blocks]
    assert tried == [True, True, False, False]


def test_a_candidate_alone_that_is_not_back_fails(bench: Bench, python: Path) -> None:
    """The baseline's time shows that the candidate's exceeds the margin."""
    found = compared(bench, sides(python, {}, {"TF_STUB_FAULT": "first_fit - hang"}), NO_XLA)
    (decision,) = decide(found)
    assert decision.verdict is Verdict.FAIL
    assert decision.finding.endswith("timed out after 0.3 s (2 blocks)")


def test_a_timeout_near_the_baselines_time_shows_nothing(bench: Bench, python: Path) -> None:
    """0.27 s times 1.25 is above the limit of 0.3 s, so the candidate may be within the margin."""
    there = sides(python, {"TF_STUB_RATIO": "27"}, {"TF_STUB_FAULT": "first_fit - hang"})
    found = compared(bench, there, NO_XLA)
    (decision,) = decide(found)
    assert decision.verdict is Verdict.INCONCLUSIVE
    told = "c0 is not measured: timed out after 0.3 s, the baseline took 0.27 s"
    assert told in decision.finding
    assert len(found.blocks) == 2


def test_a_start_that_fails_in_an_own_process_does_not_remove_the_side(
    bench: Bench, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is there: its other workloads were measured."""
    started = workers.Workers.__init__

    def fails(self: Workers, own: Bench, *arguments: Any, **more: Any) -> None:
        if own.limits.prepare_seconds == 0.3:
            there: Mapping[int, Interpreter] = arguments[0]
            gone = {place: replace(side, python=Path("/no")) for place, side in there.items()}
            arguments = (gone, *arguments[1:])
        started(self, own, *arguments, **more)

    monkeypatch.setattr(workers.Workers, "__init__", fails)
    block = block_of(bench, sides(python, {}, {}), LOOP, AUTO, NO_XLA).block
    assert set(block.samples) == {LOOP}
    assert {failure.workload for failure in block.failures} == {AUTO, NO_XLA}


def fixed(monkeypatch: pytest.MonkeyPatch, seconds: float, own: Mapping[str, float]) -> None:
    """Gives every block these durations."""
    measured = BlockRecorder.blocks

    def blocks(self: BlockRecorder, quickest: float | None = None) -> list[Block]:
        return [
            replace(
                block,
                seconds=seconds if set(block.samples) - set(own) else 0.0,
                own_seconds={name: own[name] for name in block.own_seconds},
            )
            for block in measured(self, quickest)
        ]

    monkeypatch.setattr(BlockRecorder, "blocks", blocks)


def test_own_seconds_do_not_count_against_the_budget(
    bench: Bench, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four blocks of 70 s fit in 290 s, whatever the first `fit` takes beside them."""
    fixed(monkeypatch, 70.0, {NO_XLA: 140.0})
    found = compared(bench, sides(python, {}, {}), LOOP, NO_XLA, budget_seconds=290)
    assert [d.verdict for d in decide(found)] == [Verdict.PASS] * 2
    assert [set(block.samples) for block in found.blocks] == [{LOOP, NO_XLA}] * 4


def test_the_end_of_an_own_budget_ends_one_workload_only(
    bench: Bench, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """600 s do not reach four blocks of 160 s."""
    fixed(monkeypatch, 70.0, {XLA: 160.0})
    found = compared(bench, sides(python, {}, {}), LOOP, XLA, budget_seconds=290)
    assert [set(block.samples) for block in found.blocks] == [{LOOP, XLA}, {LOOP}, {LOOP}, {LOOP}]
    decisions = decided(found)
    assert decisions[LOOP].verdict is Verdict.PASS
    assert decisions[XLA].verdict is Verdict.INCONCLUSIVE
    assert math.isnan(decisions[XLA].detectable)


def test_the_end_of_the_budget_does_not_end_a_workload_with_its_own(
    bench: Bench, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later blocks, which take none of the budget, do not revive the others."""
    fixed(monkeypatch, 70.0, {NO_XLA: 10.0})
    found = compared(bench, sides(python, {}, {}), LOOP, NO_XLA, budget_seconds=100)
    assert [set(block.samples) for block in found.blocks] == [{LOOP, NO_XLA}] + [{NO_XLA}] * 3
    decisions = decided(found)
    assert decisions[LOOP].verdict is Verdict.INCONCLUSIVE
    assert decisions[NO_XLA].verdict is Verdict.PASS


def test_several_candidates_share_a_workloads_own_time(bench: Bench, python: Path) -> None:
    specs = [GPU_WORKLOADS[NO_XLA]]
    task = BlockTask({0: specs, 1: specs}, {0: 0, 1: 0})
    one, other = measure_blocks([task], bench, sides(python, {}, {}, {}))
    assert one.block.own_seconds == other.block.own_seconds
    assert one.block.samples[NO_XLA].baseline == other.block.samples[NO_XLA].baseline


def test_workloads_of_cpus_have_no_own_budget() -> None:
    assert not any(spec.own_budget_seconds for spec in catalogue.WORKLOADS.values())
