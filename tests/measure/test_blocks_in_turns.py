"""Contents and order of blocks and looks, with stub workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bench import speed
from bench.measure.blocks import BlockRecorder, measure_blocks
from bench.measure.processes import Interpreter, Worker
from bench.measure.workers import BASE, Bench, Limits, Workers
from bench.plans.speed import Plan, next_blocks
from bench.records import catalogue
from bench.records.blocks import Block, BlockTask, Results, Witness, WorkloadTerms
from bench.records.sides import Side
from bench.report.words import how_measured
from bench.verdicts.faults import missing
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import Decision, decide
from tests.measure.stub_worker import LOSSES, stub_python
from tests.synthetic import decided

LOOP, FIT, IMPORT = "train_step[loop,b128]", "fit[b32]", "import"

Run = Callable[..., Results]


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the influence of other processes on this machine."""
    monkeypatch.setattr("bench.measure.machine.witness", lambda *_: Witness(1e-4, load=0.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return stub_python(tmp_path)


@pytest.fixture
def bench(folder: Path) -> Bench:
    limits = Limits(start_seconds=5, prepare_seconds=5, slice_seconds=0.3)
    return Bench(folder, (), ((), ()), (), pair_seconds=0, limits=limits)


def nothing_measured(names: tuple[str, ...], candidates: int = 1) -> Results:
    specs = {name: catalogue.WORKLOADS[name] for name in names}
    terms = {
        name: WorkloadTerms(1, "s", 1.03, gated=True, is_difference=spec.is_difference)
        for name, spec in specs.items()
    }
    sides = tuple(Side(f"c{index}", f"c{index}") for index in range(candidates))
    return Results({}, "code", {"budget_seconds": 1e6}, "now", Side("b", "base"), sides, terms)


@pytest.fixture
def run(python: Path, bench: Bench) -> Run:
    """Returns a function that runs an experiment of stubs with the candidates' settings."""

    def go(
        *candidates: Mapping[str, str] | None,
        names: tuple[str, ...] = (LOOP,),
        baseline: Mapping[str, str] | None = None,
        on_block: speed.OnResults = lambda *_: None,
        **plan: float,
    ) -> Results:
        specs = {name: catalogue.WORKLOADS[name] for name in names}
        planned = Plan(
            tuple(specs for _ in candidates),
            **{"budget_seconds": 1e6, **plan},  # type: ignore[arg-type]
        )
        sides = [None if c is None else Interpreter(python, c) for c in candidates]
        empty = nothing_measured(names, len(candidates))
        return speed.run(
            planned, Interpreter(python, baseline or {}), sides, bench, empty, on_block
        )

    return go


def only(found: Results) -> Decision:
    (decision,) = decide(found)
    return decision


def test_an_equal_candidate_passes_at_the_first_look(run: Run) -> None:
    found = run({})
    assert (only(found).verdict, len(found.blocks), found.complete) == (Verdict.PASS, 4, True)


def test_a_slower_candidate_fails_with_the_correct_ratio(run: Run) -> None:
    decision = only(run({"TF_STUB_RATIO": "1.06"}))
    assert decision.verdict is Verdict.FAIL
    assert decision.ratio == pytest.approx(1.06)


def test_the_starting_side_alternates_between_blocks(run: Run) -> None:
    assert [block.first for block in run({}).blocks] == ["baseline", "candidate"] * 2


def test_candidates_are_measured_round_robin(run: Run) -> None:
    found = run({}, {"TF_STUB_RATIO": "2"}, {})
    assert [block.candidate for block in found.blocks] == [0, 1, 2] * 4


def test_candidates_share_the_baseline_slices(run: Run) -> None:
    """Each candidate has separate blocks, the same baseline samples, and a share of the time."""
    found = run({}, {"TF_STUB_RATIO": "2"}, {}, names=(LOOP, FIT, "peak_memory"))
    for number in range(4):
        own = [block for block in found.blocks if block.number == number]
        assert [block.candidate for block in own] == [0, 1, 2]
        assert len({block.seconds for block in own}) == 1
        for name in found.workloads:
            assert len({block.samples[name].baseline.values for block in own}) == 1
    assert [d.verdict.value for d in decide(found)] == ["PASS"] * 3 + ["FAIL"] * 3 + ["PASS"] * 3


def test_every_side_takes_a_turn_as_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order rotates in blocks and in the rounds of slices of a block."""
    asked: list[int] = []
    ask = Workers.slice

    def watched(self: Workers, place: int, workload: str, steps: int) -> object:
        asked.append(place)
        return ask(self, place, workload, steps)

    monkeypatch.setattr(Workers, "slice", watched)
    found = run({}, {})
    firsts = [[b.first for b in found.blocks if b.candidate == c] for c in (0, 1)]
    assert firsts == [
        ["baseline", "candidate", "candidate", "baseline"],
        ["baseline", "candidate", "candidate", "baseline"],
    ]
    rounds = [tuple(asked[place : place + 3]) for place in range(len(asked) - 12, len(asked), 3)]
    assert rounds == [(-1, 1, 0), (0, 1, -1), (1, 0, -1), (-1, 0, 1)]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("start - crash", ["INCONCLUSIVE"] * 3),
        (f"slice {LOOP} crash", ["FAIL", "PASS", "PASS"]),
        (f"slice {FIT} hang", ["PASS", "FAIL", "PASS"]),
    ],
)
def test_a_failing_candidate_does_not_affect_the_others(
    run: Run, fault: str, expected: list[str]
) -> None:
    found = run({}, {"TF_STUB_FAULT": fault}, {}, names=(LOOP, FIT, "fit_call"))
    verdicts = [[d.verdict for d in decide(found) if d.candidate == c] for c in range(3)]
    assert verdicts[0] == verdicts[2] == [Verdict.PASS] * 3
    assert [verdict.value for verdict in verdicts[1]] == expected
    assert {len(b.samples) for b in found.blocks if b.candidate != 1} == {3}


def test_a_failing_baseline_is_inconclusive_for_every_candidate(run: Run) -> None:
    found = run({}, {}, baseline={"TF_STUB_FAULT": f"slice {LOOP} crash"}, names=(LOOP, FIT))
    verdicts = {(d.candidate, d.workload): d.verdict for d in decide(found)}
    assert {verdicts[c, LOOP] for c in (0, 1)} == {Verdict.INCONCLUSIVE}
    assert {verdicts[c, FIT] for c in (0, 1)} == {Verdict.PASS}


def test_a_missing_candidate_does_not_stop_the_others(run: Run) -> None:
    assert {block.candidate for block in run({}, None, {}).blocks} == {0, 2}


def test_the_baseline_determines_the_steps_once(run: Run) -> None:
    """A stub step takes 0.01 s: a slice of 0.03 s has 3 steps, even for a slower candidate."""
    found = run({"TF_STUB_RATIO": "3"})
    assert found.workloads[LOOP].steps == 3
    for block in found.blocks:
        assert block.samples[LOOP].baseline.values == pytest.approx([0.03] * 4)
        assert block.samples[LOOP].candidate.values == pytest.approx([0.09] * 4)


def test_a_slice_can_consist_of_interleaved_calls(
    python: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two sides alternate call by call, and their sums form the pair."""
    asked: list[tuple[str, int]] = []
    ask = Workers.slice

    def watched(self: Workers, place: int, workload: str, steps: int) -> object:
        asked.append(("baseline" if place == BASE else "candidate", steps))
        return ask(self, place, workload, steps)

    monkeypatch.setattr(Workers, "slice", watched)
    calls = {LOOP: {"baseline": (5, 5), "candidate": (6, 5)}}
    task = BlockTask({0: [catalogue.WORKLOADS[LOOP]]}, {0: 0})
    sides = {BASE: Interpreter(python, {}), 0: Interpreter(python, {})}
    (measured,) = measure_blocks([task], replace(bench, call_steps=calls), sides)
    samples = measured.block.samples[LOOP]
    assert measured.steps == {LOOP: 10}
    assert samples.baseline.values == pytest.approx([0.10] * 4)
    assert samples.candidate.values == pytest.approx([0.11] * 4)
    forth = [("baseline", 5), ("candidate", 6), ("baseline", 5), ("candidate", 5)]
    back = [("candidate", 6), ("baseline", 5), ("candidate", 5), ("baseline", 5)]
    assert asked[-16:] == [*forth, *back] * 2


def test_scheduling_is_reported_by_workloads_with_default_threads(run: Run) -> None:
    """Workloads with an explicit thread count are not pinned and report other scheduling."""
    found = run({}, names=(LOOP, "fit[b128,t2]"))
    assert found.baseline.versions["scheduling"] == "default"
    alone = run({}, names=("fit[b128,t2]",), budget_seconds=1e-3)
    assert dict(alone.baseline.versions) == {"tensorflow": "9.9.0"}


def test_samples_include_check_figures_and_losses(run: Run) -> None:
    samples = run({}).blocks[0].samples[LOOP]
    assert samples.baseline_check == samples.candidate_check == tuple(LOSSES)
    assert samples.candidate.losses == (0.5,) * 4


def test_a_decided_workload_is_not_measured_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the undecided workload continues."""
    real = decide

    def only_loop(found: Results) -> list[Decision]:
        return [
            replace(d, verdict=Verdict.INCONCLUSIVE) if d.workload == IMPORT else d
            for d in real(found)
        ]

    monkeypatch.setattr("bench.plans.speed.decide", only_loop)
    found = run({}, names=(LOOP, IMPORT))
    assert [set(block.samples) for block in found.blocks[:5]] == [{LOOP, IMPORT}] * 4 + [{IMPORT}]
    assert len(found.blocks) == 24  # the last look


def test_measuring_stops_if_the_budget_does_not_reach_a_look(run: Run) -> None:
    """Blocks without a following look would be wasted."""
    found = run({}, budget_seconds=1e-3)
    assert len(found.blocks) == 1
    assert only(found).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [("slice - hang", Verdict.FAIL), ("start - crash", Verdict.INCONCLUSIVE)],
)
def test_a_failure_is_retried_in_a_fresh_block_despite_the_budget(
    run: Run, fault: str, verdict: Verdict
) -> None:
    found = run({"TF_STUB_FAULT": fault}, budget_seconds=1e-3)
    assert (only(found).verdict, len(found.blocks)) == (verdict, 2)


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_an_environment_whose_worker_never_starts_is_missing(run: Run, side: str) -> None:
    """Accuracy and numerics agree: a failed start is not a wrong result."""
    broken = {"TF_STUB_FAULT": "start - crash"}
    found = run(broken) if side == "candidate" else run({}, baseline=broken)
    decision = only(found)
    assert (decision.verdict, len(found.blocks)) == (Verdict.INCONCLUSIVE, 2)
    who = "c0" if side == "candidate" else "the baseline"
    reason = f"{who} is not there: its worker cannot start: killed by SIGSEGV"
    assert missing(found, 0) == reason
    assert reason in decision.finding


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ("slice - crash", "killed by SIGSEGV"),
        ("slice - hang", "timed out after 0.3 s"),
        ("slice - raise", "ValueError: no such op"),
        ("slice - rubbish", "sent an invalid answer: not JSON"),
        ("slice - fewer", "sent an invalid answer: Object missing required field `value`"),
        ("prepare - list", "sent an invalid answer: a JSON object is expected, not list"),
        ("slice - kill", "killed by SIGKILL"),
        ("slice - stop", "timed out after 0.3 s, stopped by a signal"),
        ("slice - slow", "timed out after 0.3 s, still computing"),
        ("prepare - nan", "computes nan instead of 2.3"),
        ("prepare - half", "gives 10 check figures instead of 20"),
    ],
)
def test_a_candidate_with_faults_in_two_blocks_fails(run: Run, fault: str, finding: str) -> None:
    found = run({"TF_STUB_FAULT": fault, "TF_STUB_RATIO": "0.5"})
    decision = only(found)
    assert (decision.verdict, len(found.blocks)) == (Verdict.FAIL, 2)
    assert finding in decision.finding


@pytest.mark.parametrize(
    "fault", ["start - crash", "slice - hang", "prepare - nan", "slice - text", "start - null"]
)
def test_a_baseline_with_faults_is_inconclusive(run: Run, fault: str) -> None:
    found = run({}, baseline={"TF_STUB_FAULT": fault})
    assert only(found).verdict is Verdict.INCONCLUSIVE
    assert "baseline" in only(found).finding
    assert len(found.blocks) == 2


def test_a_crash_in_one_workload_keeps_the_samples_of_others(run: Run) -> None:
    """This includes the block of the crash."""
    found = run({"TF_STUB_FAULT": f"slice {FIT} crash"}, names=(LOOP, FIT, "fit_call"))
    assert set(found.blocks[0].samples) == {LOOP, "fit_call"}
    verdicts = {name: decision.verdict for name, decision in decided(found).items()}
    assert verdicts == {LOOP: Verdict.PASS, FIT: Verdict.FAIL, "fit_call": Verdict.PASS}
    (failure,) = found.blocks[0].failures
    assert failure.output.endswith("Fatal: the sky has fallen")


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ("crash", "killed by SIGSEGV"),
        ("hang", "timed out after 0.3 s"),
        ("raise", "ValueError: no such op"),
        ("text", "sent an invalid answer: Expected `float`, got `str`"),
    ],
)
def test_a_fault_during_turns_is_attributed_to_its_side(run: Run, fault: str, finding: str) -> None:
    settings = {"TF_STUB_FAULT": f"slice {FIT} {fault}"}
    found = run(settings, names=(FIT, "fit_call"))
    verdicts = {name: decision.verdict for name, decision in decided(found).items()}
    assert verdicts == {FIT: Verdict.FAIL, "fit_call": Verdict.PASS}
    assert finding in decided(found)[FIT].finding
    baseline = run({}, baseline=settings, names=(FIT,))
    assert only(baseline).verdict is Verdict.INCONCLUSIVE


def test_each_number_of_threads_and_devices_has_workers_of_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices and threads cannot change once TensorFlow has started."""
    asked: list[tuple[str, object, object]] = []
    send = Worker.send

    def watched(self: Worker, do: str, **more: object) -> None:
        if do == "start":
            asked.append((do, more["threads"], more["logical_cpus"]))
        if do == "prepare":
            asked.append((do, more["workload"], more["arguments"]))
        send(self, do, **more)

    monkeypatch.setattr(Worker, "send", watched)
    mirrored = "fit[b128,mirrored2]"
    run({}, names=(LOOP, mirrored, "fit[b128,t2]"), budget_seconds=1e-3)
    assert asked[::2] == asked[1::2]  # baseline and candidate
    assert asked[::2] == [
        *(("start", 1, 1), ("prepare", LOOP, {"batch_size": 128})),
        *(("start", 2, 1), ("prepare", "fit[b128,t2]", {"batch_size": 128})),
        *(("start", 2, 2), ("prepare", mirrored, {"batch_size": 128, "replicas": 2})),
    ]


def test_several_machines_measure_the_blocks_to_the_next_look(run: Run) -> None:
    """The first block fixes the steps of a slice; the budget counts the time of all machines."""
    candidate = {"TF_STUB_RATIO": "1.031"}  # undecided at the first looks
    found = replace(run(candidate, budget_seconds=1e-3), complete=False)
    one = found.blocks[0]
    plan = Plan(({LOOP: catalogue.WORKLOADS[LOOP]},))

    def planned(
        numbers: list[int], at_once: int, budget_blocks: float = 100.0
    ) -> list[tuple[int, int]]:
        blocks = tuple(replace(one, number=number) for number in numbers)
        state = replace(found, blocks=blocks)
        planned = replace(plan, budget_seconds=budget_blocks * one.seconds)
        tasks = next_blocks(planned, state, [0], at_once)
        return [(task.numbers[0], task.turn) for task in tasks]

    assert planned([], 3) == [(0, 0)]
    assert planned([0], 1) == [(1, 1)]
    assert planned([0], 2) == [(1, 1), (2, 2)]
    assert planned([0], 9) == [(1, 1), (2, 2), (3, 3)]
    assert planned([0, 2, 1], 9) == [(3, 3)]  # a cluster may end them in another order
    assert planned([0], 9, 3.3) == [(1, 1), (2, 2), (3, 3)]
    assert planned([0], 9, 3.0) == []


def test_first_step_is_measured_before_other_workloads_are_built(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = Workers.ask

    def watched(self: Workers, place: int, do: str, **more: object) -> object:
        asked.append(do)
        return ask(self, place, do, **more)

    monkeypatch.setattr(Workers, "ask", watched)
    found = run({}, names=(LOOP, "first_step"))
    assert all(len(block.samples["first_step"].baseline.values) == 1 for block in found.blocks)
    assert [do for do in asked if do != "move"][:2] == ["first_step"] * 2


def test_probes_give_one_sample_per_side(run: Run) -> None:
    found = run({}, names=(IMPORT, "peak_memory"))
    for samples in found.blocks[0].samples.values():
        assert len(samples.baseline.values) == len(samples.candidate.values) == 1


def test_threads_are_counted_with_memory_growth(run: Run) -> None:
    found = run({}, names=("memory_growth",))
    samples = found.blocks[0].samples["memory_growth"]
    assert samples.baseline.threads == samples.candidate.threads == (12,)
    said = dict(how_measured(found))
    assert "12" in said["Threads after memory_growth"]


def test_ctrl_c_returns_finished_measurements(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes the finished workloads of the interrupted block."""
    kept: list[Results] = []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.measure.blocks.time_import", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run({}, names=(LOOP, IMPORT), on_block=lambda found, *_: kept.append(found))
    assert [set(block.samples) for block in kept[-1].blocks] == [{LOOP}]
    assert not kept[-1].complete


def test_a_disturbed_block_is_repeated_but_at_most_one_in_three(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.measure.machine.disturbances", lambda *_: ("a storm",))
    found = run({})
    assert [block.number for block in found.blocks] == [0, 0, 1, 2, 3]
    assert only(found).verdict is Verdict.PASS


def test_a_disturbed_block_is_not_repeated_if_that_prevents_the_look(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget of 290 s has room for four blocks of 70 s, but not five."""
    blocks = BlockRecorder.blocks

    def stormy(self: BlockRecorder, quickest: float | None = None) -> list[Block]:
        done = blocks(self, quickest)
        return [replace(block, seconds=70.0, disturbed=("a storm",)) for block in done]

    monkeypatch.setattr(BlockRecorder, "blocks", stormy)
    found = run({}, budget_seconds=290)
    assert [block.number for block in found.blocks] == [0, 1, 2, 3]
    assert only(found).verdict is Verdict.PASS


@pytest.mark.parametrize(("budget_seconds", "blocks"), [(330, 4), (320, 1)])
def test_later_blocks_are_assumed_shorter_than_the_first(
    run: Run, monkeypatch: pytest.MonkeyPatch, budget_seconds: float, blocks: int
) -> None:
    """First block 100 s, later ones three quarters of that: 325 s until the first look."""
    measured = BlockRecorder.blocks

    def shorter(self: BlockRecorder, quickest: float | None = None) -> list[Block]:
        done = measured(self, quickest)
        return [replace(block, seconds=75.0 if block.number else 100.0) for block in done]

    monkeypatch.setattr(BlockRecorder, "blocks", shorter)
    assert len(run({}, budget_seconds=budget_seconds).blocks) == blocks


def test_the_workload_order_changes_by_block_but_not_by_run(run: Run) -> None:
    names = (LOOP, FIT, "fit_call", "predict[b512]")

    def orders() -> list[list[str]]:
        found = run({}, names=names)
        return [list(block.samples) for block in found.blocks]

    first = orders()
    assert len({tuple(order) for order in first}) > 1
    assert orders() == first


def test_a_second_session_resumes(python: Path, bench: Bench) -> None:
    specs = {LOOP: catalogue.WORKLOADS[LOOP]}
    stub = Interpreter(python, {})
    plan = Plan((specs,), budget_seconds=1e-3)
    first = speed.run(plan, stub, [stub], bench, nothing_measured((LOOP,)), lambda *_: None)
    assert len(first.blocks) == 1
    plan = replace(plan, budget_seconds=1e6)
    second = speed.run(plan, stub, [stub], bench, first, lambda *_: None)
    assert [block.number for block in second.blocks] == list(range(4))


def test_at_most_one_worker_per_side_is_alive(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    live, most = 0, 0
    start, close = Worker.__init__, Worker.close

    def counted_start(self: Worker, *arguments: object, **options: object) -> None:
        nonlocal live, most
        live += 1
        most = max(most, live)
        start(self, *arguments, **options)  # type: ignore[arg-type]

    def counted_close(self: Worker) -> None:
        nonlocal live
        live -= 1
        close(self)

    monkeypatch.setattr(Worker, "__init__", counted_start)
    monkeypatch.setattr(Worker, "close", counted_close)
    run({"TF_STUB_FAULT": "slice - crash"}, {}, names=(LOOP, "peak_memory", "first_step"))
    assert (live, most) == (0, 3)


def test_memory_of_the_parent_process_does_not_grow(run: Run) -> None:
    """Growth is below 20 MiB from block 2 to block 20: five candidates, four blocks each."""
    held: list[int] = []

    def note(*_: object) -> None:
        status = Path("/proc/self/status").read_text()
        held.append(int(status.split("VmRSS:")[1].split()[0]) // 1024)

    run(*5 * [{}], on_block=note)
    assert len(held) == 20
    assert held[19] - held[1] < 20
