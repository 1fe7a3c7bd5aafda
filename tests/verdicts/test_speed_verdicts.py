"""From samples to verdicts: figures, sentences and disturbed blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from scipy import stats

from bench.records.blocks import Results, SideSamples, WorkloadTerms
from bench.verdicts.sequential import LOOKS, Change, Verdict, detectable_shift
from bench.verdicts.speed import Decision, decide, describe
from tests.synthetic import (
    GROWTH,
    LOOP,
    PEAK,
    block_of,
    decided,
    exactly,
    growth_terms,
    results,
    samples_of,
    simulated,
    terms,
)

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
MEMORY_TERMS = terms(1.1, unit="MiB")
EQUAL = exactly(0.0, 0.002, 4)
SLOWER = exactly(math.log(1.092), 0.005, 4)


def decision(measured: Results, name: str = LOOP) -> Decision:
    return decided(measured)[name]


SENTENCES: Mapping[str, tuple[str, WorkloadTerms, Sequence[float], Verdict, str]] = {
    "slower": (
        *(LOOP, terms(), SLOWER, FAIL),
        "train_step[loop,b128]: 2.21.0 takes 1.092x the time of 2.15.1 "
        "(98.4 % interval 1.079-1.106, 4 blocks), margin 1.03",
    ),
    "equal": (
        *(LOOP, terms(), exactly(0.001, 0.002, 4), PASS),
        "train_step[loop,b128]: 2.21.0 takes 1.001x the time of 2.15.1 "
        "(98.4 % interval 0.996-1.006, 4 blocks), within the margin 1.03",
    ),
    "slower within the margin": (
        *(LOOP, terms(), exactly(math.log(1.015), 0.002, 4), PASS),
        "train_step[loop,b128]: 2.21.0 takes 1.015x the time of 2.15.1 "
        "(98.4 % interval 1.010-1.020, 4 blocks), slower, but within the margin 1.03",
    ),
    "faster": (
        *(LOOP, terms(), exactly(math.log(0.95), 0.004, 4), PASS),
        "train_step[loop,b128]: 2.21.0 takes 0.950x the time of 2.15.1 "
        "(98.4 % interval 0.941-0.959, 4 blocks), faster",
    ),
    "undecided": (
        *(LOOP, terms(), exactly(math.log(1.02), 0.009, 4), INCONCLUSIVE),
        "train_step[loop,b128]: 2.21.0 takes 1.020x the time of 2.15.1 (98.4 % interval "
        "0.998-1.043, 4 blocks), margin 1.03: a verdict would probably take 12 more blocks",
    ),
    "undecided between looks": (
        *(LOOP, terms(), [*exactly(math.log(1.02), 0.006, 4), 1.0], INCONCLUSIVE),
        "train_step[loop,b128]: 2.21.0 takes 1.020x the time of 2.15.1 (98.4 % interval "
        "1.005-1.035, 4 blocks), margin 1.03: a verdict would probably take 3 more blocks",
    ),
    "before the first look": (
        *(LOOP, terms(), exactly(math.log(1.02), 0.002, 3), INCONCLUSIVE),
        "train_step[loop,b128]: 2.21.0 takes 1.020x the time of 2.15.1 (3 blocks), "
        "margin 1.03: a verdict would probably take 1 more block",
    ),
    "one block": (
        *(LOOP, terms(), [math.log(1.02)], INCONCLUSIVE),
        "train_step[loop,b128]: 2.21.0 takes 1.020x the time of 2.15.1 (1 block), "
        "margin 1.03: a verdict takes 4 blocks at least",
    ),
    "at the margin": (
        *(LOOP, terms(), exactly(math.log(1.03), 0.009, 4), INCONCLUSIVE),
        "train_step[loop,b128]: 2.21.0 takes 1.030x the time of 2.15.1 (98.4 % interval "
        "1.007-1.053, 4 blocks), margin 1.03: probably no look within 24 blocks would decide",
    ),
    "just beyond the margin": (
        *(LOOP, terms(), exactly(math.log(1.033), 0.0011, 4), FAIL),
        "train_step[loop,b128]: 2.21.0 takes 1.033x the time of 2.15.1 "
        "(98.4 % interval 1.0302-1.0358, 4 blocks), margin 1.03",
    ),
    "more memory": (
        *(PEAK, MEMORY_TERMS, exactly(math.log(1.2), 0.01, 4), FAIL),
        "peak_memory: 2.21.0 takes 1.200x the memory of 2.15.1 "
        "(98.4 % interval 1.171-1.230, 4 blocks), margin 1.1",
    ),
    "a little more memory": (
        *(PEAK, MEMORY_TERMS, exactly(math.log(1.04), 0.002, 4), PASS),
        "peak_memory: 2.21.0 takes 1.040x the memory of 2.15.1 "
        "(98.4 % interval 1.035-1.045, 4 blocks), bigger, but within the margin 1.1",
    ),
    "less memory": (
        *(PEAK, MEMORY_TERMS, exactly(math.log(0.8), 0.01, 4), PASS),
        "peak_memory: 2.21.0 takes 0.800x the memory of 2.15.1 "
        "(98.4 % interval 0.781-0.820, 4 blocks), smaller",
    ),
    "the same memory to the page": (
        *(PEAK, MEMORY_TERMS, [0.0] * 4, PASS),
        "peak_memory: 2.21.0 takes 1.000x the memory of 2.15.1 "
        "(98.4 % interval 0.99997-1.00003, 4 blocks), within the margin 1.1",
    ),
    "growth": (
        *(GROWTH, growth_terms(), exactly(0.1, 0.008, 4), FAIL),
        "memory_growth: 2.21.0 takes +0.100 MiB a call against 2.15.1 "
        "(98.4 % interval +0.080 to +0.120, 4 blocks), margin 0.05",
    ),
    "no growth": (
        *(GROWTH, growth_terms(), [0.0] * 4, PASS),
        "memory_growth: 2.21.0 takes +0.000 MiB a call against 2.15.1 "
        "(98.4 % interval -0.002 to +0.002, 4 blocks), within the margin 0.05",
    ),
    "less growth": (
        *(GROWTH, growth_terms(), exactly(-0.05, 0.008, 4), PASS),
        "memory_growth: 2.21.0 takes -0.050 MiB a call against 2.15.1 "
        "(98.4 % interval -0.070 to -0.030, 4 blocks), smaller",
    ),
    "perhaps growth": (
        *(GROWTH, growth_terms(), exactly(0.03, 0.01, 4), INCONCLUSIVE),
        "memory_growth: 2.21.0 takes +0.030 MiB a call against 2.15.1 (98.4 % interval "
        "+0.005 to +0.055, 4 blocks), margin 0.05: a verdict would probably take 4 more blocks",
    ),
}


@pytest.mark.parametrize(
    ("name", "on", "values", "verdict", "sentence"), SENTENCES.values(), ids=SENTENCES
)
def test_the_finding_is_a_complete_sentence(
    name: str, on: WorkloadTerms, values: Sequence[float], verdict: Verdict, sentence: str
) -> None:
    found = decision(results({name: values}, {name: on}), name)
    assert found.finding == sentence
    assert found.verdict is verdict


def test_a_decision_is_described_with_its_interval_and_confidence() -> None:
    found = Decision(0, LOOP, terms(), FAIL, "", 1.092, 1.081, 1.103, 0.99, blocks=6)
    assert describe(found, "2.21.0", "2.15.1") == (
        "train_step[loop,b128]: 2.21.0 takes 1.092x the time of 2.15.1 "
        "(99 % interval 1.081-1.103, 6 blocks), margin 1.03"
    )


@pytest.mark.parametrize(
    ("margin", "about"), [(1.03, 1.03), (1.0333, 1.0333), (1.1, 1.1), (1.03, 1.0)]
)
def test_the_printed_interval_never_contradicts_the_verdict(margin: float, about: float) -> None:
    """Rounding moves no end onto or across the margin or 1."""
    said = re.compile(r"interval (\d\.\d+)-(\d\.\d+), \d blocks\), (slower|faster|)")
    seen = []
    for seed in range(300):
        drawn = simulated(
            ratio=about + (seed % 25 - 12) / 1000,
            block_deviation=0.002,
            pair_deviation=0.002,
            pairs=4,
            workloads=("a", "b"),
            seed=seed,
        )
        on = {name: terms(margin, gated=seed % 3 > 0) for name in "ab"}
        for found in decide(replace(drawn, workloads=on)):
            match = said.search(found.finding)
            assert match, found.finding
            low, high, passed = float(match[1]), float(match[2]), found.verdict is PASS
            assert low < high
            assert (low > margin) == (found.verdict is FAIL), found.finding
            assert (high < margin) == passed, found.finding
            assert match[3] != "slower" or (passed and low > 1), found.finding
            assert match[3] != "faster" or (passed and high < 1), found.finding
            assert (match[3] == "slower") == (passed and found.change is Change.WORSE)
            assert (match[3] == "faster") == (passed and found.change is Change.BETTER)
            seen.append(match[3] if about == 1 else found.verdict)
    assert min(seen.count(kind) for kind in set(seen)) > 100
    assert len(set(seen)) == 3


def test_a_decision_has_its_figures() -> None:
    """Figures of the six blocks of a look, with a seventh block measured."""
    values = [0.01, 0.05, 0.01, 0.05, 0.01, 0.05, 0.2]
    found = decision(results({LOOP: values}, pairs=12, options={"budget_seconds": 250.0}))
    assert (found.verdict, found.blocks, found.pairs) == (INCONCLUSIVE, 6, 72)
    assert found.ratio == pytest.approx(math.exp(0.03))
    assert found.total_ratio == pytest.approx((math.exp(0.01) + math.exp(0.05)) / 2)
    assert found.confidence == pytest.approx(0.99)
    assert found.low * found.high == pytest.approx(math.exp(2 * 0.03))
    # Blocks of 20 seconds: the budget allows twelve.
    shift = detectable_shift(LOOKS[:4]) * 0.02 * math.sqrt(6 / 5)
    assert found.detectable == pytest.approx(1.03 * math.exp(shift) - 1)
    assert found.more_blocks is None


@pytest.mark.parametrize(
    ("budget", "looks"), [(None, 2), (0, 2), (1.0, 2), (120.0, 2), (160.0, 3), (1e6, 6)]
)
def test_the_detectable_slowdown_uses_the_looks_in_the_budget(
    budget: float | None, looks: int
) -> None:
    """At least the looks that were reached; a block takes 20 seconds."""
    values = [*exactly(0.5, 0.01, 4), 0.5, 0.5]
    on = {GROWTH: growth_terms()}
    found = decision(results({GROWTH: values}, on, options={"budget_seconds": budget}), GROWTH)
    assert found.detectable == pytest.approx(0.05 + 0.01 * detectable_shift(LOOKS[:looks]))


def test_the_detectable_slowdown_requires_a_look_and_two_blocks() -> None:
    assert math.isnan(decision(results({LOOP: EQUAL[:3]})).detectable)
    one = results({LOOP: EQUAL[:1]}, options={"budget_seconds": 1e6})
    assert math.isnan(decision(one).detectable)
    scattered = results({LOOP: [-30.0, 30.0] * 2})
    assert math.isfinite(decision(scattered).detectable)


def test_stalls_change_the_ratio_of_totals_but_not_the_ratio() -> None:
    quiet = results({LOOP: EQUAL}, pairs=20, pair_deviation=0.001)
    blocks = []
    for block in quiet.blocks:
        samples = block.samples[LOOP]
        values = (*samples.candidate.values[:-2], 0.3, 0.3)
        stalled = replace(samples, candidate=SideSamples(values))
        blocks.append(replace(block, samples={LOOP: stalled}))
    before, after = decision(quiet), decision(replace(quiet, blocks=tuple(blocks)))
    assert after.ratio == pytest.approx(before.ratio, abs=1e-3)
    assert before.total_ratio == pytest.approx(1.0, abs=1e-3)
    assert after.total_ratio == pytest.approx(1.9, abs=1e-2)
    assert before.verdict is after.verdict is PASS


@pytest.mark.parametrize(("ratio", "verdict"), [(1.0, PASS), (1.1, FAIL), (0.9, PASS)])
def test_known_ratios_get_the_right_verdict(ratio: float, verdict: Verdict) -> None:
    found = decision(simulated(ratio=ratio, blocks=8, seed=3))
    assert found.verdict is verdict
    assert found.low < ratio < found.high


def test_the_deviation_is_at_least_a_clock_tick_or_a_page() -> None:
    """Constant samples: the standard deviation is one tick of the shortest slice, or a page."""
    values = {LOOP: [0.0] * 4, PEAK: [0.0] * 4, GROWTH: [0.0] * 4}
    on = {LOOP: terms(), PEAK: MEMORY_TERMS, GROWTH: growth_terms()}
    measured = results(values, on, clock_seconds=1e-4)
    found = decided(measured)
    quantiles = stats.t.isf(0.008 / 3, 3) + stats.t.isf(0.008, 3)
    width = {n: (math.log(found[n].high / found[n].low) / quantiles * 2) for n in (LOOP, PEAK)}
    assert width[LOOP] == pytest.approx(1e-4 / 0.03)
    assert width[PEAK] == pytest.approx(4096 / 2**20 / 300)
    assert found[GROWTH].high - found[GROWTH].low == pytest.approx(quantiles / 2 * 1e-3)


def repeated(measured: Results, number: int, value: float, *, names: str = LOOP) -> Results:
    """The same results with an additional disturbed block before its repeat."""
    disturbed = block_of(
        number, {names: samples_of([value] * 10, terms())}, disturbed=("steal 20 %",)
    )
    blocks = list(measured.blocks)
    blocks.insert(number, disturbed)
    return replace(measured, blocks=tuple(blocks))


def test_the_repeat_replaces_the_disturbed_block() -> None:
    measured = results({LOOP: [0.001, 0.002, 0.003, 0.004]})
    found = decision(repeated(measured, 2, 0.008))
    assert (found.verdict, found.blocks, found.pairs) == (PASS, 4, 40)
    assert found == decision(measured)


@pytest.mark.parametrize(
    ("values", "disturbed", "flip"),
    [
        (EQUAL, 0.5, "PASS without the disturbed blocks, INCONCLUSIVE with them"),
        (SLOWER, -0.5, "FAIL without the disturbed blocks, INCONCLUSIVE with them"),
        ([*EQUAL[:3], 0.5], 0.0, "INCONCLUSIVE without the disturbed blocks, PASS with them"),
    ],
)
def test_a_verdict_that_flips_with_the_disturbed_blocks_is_inconclusive(
    values: Sequence[float], disturbed: float, flip: str
) -> None:
    found = decision(repeated(results({LOOP: values}), 0, disturbed))
    assert found.verdict is INCONCLUSIVE
    assert found.finding.endswith(f", 4 blocks): {flip}")
    assert found.more_blocks is None
    assert not found.settled


def test_a_disturbed_block_counts_if_its_repeat_lacks_the_workload() -> None:
    """A disturbed value is better than none; `None` means not measured."""
    measured = results({LOOP: [0.001, 0.002, None, 0.004]})
    found = decision(repeated(measured, 2, 0.003))
    assert (found.verdict, found.blocks) == (PASS, 4)
    assert found.ratio == pytest.approx(math.exp(0.0025))


def test_informational_workloads_are_outside_the_correction() -> None:
    """Their intervals have the confidence of a single workload."""
    measured = results(
        {LOOP: EQUAL, "predict[b1]": SLOWER, "fit[b128]": SLOWER},
        {"predict[b1]": terms(gated=False), "fit[b128]": terms(gated=False)},
    )
    found = decided(measured)
    assert [d.confidence for d in found.values()] == pytest.approx([0.984] * 3)
    assert [d.verdict for d in found.values()] == [PASS, FAIL, FAIL]
