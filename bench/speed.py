"""A comparison of training speed, from its options to its outcomes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.engine import pursue
from bench.environments.builds import Built, build_candidates
from bench.environments.commands import EnvironmentProblem
from bench.measure import machine
from bench.measure.blocks import MeasuredBlock, measure_blocks
from bench.measure.cluster.executor import Cluster, connected
from bench.measure.cluster.roster import MACHINE
from bench.measure.processes import Interpreter, interpreter_of, private_folder, running_on
from bench.measure.worker_files import prepare_folder
from bench.measure.workers import BASE, Bench, bench_here
from bench.plans.speed import (
    Plan,
    Terms,
    next_blocks,
    read_terms,
    terms_to_resume,
    unlike_terms,
)
from bench.records import results
from bench.records.blocks import Block, BlockTask, Results, WorkloadTerms
from bench.records.sides import difference, named_sides, with_told
from bench.report.comparison import comparison_html, summary_text, table_text
from bench.report.pages import markdown, message_html
from bench.report.words import progress_line
from bench.verdicts import speed_error_rates
from bench.verdicts.faults import missing
from bench.verdicts.outcomes import Outcome
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed import decide
from lenet5.data import Dataset, Subset
from lenet5.devices import CPU, read_device
from lenet5.errors import InputError
from lenet5.printable import printable
from lenet5.run_directory import writing

_BAR = "{desc} |{bar}| {n:.0f} of at most {total:.0f} s"

_OF_THE_FILE = ("baseline", "candidate", "results", "workloads", "margin", "threads", "device")

OnResults = Callable[[Results, Block | None], None]
NextTasks = Callable[[Plan, Results, Iterable[int]], Sequence[BlockTask]]


class SpeedExperiment:
    """Experiment of `pytest bench --baseline`; `bench.plugin` has tests and exit status."""

    def __init__(
        self,
        terms: Terms,
        results_path: Path,
        before: Results | None = None,
        cluster: str | None = None,
    ) -> None:
        """Prepares a comparison.

        Args:
            terms: terms of the comparison.
            results_path: ledger, which receives every finished block.
            before: results to resume.
            cluster: address of the cluster's scheduler; None: this machine measures.
        """
        self._cluster = cluster
        self._terms = terms
        self.results_path = results_path
        self._before = before
        self._found: Results | None = None
        self._stopped = ""

    @classmethod
    def of_options(cls, option: Any, project: Path) -> SpeedExperiment:
        """Reads pytest's options.

        Raises:
            InputError: an option is invalid, or this machine has no such GPU.
        """
        budget = {} if option.budget is None else {"budget_seconds": option.budget}
        if option.resume is not None:
            for name in _OF_THE_FILE:
                if getattr(option, name) is not None:
                    raise InputError(f"--resume takes --{name} from its file: remove it")
            before = results.read(option.resume)
            terms = terms_to_resume(before, **budget)
            check_device(terms.device, option.cluster)
            return cls(terms, option.resume, before, option.cluster)
        terms = read_terms(
            option.baseline,
            option.candidate or (),
            workloads=option.workloads or "gated",
            margin=option.margin,
            **budget,
            threads=1 if option.threads is None else option.threads,
            device=read_device(option.device or CPU.name, {}).name,
            project=project,
        )
        check_device(terms.device, option.cluster)
        path = option.results or results.default_results(project / "reports")
        interrupted = results.unfinished(path)
        if interrupted is not None and (unlike := unlike_terms(interrupted, terms)):
            told = f"holds an unfinished comparison with {unlike}: choose another --results"
            raise InputError(f"{path}: {told}")
        return cls(terms, path, interrupted, option.cluster)

    def header(self) -> str:
        """Returns the terms in one line."""
        terms = self._terms
        others = ", ".join(request.text for request in terms.candidates)
        kept = f" ({len(self._before.blocks)} blocks are kept)" if self._before else ""
        where = "" if terms.device == CPU.name else f" on {terms.device}"
        return (
            f"comparison: {others} against {terms.baseline.text}{where}, margin {terms.margin:g}, "
            f"budget {terms.budget_seconds:g} s per candidate, "
            f"records {self.results_path}{kept}"
        )

    def tests(self) -> list[tuple[Hashable, str]]:
        """Returns a test for each workload of each candidate."""
        return [
            ((place, name), f"{name}-{request.text}")
            for place, request in enumerate(self._terms.candidates)
            for name in self._terms.workloads
        ]

    def run(self, selected: Sequence[Hashable], dataset: Dataset, cache: Path) -> None:
        """Builds the environments, measures the selected tests, and stores every finished block.

        Raises:
            InputError: the results to resume differ in conditions, another process appends to
                them, or the disk is full.
            KeyboardInterrupt: after the last block was stored.
        """
        terms = self._terms
        wanted = [
            [name for name in terms.workloads if (place, name) in selected]
            for place in range(len(terms.candidates))
        ]
        names = {name for each in wanted for name in each}
        workloads = {name: spec for name, spec in terms.workloads.items() if name in names}
        terms = replace(terms, workloads=workloads)
        if self._before is not None and not set(workloads) <= set(self._before.workloads):
            raise InputError(f"{self.results_path}: holds a comparison of fewer workloads")
        budget = terms.budget_seconds * sum(map(bool, wanted))
        with (
            results.keeping(self.results_path, cache, self._before) as keep,
            connected(self._cluster, terms.device) as cluster,
            tqdm(total=budget, disable=None, unit="s", bar_format=_BAR, leave=False) as bar,
        ):

            def on_results(found: Results, block: Block | None) -> None:
                self._found = found
                keep(found)
                if block is not None:
                    bar.update(min(block.seconds, budget - bar.n))
                    line = progress_line(found, block, decide(found))
                    bar.set_description_str(line)
                    if bar.disable:
                        say(line)

            built = build_candidates((terms.baseline, *terms.candidates), cache, say)
            measure(
                *(terms, built, wanted, dataset.training, on_results),
                before=self._before,
                cluster=cluster,
            )

    def outcomes(self) -> Mapping[Any, Outcome]:
        """Returns the outcome of every selected workload and candidate."""
        if self._found is None:
            told = self._stopped or "nothing was measured"
            return {key: Outcome(Verdict.INCONCLUSIVE, told) for key, _ in self.tests()}
        return outcomes_of(self._found, self._stopped)

    def text(self) -> str:
        """Returns the table of verdicts."""
        if self._found is None:
            return f"INCONCLUSIVE: {self._stopped or 'nothing was measured'}"
        table = table_text(self._found, decide(self._found))
        return f"{self._stopped}\n{table}" if self._stopped else table

    def summary(self, cache: Path) -> str:
        """Returns the table of verdicts for a CI job's page."""
        if self._found is None:
            return markdown("Training speed: INCONCLUSIVE", self.text())
        alarms = speed_error_rates.false_alarms(self._found, cache)
        return summary_text(self._found, decide(self._found), false_alarms=alarms)

    def html(self, cache: Path) -> str:
        """Returns the head of the HTML report."""
        if self._found is None:
            return message_html(self.text())
        alarms = speed_error_rates.false_alarms(self._found, cache)
        return comparison_html(self._found, decide(self._found), false_alarms=alarms)

    def stopped(self, reason: str) -> None:
        """Sets the reason for an early end."""
        self._stopped = reason


