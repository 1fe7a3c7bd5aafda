"""A comparison of training speed, from its options to its outcomes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.engine import pursue
from bench.environments.builds import Built, EnvironmentProblem, build_candidates
from bench.measure import machine
from bench.measure.blocks import MeasuredBlock, measure_blocks
from bench.measure.processes import Interpreter, interpreter_of, private_folder, running_on
from bench.measure.worker_files import prepare_folder
from bench.measure.workers import BASE, Bench
from bench.plans.speed import Plan, Terms, next_blocks, read_terms, terms_to_resume
from bench.records import results
from bench.records.blocks import Block, Results, WorkloadTerms
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
from lenet5.errors import InputError
from lenet5.run_directory import writing

_BAR = "{desc} |{bar}| {n:.0f} of at most {total:.0f} s"

OnResults = Callable[[Results, Block | None], None]


class SpeedExperiment:
    """What `pytest bench --baseline` measures; `bench.plugin` has the tests and the status."""

    def __init__(self, terms: Terms, results_path: Path, before: Results | None = None) -> None:
        """Prepares a comparison.

        Args:
            terms: of the comparison.
            results_path: where every block is kept as it comes.
            before: results to resume.
        """
        self._terms = terms
        self.results_path = results_path
        self._before = before
        self._found: Results | None = None
        self._stopped = ""

    @classmethod
    def of_options(cls, option: Any, project: Path) -> SpeedExperiment:
        """Reads the options of pytest.

        Raises:
            InputError: they make no sense.
        """
        budget = {} if option.budget is None else {"budget_seconds": option.budget}
        if option.resume is not None:
            for name in ("baseline", "candidate", "results", "workloads", "margin", "threads"):
                if getattr(option, name) is not None:
                    raise InputError(f"--resume takes --{name} from its file: leave it out")
            before = results.read(option.resume)
            return cls(terms_to_resume(before, **budget), option.resume, before)
        terms = read_terms(
            option.baseline,
            option.candidate or (),
            workloads=option.workloads or "gated",
            **({} if option.margin is None else {"margin": option.margin}),
            **budget,
            threads=1 if option.threads is None else option.threads,
            project=project,
        )
        path = option.results or results.default_results(project / "reports")
        results.check_new(path)
        return cls(terms, path)

    def header(self) -> str:
        """The terms, in one line."""
        terms = self._terms
        others = ", ".join(request.text for request in terms.candidates)
        return (
            f"comparison: {others} against {terms.baseline.text}, margin {terms.margin:g}, "
            f"budget {terms.budget_seconds:g} s a candidate, records {self.results_path}"
        )

    def tests(self) -> list[tuple[Hashable, str]]:
        """A test for each workload of each candidate."""
        return [
            ((place, name), f"{name}-{request.text}")
            for place, request in enumerate(self._terms.candidates)
            for name in self._terms.workloads
        ]

    def run(self, selected: Sequence[Hashable], dataset: Dataset, cache: Path) -> None:
        """Builds the environments and measures what was selected; keeps every block as it comes.

        Raises:
            InputError: the results to resume are not alike, or the disk is full.
            KeyboardInterrupt: after the last block was kept.
        """
        terms = self._terms
        wanted = [
            [name for name in terms.workloads if (place, name) in selected]
            for place in range(len(terms.candidates))
        ]
        names = {name for each in wanted for name in each}
        workloads = {name: spec for name, spec in terms.workloads.items() if name in names}
        terms = replace(terms, workloads=workloads)
        built = build_candidates((terms.baseline, *terms.candidates), cache, say)
        budget = terms.budget_seconds * sum(map(bool, wanted))
        with (
            results.keeping(self.results_path, cache, self._before) as keep,
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

            measure(terms, built, wanted, dataset.training, on_results, before=self._before)

    def outcomes(self) -> Mapping[Any, Outcome]:
        """Of every workload of every candidate that was selected."""
        if self._found is None:
            told = self._stopped or "nothing was measured"
            return {key: Outcome(Verdict.INCONCLUSIVE, told) for key, _ in self.tests()}
        return outcomes_of(self._found, self._stopped)

    def text(self) -> str:
        """The table of verdicts."""
        if self._found is None:
            return f"INCONCLUSIVE: {self._stopped or 'nothing was measured'}"
        table = table_text(self._found, decide(self._found))
        return f"{self._stopped}\n{table}" if self._stopped else table

    def summary(self, cache: Path) -> str:
        """The table of verdicts for a CI job's page."""
        if self._found is None:
            return markdown("Training speed: INCONCLUSIVE", self.text())
        alarms = speed_error_rates.false_alarms(self._found, cache)
        return summary_text(self._found, decide(self._found), false_alarms=alarms)

    def html(self, cache: Path) -> str:
        """The head of the HTML report."""
        if self._found is None:
            return message_html(self.text())
        alarms = speed_error_rates.false_alarms(self._found, cache)
        return comparison_html(self._found, decide(self._found), false_alarms=alarms)

    def stopped(self, reason: str) -> None:
        """Notes why measuring ended early."""
        self._stopped = reason


