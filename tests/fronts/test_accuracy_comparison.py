"""Terms of an accuracy comparison (engine, pairs, reference) in verdicts and findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench.plans.seeds import AccuracyTerms, default_margin, read_accuracy_terms
from bench.records.sides import Side
from bench.records.trainings import Comparison, Trained, Trainings
from bench.verdicts.accuracy import decide_all, finding
from bench.verdicts.sequential import Verdict
from lenet5.errors import InputError
from lenet5.recipe import ENGINES
from lenet5.recipes import find_recipe

PAIRED = Comparison(0.15, paired=True, beside=True)
BESIDE = Comparison(0.15, paired=False, beside=True)
REFERENCE = Comparison(0.15, paired=False, beside=False)
PAIRED_REFERENCE = Comparison(0.15, paired=True, beside=False)


def trained(label: str, *wrong: int, engine: str = "keras") -> Trainings:
    seeds = tuple(Trained(seed, count, 10_000) for seed, count in enumerate(wrong))
    return Trainings(find_recipe("fast"), engine, "", "", Side("", label), {}, "", seeds)


def terms(baseline: str | None, engine: str, device: str = "cpu") -> AccuracyTerms:
    return read_accuracy_terms(
        baseline,
        ["tensorflow==2.21.0"],
        recipe="fast",
        engine=engine,
        seeds=20,
        asked_margin=0.15,
        device=device,
    )


@pytest.mark.parametrize(
    ("baseline", "engine", "expected"),
    [
        ("tensorflow==2.15.1", "graph", PAIRED),
        ("tensorflow==2.15.1", "keras", BESIDE),
        (None, "graph", PAIRED_REFERENCE),
        (None, "keras", REFERENCE),
    ],
)
def test_seeds_are_paired_with_the_engine_graph_only(
    baseline: str | None, engine: str, expected: Comparison
) -> None:
    """Keras's random streams may differ between versions, so equal seeds share nothing."""
    assert terms(baseline, engine).comparison == expected
    assert terms(baseline, engine).engine == engine


@pytest.mark.parametrize(
    ("baseline", "expected"), [("tensorflow==2.15.1", PAIRED), (None, REFERENCE)]
)
def test_seeds_of_a_gpu_are_not_paired_with_the_reference_of_cpus(
    baseline: str | None, expected: Comparison
) -> None:
    assert terms(baseline, "graph", "gpu:1").comparison == expected


ON_H200 = {"cpu": "a processor", "gpu": {"model": "NVIDIA H200"}}


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ({}, {"cpu": "another"}, ""),
        (ON_H200, ON_H200, ", both on NVIDIA H200"),
        (ON_H200, {}, ", 2.21.0 on NVIDIA H200 and the reference (2.21.0) on the CPU"),
        ({}, ON_H200, ", 2.21.0 on the CPU and the reference (2.21.0) on NVIDIA H200"),
    ],
)
def test_a_finding_says_on_which_devices_both_sides_ran(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], words: str
) -> None:
    """On two CPUs it says nothing."""
    baseline = replace(trained("the reference (2.21.0)", *range(140, 150)), machine=theirs)
    candidate = replace(trained("2.21.0", *range(142, 152)), machine=ours)
    (decision,) = decide_all([baseline, candidate], REFERENCE)
    said = finding(decision, candidate, baseline, paired=False)
    assert decision.verdict is not Verdict.INCONCLUSIVE  # such sides are compared
    assert f"10 seeds, unpaired, engine keras{words}), margin" in said