def check_device(name: str, cluster: str | None = None) -> None:
    """Rejects a GPU that this machine lacks, before anything is built.

    Args:
        name: `cpu` or `gpu:N`.
        cluster: address of a cluster that measures instead of this machine.

    Raises:
        InputError: there is no such GPU, or NVIDIA's library does not describe it.
    """
    if cluster is None and name != CPU.name:
        machine.describe(device=read_device(name, os.environ))


def outcomes_of(found: Results, stopped: str = "") -> dict[tuple[int, str], Outcome]:
    """Returns outcomes by candidate and workload; open ones include the reason for a stop."""
    return {
        (d.candidate, d.workload): Outcome(
            d.verdict,
            "; ".join(filter(None, (d.finding, stopped * (d.verdict is Verdict.INCONCLUSIVE)))),
            d.terms.gated,
            not missing(found, d.candidate),
            {"ratio": d.ratio},
        )
        for d in decide(found)
    }


def say(text: str) -> None:
    """Prints a line above a progress bar."""
    tqdm.write(printable(text))
    sys.stdout.flush()


def run(
    plan: Plan,
    baseline: Interpreter | Built,
    candidates: Sequence[Interpreter | Built | None],
    bench: Bench,
    results: Results,
    on_results: OnResults,
    *,
    next_tasks: NextTasks = next_blocks,
    execute: Callable[..., Generator[MeasuredBlock, None, None]] = measure_blocks,
) -> Results:
    """Measures blocks until the plan has none.

    Args:
        plan: workloads, budget and seed.
        baseline: interpreter of the baseline; for a cluster, the built environment.
        candidates: those of the candidates; None for a failed build.
        bench: settings for the measurement.
        results: results without blocks, or with blocks to resume.
        on_results: stores all results so far, after each block; also with a partial block after
            Ctrl-C.
        next_tasks: next tasks of the plan.
        execute: executor, as `measure_blocks`.

    Returns:
        The results, marked complete.

    Raises:
        InputError: a worker's report contradicts an earlier worker's.
        KeyboardInterrupt: after `on_results` received all measurements.
    """
    there = {place: side for place, side in enumerate(candidates) if side is not None}

    def keep(results: Results, measured: MeasuredBlock) -> Results:
        results = with_block(results, measured)
        on_results(results, measured.block)
        return results

    found = pursue(
        results,
        lambda results: next_tasks(plan, results, there),
        lambda tasks: execute(tasks, bench, {BASE: baseline, **there}),
        keep,
    )
    return replace(found, complete=True)


