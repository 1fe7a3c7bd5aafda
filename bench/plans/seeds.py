"""Plans the seeds to train before each look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.environments.request import Request, parse_request
from bench.records.trainings import (
    Comparison,
    SeedTask,
    Trainings,
    differs,
    identity,
    read_reference,
    reference_seeds,
)
from bench.verdicts.accuracy import LOOKS, decide_all, margin_points, pairs_seeds
from bench.verdicts.sequential import Verdict
from lenet5.devices import CPU
from lenet5.errors import InputError
from lenet5.recipe import Recipe
from lenet5.recipes import find_recipe


@dataclass(frozen=True)
class AccuracyTerms:
    """Terms of an accuracy comparison.

    Attributes:
        baseline: environment of the baseline; None: the stored reference.
        candidates: environments of the candidates.
        recipe: recipe of the trainings.
        engine: engine of the trainings.
        seeds: maximum number of seeds of each side, from seed 0; in a comparison, that of a look.
        margin_points: acceptable loss of accuracy in percentage points.
        device: device of the trainings, as in `lenet5.devices.read_device`.
    """

    baseline: Request | None
    candidates: tuple[Request, ...]
    recipe: Recipe
    engine: str
    seeds: int
    margin_points: float
    device: str = CPU.name

    @property
    def comparison(self) -> Comparison:
        """Terms of the verdicts.

        A reference with fewer than the requested seeds is not paired: later looks would lack
        partners. Nor is one paired with seeds of a GPU: the stored references are of CPUs.
        """
        beside = self.baseline is not None
        has_all = reference_seeds(self.recipe.name) >= self.seeds
        partners = beside or (has_all and self.device == CPU.name)
        paired = partners and pairs_seeds(self.engine)
        return Comparison(self.margin_points, paired, beside, self.seeds)


def read_accuracy_terms(
    baseline: str | None,
    candidates: Sequence[str],
    *,
    recipe: str,
    engine: str,
    seeds: int,
    asked_margin: float | None = None,
    device: str = CPU.name,
) -> AccuracyTerms:
    """Checks the options, without starting anything.

    Args:
        baseline: value of `--baseline`.
        candidates: values of `--candidate`.
        recipe: name of the recipe.
        engine: name of the engine.
        seeds: maximum number of seeds of each side.
        asked_margin: margin in percentage points; None: `default_margin`.
        device: value of `--device`.

    Raises:
        InputError: an option is invalid.
    """
    looks = [look.blocks for look in LOOKS]
    if seeds not in looks:
        among = f"{', '.join(map(str, looks[:-1]))} or {looks[-1]}"
        raise InputError(f"--seeds is {seeds}, expected {among}: verdicts are possible only there")
    if asked_margin is not None:
        check_margin(asked_margin)
    return AccuracyTerms(
        baseline=None if baseline is None else parse_request(baseline),
        candidates=tuple(parse_request(text) for text in candidates or ["."]),
        recipe=find_recipe(recipe),
        engine=engine,
        seeds=seeds,
        margin_points=default_margin(recipe, engine) if asked_margin is None else asked_margin,
        device=device,
    )


def check_margin(points: float) -> None:
    """Raises InputError unless the margin is 0.01 to 100 percentage points."""
    if not 0.01 <= points <= 100:  # catches NaN too
        raise InputError(f"--accuracy-margin is {points}, expected 0.01 to 100 percentage points")


def default_margin(recipe: str, engine: str) -> float:
    """Returns `bench.verdicts.accuracy.margin_points` for the reference of a recipe and an engine.

    Raises:
        InputError: the reference is missing, damaged, incomplete, or of another recipe.
    """
    reference = read_reference(recipe, engine)
    if identity(reference.recipe) != identity(find_recipe(recipe)):
        raise InputError(
            f"the reference of recipe {recipe} is outdated: python -m bench reference "
            f"--recipe {recipe} --engine {engine} once it is removed, or give --accuracy-margin"
        )
    return margin_points(reference.seeds)


def next_seeds(sets: Sequence[Trainings], terms: AccuracyTerms) -> list[SeedTask]:
    """Returns the tasks up to the next look, for undecided candidates and their baseline."""
    for look in (look.blocks for look in LOOKS if look.blocks <= terms.seeds):
        places = _undecided(sets, terms)
        if terms.baseline is not None and places:
            places = [0, *places]
        tasks = [
            SeedTask(place, seed, terms.recipe, terms.engine)
            for seed in range(look)
            for place in places
            if all(trained.seed != seed for trained in sets[place].seeds)
        ]
        if tasks:
            return tasks
    return []


def seeds_without_record(found: Trainings, seeds: Sequence[int]) -> list[SeedTask]:
    """Returns tasks for the missing seeds of a reference."""
    there = {trained.seed for trained in found.seeds}
    return [SeedTask(0, seed, found.recipe, found.engine) for seed in seeds if seed not in there]


def _undecided(sets: Sequence[Trainings], terms: AccuracyTerms) -> list[int]:
    if sets[0].problem or any(trained.wrong is None for trained in sets[0].seeds):
        return []  # more seeds are useless if the baseline itself fails
    decisions = decide_all(sets, terms.comparison)
    return [
        place
        for place, decision in enumerate(decisions, start=1)
        if decision.verdict is Verdict.INCONCLUSIVE
        and not (sets[place].problem or differs(sets[0], sets[place]))
    ]
