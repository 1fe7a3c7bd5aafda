"""A comparison of accuracy over seeds, from its options to its outcomes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.environments.builds import Built, EnvironmentProblem, build_candidates
from bench.measure import capacity, machine
from bench.measure.processes import interpreter_of, private_folder
from bench.measure.seeds import Job, train_seeds
from bench.measure.worker_files import prepare_training_folder
from bench.plans.seeds import AccuracyTerms, read_accuracy_terms, stages
from bench.records import results
from bench.records.sides import Side, named_sides
from bench.records.trainings import (
    Comparison,
    Trained,
    Trainings,
    differs,
    keeping,
    read_reference,
)
from bench.report.accuracy import accuracy_html, accuracy_table, headline
from bench.report.pages import markdown, message_html
from bench.verdicts.accuracy import AccuracyDecision, decide_all, finding
from bench.verdicts.outcomes import Outcome
from bench.verdicts.sequential import Verdict
from lenet5.data import Dataset, Subset, sha256_of
from lenet5.errors import InputError

OnSeed = Callable[[Sequence[Trainings]], None]


class AccuracyExperiment:
    """What `pytest bench --seeds` trains; `bench.plugin` has the tests, and the exit status."""

    def __init__(self, terms: AccuracyTerms, results_path: Path, processes: int) -> None:
        """Prepares a comparison.

        Args:
            terms: of the comparison.
            results_path: where every seed is kept as it comes.
            processes: trainings at a time.
        """
        self._terms = terms
        self.results_path = results_path
        self._processes = processes
        self._sets: list[Trainings] = []
        self._places: list[int] = []
        self._test: Subset | None = None
        self._stopped = ""

    @classmethod
    def of_options(cls, option: Any, project: Path) -> AccuracyExperiment:
        """Reads the options of pytest.

        Raises:
            InputError: they make no sense.
        """
        if option.threads is not None:
            raise InputError("--seeds trains with one thread a process: without --threads")
        if option.seed is not None:
            raise InputError("--seeds trains seeds 0, 1, 2 and so on: without --seed")
        terms = read_accuracy_terms(
            option.baseline,
            option.candidate or (),
            recipe=option.recipe or "fast",
            engine=option.engine or "graph",
            seeds=option.seeds,
            asked_margin=option.accuracy_margin,
        )
        path = option.results or results.default_results(project / "reports", "accuracy")
        results.check_new(path)
        return cls(terms, path, capacity.processes(option.processes))

    def header(self) -> str:
        """The terms, in one line."""
        terms = self._terms
        others = ", ".join(request.text for request in terms.candidates)
        against = terms.baseline.text if terms.baseline else "the stored reference"
        return (
            f"accuracy: {others} against {against}, recipe {terms.recipe.name}, "
            f"engine {terms.engine}, up to {terms.seeds} seeds "
            f"({'paired' if terms.comparison.paired else 'unpaired'}), "
            f"margin {terms.margin_points:g} points, records {self.results_path}"
        )

    def tests(self) -> list[tuple[Hashable, str]]:
        """A test for each candidate."""
        return [
            (place, f"{self._terms.recipe.name}-{request.text}")
            for place, request in enumerate(self._terms.candidates)
        ]

    def run(self, selected: Sequence[Hashable], dataset: Dataset, cache: Path) -> None:
        """Builds the environments and trains what was selected; keeps every seed as it comes.

        Raises:
            InputError: there is no reference, or the disk is full.
            KeyboardInterrupt: after the last seed was kept.
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
        built = build_candidates(requests, cache, tqdm.write)
        total = len(requests) * terms.seeds
        with (
            keeping(self.results_path, cache, terms.comparison) as keep,
            tqdm(total=total, disable=None, unit="seed", leave=False) as bar,
        ):

            def on_seed(sets: Sequence[Trainings]) -> None:
                self._sets = list(sets)
                keep(sets)
                own = sets if reference is None else sets[1:]
                bar.update(sum(len(item.seeds) for item in own) - bar.n)

            compare_accuracy(terms, built, reference, dataset, on_seed, processes=self._processes)

    def outcomes(self) -> Mapping[Any, Outcome]:
        """Of every candidate that was selected."""
        if not self._sets:
            told = self._stopped or "nothing was trained"
            return {key: Outcome(Verdict.INCONCLUSIVE, told) for key, _ in self.tests()}
        found = outcomes_of(self._sets, self._terms.comparison, self._stopped)
        return dict(zip(self._places, found, strict=True))

    def text(self) -> str:
        """The table of verdicts."""
        if not self._sets:
            return f"INCONCLUSIVE: {self._stopped or 'nothing was trained'}"
        findings = [f"{o.word}: {o.finding}" for o in self.outcomes().values()]
        findings[:0] = [self._stopped] if self._stopped else []
        return "\n".join([*findings, "", str(accuracy_table(self._sets, self._decisions()))])

    def summary(self, cache: Path) -> str:  # noqa: ARG002 - as a comparison of speed
        """The table of verdicts for a CI job's page."""
        if not self._sets:
            return markdown("Accuracy over seeds: INCONCLUSIVE", self.text())
        return markdown(headline(self._sets, self._decisions()), self.text())

    def html(self, cache: Path) -> str:  # noqa: ARG002 - as a comparison of speed
        """The head of the HTML report."""
        if not self._sets or self._test is None:
            return message_html(self.text())
        paired = self._terms.comparison.paired
        return accuracy_html(self._sets, self._decisions(), self._test, paired=paired)

    def stopped(self, reason: str) -> None:
        """Notes why training ended early."""
        self._stopped = reason

    def _decisions(self) -> list[AccuracyDecision]:
        return decide_all(self._sets, self._terms.comparison)