def with_block(results: Results, measured: MeasuredBlock) -> Results:
    """Returns results with one more block, and the versions that its workers reported.

    Raises:
        InputError: a worker's report contradicts an earlier worker's.
    """
    block, said, steps = measured.block, measured.said, measured.steps
    workloads = {
        name: replace(terms, steps=steps.get(name, 0)) for name, terms in results.workloads.items()
    }
    candidates = list(results.candidates)
    if block.candidate in said:
        told = with_told(candidates[block.candidate], said[block.candidate])
        candidates[block.candidate] = told
    baseline = results.baseline
    if BASE in said:
        baseline = with_told(baseline, said[BASE])
    return replace(
        results,
        workloads=workloads,
        baseline=baseline,
        candidates=tuple(candidates),
        blocks=(*results.blocks, block),
    )


def measure(
    terms: Terms,
    built: Sequence[Built | EnvironmentProblem],
    wanted: Sequence[Sequence[str]],
    images: Subset,
    on_results: OnResults,
    before: Results | None = None,
    *,
    next_tasks: NextTasks | None = None,
    cluster: Cluster | None = None,
) -> Results:
    """Runs the experiment in a temporary private folder.

    Args:
        terms: terms of the comparison.
        built: baseline, then candidates.
        wanted: names of the workloads to measure, by candidate.
        images: MNIST's training images.
        on_results: receives the results at the start, after every block, and at the end.
        before: results to resume.
        next_tasks: next tasks of the plan; None: up to a look, as many as there are machines.
        cluster: cluster that measures; None: this machine.

    Raises:
        InputError: `before` has another machine, code or environment, the disk is full, or the
            cluster cannot measure.
        KeyboardInterrupt: after `on_results` received all measurements.
    """
    with private_folder() as folder:
        with writing(folder):
            code = prepare_folder(folder, images)
        where = None
        if cluster is not None:
            where = cluster.machine_for(MACHINE, None if before is None else before.machine)
        begun = _asked(empty_results(terms, built, code, where), wanted)
        if before is not None:
            begun = _resumed(before, begun)
        begun = replace(begun, complete=not isinstance(built[0], Built))
        on_results(begun, None)
        if begun.complete:
            return begun
        plan = Plan(
            specs=tuple({name: terms.workloads[name] for name in names} for names in wanted),
            budget_seconds=terms.budget_seconds,
            seed=terms.seed,
        )
        # A cluster's machines have the device, and this one need not.
        bench = bench_of(terms if cluster is None else replace(terms, device=CPU.name), folder)
        sides: list[Any] = [side if isinstance(side, Built) else None for side in built]
        if cluster is None:
            device = bench.device
            sides = [None if side is None else interpreter_of(side, device) for side in sides]
        # This process avoids the core shared by both sides.
        with running_on(() if cluster else bench.start_cores[1]):
            found = run(
                *(plan, sides[0], sides[1:], bench, begun, on_results),
                next_tasks=next_tasks
                or partial(next_blocks, at_once=cluster.machines() if cluster else 1),
                execute=cluster.measure_blocks if cluster else measure_blocks,
            )
        on_results(found, None)
        return found