def outcomes_of(found: Results, stopped: str = "") -> dict[tuple[int, str], Outcome]:
    """Outcomes by candidate and workload; the open ones tell why measuring was stopped."""
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
    tqdm.write(text)
    sys.stdout.flush()


def run(
    plan: Plan,
    baseline: Interpreter,
    candidates: Sequence[Interpreter | None],
    bench: Bench,
    results: Results,
    on_results: OnResults,
) -> Results:
    """Measures until nothing is left to decide.

    Args:
        plan: what is to be decided.
        baseline: what the baseline's workers run with.
        candidates: theirs; None for one that could not be built.
        bench: where and how.
        results: without blocks; or with blocks, to go on from.
        on_results: called after each block with all results up to it, to be kept; also with what
            there is of a block when Ctrl-C ends it.

    Returns:
        The results, marked complete.

    Raises:
        InputError: a worker says otherwise of its environment than one before it.
        KeyboardInterrupt: after what was measured has been handed to `on_results`.
    """
    there = {place: side for place, side in enumerate(candidates) if side is not None}

    def keep(results: Results, measured: MeasuredBlock) -> Results:
        results = _with_block(results, measured)
        on_results(results, measured.block)
        return results

    found = pursue(
        results,
        lambda results: next_blocks(plan, results, there),
        lambda tasks: measure_blocks(tasks, bench, {BASE: baseline, **there}),
        keep,
    )
    return replace(found, complete=True)


def _with_block(results: Results, measured: MeasuredBlock) -> Results:
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
) -> Results:
    """Runs the experiment in a private folder that is removed afterwards.

    Args:
        terms: what is asked for.
        built: the baseline, then the candidates.
        wanted: by candidate, the names of the workloads to measure.
        images: MNIST's training images.
        on_results: is told of the results at the start, after every block, and at the end.
        before: results to go on from.

    Raises:
        InputError: those are of another machine, code or environment; or the disk is full.
        KeyboardInterrupt: after `on_results` was told of what there is.
    """
    with private_folder() as folder:
        with writing(folder):
            code = prepare_folder(folder, images)
        begun = _asked(empty_results(terms, built, code), wanted)
        if before is not None:
            begun = _resumed(before, begun)
        baseline, *candidates = built
        begun = replace(begun, complete=not isinstance(baseline, Built))
        on_results(begun, None)
        if not isinstance(baseline, Built):
            return begun
        plan = Plan(
            specs=tuple({name: terms.workloads[name] for name in names} for names in wanted),
            budget_seconds=terms.budget_seconds,
            seed=terms.seed,
        )
        bench = _bench(terms, folder)
        # This process stays off the core that both sides share.
        with running_on(bench.start_cores[1]):
            found = run(
                plan,
                interpreter_of(baseline),
                [interpreter_of(c) if isinstance(c, Built) else None for c in candidates],
                bench,
                begun,
                on_results,
            )
        on_results(found, None)
        return found


def _asked(empty: Results, wanted: Sequence[Sequence[str]]) -> Results:
    """Notes what was not asked of each candidate: there is no verdict on that."""
    candidates = [
        replace(side, unwanted=tuple(name for name in empty.workloads if name not in names))
        for side, names in zip(empty.candidates, wanted, strict=True)
    ]
    return replace(empty, candidates=tuple(candidates))


def _resumed(before: Results, now: Results) -> Results:
    """What was measured already, on the terms of now."""
    results.check_alike(before, now)
    for one, other in zip(before.candidates, now.candidates, strict=True):
        was_there = not (one.problem or other.problem)
        if was_there and (unlike := difference(one, other)):
            raise InputError(
                f"{one.label} is not what was measured: {other.request} has changed: {unlike}"
            )
    candidates = [
        other if one.problem or other.problem else replace(one, unwanted=other.unwanted)
        for one, other in zip(before.candidates, now.candidates, strict=True)
    ]
    return replace(before, options=now.options, candidates=tuple(candidates), complete=False)


def empty_results(terms: Terms, built: Sequence[Built | EnvironmentProblem], code: str) -> Results:
    """Results without blocks: environments, machine, options and the terms of each workload."""
    baseline, *candidates = named_sides((terms.baseline, *terms.candidates), built)
    return Results(
        machine=machine.describe(),
        code=code,
        options={
            "budget_seconds": terms.budget_seconds,
            "threads": terms.threads,
            "pinned": terms.threads == 1,
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
            )
            for name, spec in terms.workloads.items()
        },
        clock_seconds=time.get_clock_info("perf_counter").resolution,
    )


def _bench(terms: Terms, folder: Path) -> Bench:
    cores = machine.cores()
    pinned = terms.threads == 1
    return Bench(
        folder=folder,
        cores=cores[-1:] if pinned else cores,
        start_cores=(cores[-1:], cores[:1]) if pinned else (cores, cores),
        all_cores=cores,
        threads=terms.threads,
        pair_seconds=terms.pair_seconds,
        call_steps=terms.call_steps,
    )
