"""A comparison of accuracy over seeds, from its options to its outcomes."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.environments.builds import build_candidates
from bench.measure import capacity, machine
from bench.measure.cluster.executor import connected
from bench.plans.seeds import AccuracyTerms, read_accuracy_terms
from bench.records import results
from bench.records.trainings import (
    KIND,
    Comparison,
    Trainings,
    keeping,
    read_reference,
    unfinished,
)
from bench.report.accuracy import accuracy_html, accuracy_table, headline, notes
from bench.report.pages import markdown, message_html
from bench.seeds import train_comparison
from bench.verdicts.accuracy import AccuracyDecision, decide_all, finding
from bench.verdicts.outcomes import Outcome
from bench.verdicts.sequential import Verdict
from lenet5.data import Dataset, Subset
from lenet5.devices import CPU, read_device
from lenet5.errors import InputError


class AccuracyExperiment:
    """Experiment of `pytest bench --seeds`; `bench.plugin` has tests and exit status."""

    def __init__(
        self,
        terms: AccuracyTerms,
        results_path: Path,
        processes: int,
        before: Sequence[Trainings] | None = None,
        cluster: str | None = None,
    ) -> None:
        """Prepares a comparison.

        Args:
            terms: terms of the comparison.
            results_path: ledger, which receives every finished seed.
            processes: number of parallel trainings.
            before: sets of an interrupted comparison of the same terms.
            cluster: address of the cluster's scheduler; None: this machine trains.
        """
        self._cluster = cluster
        self._before = before
        self._terms = terms
        self.results_path = results_path
        self._processes = processes
        self._sets: list[Trainings] = []
        self._places: list[int] = []
        self._test: Subset | None = None
        self._stopped = ""

    @classmethod
    def of_options(cls, option: Any, project: Path) -> AccuracyExperiment:
        """Reads pytest's options.

        Raises:
            InputError: an option is invalid, or this machine lacks the GPU and there is no cluster.
        """
        if option.threads is not None:
            raise InputError("--seeds uses one thread per process: remove --threads")
        if option.seed is not None:
            raise InputError("--seeds trains seeds 0, 1, 2 and so on: remove --seed")
        if option.cluster is not None and option.processes is not None:
            raise InputError("--cluster trains on all cores of its workers: remove --processes")
        terms = read_accuracy_terms(
            option.baseline,
            option.candidate or (),
            recipe=option.recipe or "fast",
            engine=option.engine or "graph",
            seeds=option.seeds,
            asked_margin=option.accuracy_margin,
            device=read_device(option.device or CPU.name, {}).name,
        )
        device = CPU if option.cluster else read_device(terms.device, os.environ)
        machine.describe(device)  # before anything is built
        path = option.results or results.default_results(project / "reports", "accuracy")
        interrupted = unfinished(path)
        if interrupted is None:
            results.check_new(path, KIND)
            before = None
        else:
            before, comparison = interrupted
            if comparison != terms.comparison:
                told = "holds an unfinished comparison with other terms: choose another --results"
                raise InputError(f"{path}: {told}")
        processes = capacity.processes(option.processes, device)
        return cls(terms, path, processes, before, option.cluster)

    def header(self) -> str:
        """Returns the terms in one line."""
        terms = self._terms
        others = ", ".join(request.text for request in terms.candidates)
        count = sum(len(item.seeds) for item in self._before or ())
        kept = f" ({count} seeds are kept)" if self._before else ""
        against = terms.baseline.text if terms.baseline else "the stored reference"
        device = "" if terms.device == CPU.name else f"device {terms.device}, "
        return (
            f"accuracy: {others} against {against}, recipe {terms.recipe.name}, "
            f"engine {terms.engine}, up to {terms.seeds} seeds "
            f"({'paired' if terms.comparison.paired else 'unpaired'}), "
            f"{device}margin {terms.margin_points:g} points, records {self.results_path}{kept}"
        )

    def tests(self) -> list[tuple[Hashable, str]]:
        """Returns a test for each candidate."""
        return [
            (place, f"{self._terms.recipe.name}-{request.text}")
            for place, request in enumerate(self._terms.candidates)
        ]

    def run(self, selected: Sequence[Hashable], dataset: Dataset, cache: Path) -> None:
        """Builds the environments, trains the selected candidates, and stores every finished seed.

        Raises:
            InputError: the reference is missing, the results to resume differ in conditions,
                another process appends to them, or the disk is full.
            KeyboardInterrupt: after the last seed was stored.
        """
        self._places = [
            place for place, _ in enumerate(self._terms.candidates) if place in selected
        ]
        self._test = dataset.test
        candidates = tuple(self._terms.candidates[place] for place in self._places)
        terms = replace(self._terms, candidates=candidates)
        reference = None
        if terms.baseline is None:
            reference = read_reference(terms.recipe.name, terms.engine, else_give="--baseline")
        requests = [*filter(None, [terms.baseline]), *terms.candidates]
        total = len(requests) * terms.seeds
        with (
            keeping(self.results_path, cache, terms.comparison, self._before) as keep,
            connected(self._cluster, terms.device) as cluster,
            tqdm(total=total, disable=None, unit="seed", leave=False) as bar,
        ):

            def on_sets(sets: Sequence[Trainings]) -> None:
                self._sets = list(sets)
                keep(sets)
                own = sets if reference is None else sets[1:]
                bar.update(sum(len(item.seeds) for item in own) - bar.n)

            sets = train_comparison(
                terms,
                build_candidates(requests, cache, tqdm.write),
                reference,
                dataset,
                on_sets,
                processes=self._processes,
                before=self._before,
                cluster=cluster,
            )
            keep(sets, complete=True)

    def outcomes(self) -> Mapping[Any, Outcome]:
        """Returns the outcome of every selected candidate."""
        if not self._sets:
            told = self._stopped or "nothing was trained"
            return {key: Outcome(Verdict.INCONCLUSIVE, told) for key, _ in self.tests()}
        found = outcomes_of(self._sets, self._terms.comparison, self._stopped)
        return dict(zip(self._places, found, strict=True))

    def text(self) -> str:
        """Returns the table of verdicts."""
        if not self._sets:
            return f"INCONCLUSIVE: {self._stopped or 'nothing was trained'}"
        findings = [f"{o.word}: {o.finding}" for o in self.outcomes().values()]
        findings[:0] = [self._stopped] if self._stopped else []
        findings += notes(self._sets)
        return "\n".join([*findings, "", str(accuracy_table(self._sets, self._decisions()))])

    def summary(self, cache: Path) -> str:  # noqa: ARG002 - as for a comparison of speed
        """Returns the table of verdicts for a CI job's page."""
        if not self._sets:
            return markdown("Accuracy over seeds: INCONCLUSIVE", self.text())
        return markdown(headline(self._sets, self._decisions()), self.text())

    def html(self, cache: Path) -> str:  # noqa: ARG002 - as for a comparison of speed
        """Returns the head of the HTML report."""
        if not self._sets or self._test is None:
            return message_html(self.text())
        paired = self._terms.comparison.paired
        return accuracy_html(self._sets, self._decisions(), self._test, paired=paired)

    def stopped(self, reason: str) -> None:
        """Sets the reason for an early end."""
        self._stopped = reason

    def _decisions(self) -> list[AccuracyDecision]:
        return decide_all(self._sets, self._terms.comparison)


def outcomes_of(sets: Sequence[Trainings], terms: Comparison, stopped: str = "") -> list[Outcome]:
    """Returns the outcome of each candidate; open ones include the reason for a stop."""
    baseline, *candidates = sets
    found = []
    for d, candidate in zip(decide_all(sets, terms), candidates, strict=True):
        said = finding(d, candidate, baseline, paired=terms.paired)
        figures = {
            f"{name}_points": getattr(d, name)
            for name in ("difference", "low", "high", "detectable")
        }
        found.append(
            Outcome(
                d.verdict,
                "; ".join(filter(None, (said, stopped * (d.verdict is Verdict.INCONCLUSIVE)))),
                is_there=not (candidate.problem or baseline.problem),
                figures={**figures, "seeds": d.seeds},
            )
        )
    return found