def _asked(empty: Results, wanted: Sequence[Sequence[str]]) -> Results:
    """Marks the unwanted workloads of each candidate; they have no verdict."""
    candidates = [
        replace(side, unwanted=tuple(name for name in empty.workloads if name not in names))
        for side, names in zip(empty.candidates, wanted, strict=True)
    ]
    return replace(empty, candidates=tuple(candidates))


def _resumed(before: Results, now: Results) -> Results:
    """Returns the earlier results under the current terms."""
    results.check_alike(before, now)
    for one, other in zip(before.candidates, now.candidates, strict=True):
        was_there = not (one.problem or other.problem)
        if was_there and (unlike := difference(one, other)):
            told = f"{one.label} differs from the measured environment"
            raise InputError(f"{told}: {other.request} has changed: {unlike}")
    candidates = [
        other if one.problem or other.problem else replace(one, unwanted=other.unwanted)
        for one, other in zip(before.candidates, now.candidates, strict=True)
    ]
    return replace(before, options=now.options, candidates=tuple(candidates), complete=False)


def empty_results(
    terms: Terms,
    built: Sequence[Built | EnvironmentProblem],
    code: str,
    where: Mapping[str, Any] | None = None,
) -> Results:
    """Returns results without blocks: environments, machine, options and workloads' terms.

    Args:
        terms: terms of the comparison.
        built: baseline, then candidates.
        code: SHA-256 of the workers' files.
        where: machine that measures; None: this one.
    """
    if where is None:
        where = machine.describe(device=read_device(terms.device, os.environ))
    baseline, *candidates = named_sides((terms.baseline, *terms.candidates), built)
    return Results(
        machine=where,
        code=code,
        options={
            "budget_seconds": terms.budget_seconds,
            "device": terms.device,
            "threads": terms.threads,
            "pinned": terms.threads == 1 and terms.device == CPU.name,
            "pair_seconds": terms.pair_seconds,
            "seed": terms.seed,
        },
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        baseline=baseline,
        candidates=tuple(candidates),
        workloads={
            name: WorkloadTerms(
                version=spec.version,
                unit=spec.unit,
                margin=spec.margin or terms.margin,
                gated=spec.gated,
                is_difference=spec.is_difference,
                threads=spec.threads or terms.threads,
                own_budget_seconds=spec.own_budget_seconds,
            )
            for name, spec in terms.workloads.items()
        },
        clock_seconds=time.get_clock_info("perf_counter").resolution,
    )


def bench_of(terms: Terms, folder: Path) -> Bench:
    """Returns the settings of measuring on this machine, with the workers' files in a folder."""
    return bench_here(
        folder,
        threads=terms.threads,
        pair_seconds=terms.pair_seconds,
        call_steps=terms.call_steps,
        device=read_device(terms.device, os.environ),
    )