@pytest.mark.parametrize(("recipe", "seeds", "paired"), [("best", 10, True), ("best", 16, False)])
def test_a_reference_with_too_few_seeds_is_not_paired(
    recipe: str, seeds: int, *, paired: bool
) -> None:
    """References of `best` have ten seeds: the second look would lack pairs."""
    small = replace(terms(None, "graph"), recipe=find_recipe(recipe), seeds=seeds)
    assert small.comparison == Comparison(0.15, paired, beside=False, seeds=seeds)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_default_margin_requires_a_reference_of_the_engine(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def refuse(recipe: str, engine: str) -> Trainings:
        asked.append((recipe, engine))
        raise InputError("there is none")

    monkeypatch.setattr("bench.plans.seeds.read_reference", refuse)
    with pytest.raises(InputError, match="there is none"):
        default_margin("fast", engine)
    assert asked == [("fast", engine)]


@pytest.mark.parametrize("comparison", [PAIRED, BESIDE])
def test_a_verdict_is_unchanged_by_later_seeds_of_the_baseline(
    comparison: Comparison,
) -> None:
    """The second candidate loses about the margin; the baseline's later seeds are far off."""
    decided = trained("decided", *range(141, 151))
    other = trained("other", *[155, 175] * 10)
    ten = trained("baseline", *range(140, 150))
    twenty = trained("baseline", *range(140, 150), *[199] * 10)
    (then,) = decide_all([ten, decided], comparison)
    now, _ = decide_all([twenty, decided, other], comparison)
    assert then.verdict is Verdict.PASS
    assert now == then
    (against_reference,) = decide_all([twenty, decided], REFERENCE)
    assert against_reference.difference < then.difference - 0.2


def test_trainings_of_different_engines_are_not_compared() -> None:
    wrong = [150] * 10
    sets = [trained("baseline", *wrong, engine="graph"), trained("candidate", *wrong)]
    (decision,) = decide_all(sets, REFERENCE)
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.reason == "the reference is of another engine"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("comparison", "word"), [(PAIRED, "paired"), (BESIDE, "unpaired")])
def test_a_finding_reports_pairing_and_engine(
    engine: str, comparison: Comparison, word: str
) -> None:
    """This includes findings without a statistical test, but not those without trainings."""
    baseline = trained("2.15.1", *range(140, 150), engine=engine)
    candidate = trained("2.21.0", *range(142, 152), engine=engine)
    diverged = replace(candidate, seeds=(Trained(0, 300, 10_000),))
    nothing = replace(candidate, seeds=(), problem="not there:\n  a cause")
    found = []
    for item in (candidate, diverged, nothing):
        (decision,) = decide_all([baseline, item], comparison)
        found.append(finding(decision, item, baseline, paired=comparison.paired))
    start = "accuracy[fast]: 2.21.0"
    tested, below, missing = found
    assert tested.startswith(f"{start} loses 0.020 points against 2.15.1 (97 % interval of the")
    assert f", 10 seeds, {word}, engine {engine}), margin 0.15, detects 0." in tested
    assert below.startswith(f"{start} loses 1.")
    assert f"(1 seeds, {word}, engine {engine}): diverged: seed 0 reached 97.00 %" in below
    assert missing == f"{start} against 2.15.1: not there: a cause"


def test_a_finding_reports_retries() -> None:
    """It reports retries of both sides, except for a seed that failed twice."""
    first, second, *others = trained("2.21.0", *range(142, 152)).seeds
    again = replace(first, retried="killed by SIGKILL")
    twice = replace(second, wrong=None, problem="hung", crashed=True, retried="hung")
    baseline = replace(trained("2.15.1", *range(140, 150)), seeds=(again, second, *others))
    for seeds in ((first, second, *others), (again, twice, *others)):
        candidate = replace(trained("2.21.0"), seeds=seeds)
        (decision,) = decide_all([baseline, candidate], BESIDE)
        said = finding(decision, candidate, baseline, paired=False)
        mine, theirs = (
            f"; seed 0 of {version} succeeded on the second try: killed by SIGKILL"
            for version in ("2.21.0", "2.15.1")
        )
        assert said.endswith((mine if seeds[0] is again else "") + theirs)
        assert said.count("second try") == 1 + (seeds[0] is again)