def outcomes_of(sets: Sequence[Trainings], terms: Comparison, stopped: str = "") -> list[Outcome]:
    """The outcome of each candidate; the open ones tell why training was stopped."""
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


def compare_accuracy(
    terms: AccuracyTerms,
    built: Sequence[Built | EnvironmentProblem],
    reference: Trainings | None,
    dataset: Dataset,
    on_seed: OnSeed,
    *,
    processes: int,
) -> list[Trainings]:
    """Trains seeds up to each look, of those that are not decided yet.

    Args:
        terms: what is asked for.
        built: the environments: the baseline's, unless there is a reference, and the candidates'.
        reference: to hold candidates against instead of a baseline.
        dataset: MNIST.
        on_seed: is told of all trainings after each seed.
        processes: trainings at a time.

    Returns:
        The trainings of baseline or reference, then of every candidate.

    Raises:
        KeyboardInterrupt: after `on_seed` was told of what there is.
    """
    with private_folder() as folder:
        code = prepare_training_folder(folder, dataset)
        sets = _nothing_trained(terms, built, reference, sha256_of(dataset), code)
        on_seed(sets)
        sides = {
            str(place): interpreter_of(side)
            for place, side in enumerate(built, start=0 if reference is None else 1)
            if isinstance(side, Built)
        }

        def on_trained(job: Job, trained: Trained, said: Mapping[str, Any]) -> None:
            place = int(job.side)
            if not (trained.started or sets[place].seeds):
                problem = f"its worker cannot start: {trained.problem}"
                sets[place] = replace(sets[place], problem=problem)
                on_seed(sets)
                return
            versions = {**sets[place].side.versions, **said}
            sets[place] = replace(
                sets[place].with_seed(trained), side=replace(sets[place].side, versions=versions)
            )
            on_seed(sets)

        for first, last in stages(terms.seeds):
            places = _undecided(sets, terms)
            if reference is None and places:
                places = [0, *places]
            jobs = [
                Job(str(place), seed, terms.recipe, terms.engine)
                for seed in range(first, last)
                for place in places
            ]
            train_seeds(jobs, sides, folder, processes=processes, on_trained=on_trained)
    return sets


def _nothing_trained(
    terms: AccuracyTerms,
    built: Sequence[Built | EnvironmentProblem],
    reference: Trainings | None,
    split: str,
    code: str,
) -> list[Trainings]:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")

    def of(side: Side) -> Trainings:
        return Trainings(
            *(terms.recipe, terms.engine, split, code, side, machine.describe(), started),
            problem=side.problem,
        )

    requests = [*filter(None, [terms.baseline]), *terms.candidates]
    sets = [of(side) for side in named_sides(requests, built)]
    if reference is not None:
        label = f"the reference ({reference.side.label})"
        sets.insert(0, replace(reference, side=replace(reference.side, label=label)))
    return sets


def _undecided(sets: Sequence[Trainings], terms: AccuracyTerms) -> list[int]:
    if sets[0].problem or any(trained.wrong is None for trained in sets[0].seeds):
        return []  # more seeds tell nothing where the baseline itself fails
    decisions = decide_all(sets, terms.comparison)
    return [
        place
        for place, decision in enumerate(decisions, start=1)
        if decision.verdict is Verdict.INCONCLUSIVE
        and not (sets[place].problem or differs(sets[0], sets[place]))
    ]
