"""Rounds of slices: the steps of a slice, the warm-up, then a slice of each side in each round."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.measure.workers import BASE, Bench, Workers, turned
from bench.records.blocks import BASELINE, CANDIDATE, SideSamples
from bench.records.catalogue import Spec

_WARM_UP_SLICES = 2
# On a GPU the first calls choose algorithms and compile: until two slices in a row agree.
_AGREEMENT = 0.1
_MOST_WARM_UP_SLICES = 20
_MOST_WARM_UP_SECONDS = 30.0
_LEAST_ROUNDS = 4

Measured = dict[int, SideSamples]


def measure_rounds(
    spec: Spec, workers: Workers, places: Sequence[int], bench: Bench, steps: dict[str, int]
) -> Measured:
    """Measures a prepared workload on each side.

    Args:
        spec: the workload.
        workers: workers of all sides.
        places: sides to measure.
        bench: settings of the measurement.
        steps: steps of a slice by workload; a missing entry is added, fixed by the baseline.

    Raises:
        SideError: a side failed.
    """
    calls = _call_steps(spec, workers, places, bench, steps)
    is_gpu = bench.device.is_gpu
    if is_gpu:
        for place in places:
            _settle(workers, place, spec.name, calls[place][0])
    else:
        for _ in range(_WARM_UP_SLICES):
            for place in places:
                workers.slice(place, spec.name, calls[place][0])
    # A stopped process leaves its kernels running on a GPU.
    run = workers.slices_in_turns if spec.in_turns and not is_gpu else workers.slices
    answers: dict[int, list[dict[str, float]]] = {place: [] for place in places}
    deadline = time.monotonic() + bench.pair_seconds * len(places) / 2
    rounds = 0
    while rounds < _LEAST_ROUNDS or rounds % 2 or time.monotonic() < deadline:
        sums = {place: dict.fromkeys(("value", "cpu", "idle", "loss"), 0.0) for place in places}
        for call in range(len(calls[BASE])):
            own = {place: calls[place][call] for place in turned(places, rounds)}
            for place, answer in run(spec.name, own).items():
                _add(sums[place], answer)
        for place in places:
            answers[place].append(sums[place])
        rounds += 1
    return {place: _side_samples(answers[place]) for place in places}


def one_sample(answer: Mapping[str, Any]) -> SideSamples:
    """Returns an answer with a single measurement as samples."""
    return SideSamples(
        (float(answer["value"]),),
        losses=(float(answer["loss"]),) if "loss" in answer else (),
        threads=(int(answer["threads"]),) if "threads" in answer else (),
    )


def _call_steps(
    spec: Spec, workers: Workers, places: Sequence[int], bench: Bench, steps: dict[str, int]
) -> Mapping[int, tuple[int, ...]]:
    """Returns the steps of each call of a slice; the baseline fixes them in the first block."""
    if spec.name in bench.call_steps:
        calls = bench.call_steps[spec.name]
        steps[spec.name] = sum(calls[BASELINE])
        return {p: calls[BASELINE if p == BASE else CANDIDATE] for p in places}
    if spec.name not in steps:
        if bench.device.is_gpu:
            _settle(workers, BASE, spec.name, spec.least_steps)
        steps[spec.name] = _fixed_steps(spec, workers)
    return dict.fromkeys(places, (steps[spec.name],))


def _fixed_steps(spec: Spec, workers: Workers) -> int:
    """Returns the number of steps for the baseline to reach the duration of a slice."""
    steps = spec.least_steps
    workers.slice(BASE, spec.name, steps)
    if workers.slice(BASE, spec.name, steps)["value"] >= spec.slice_seconds:
        return steps
    for _ in range(2):  # the second estimate amortises the cost of a call
        seconds = min(workers.slice(BASE, spec.name, steps)["value"] for _ in range(3))
        multiples = round(spec.slice_seconds / seconds * steps / spec.step_multiple)
        steps = max(spec.least_steps, spec.step_multiple * multiples)
    return steps


def _settle(workers: Workers, place: int, workload: str, steps: int) -> None:
    """Runs untimed slices until two in a row agree within 10 %, at most 20 or for 30 s."""
    before = math.inf
    end = time.monotonic() + _MOST_WARM_UP_SECONDS
    for _ in range(_MOST_WARM_UP_SLICES):
        seconds = workers.slice(place, workload, steps)["value"]
        if abs(seconds - before) <= _AGREEMENT * seconds or time.monotonic() > end:
            return
        before = seconds


def _add(sums: dict[str, float], answer: Mapping[str, float]) -> None:
    sums["value"] += answer["value"]
    sums["cpu"] += answer["cpu_seconds"]
    sums["idle"] += answer["idle_cpu_seconds"]
    sums["loss"] = answer["loss"]


def _side_samples(answers: Sequence[Mapping[str, float]]) -> SideSamples:
    values, cpu, idle, losses = (
        tuple(answer[key] for answer in answers) for key in ("value", "cpu", "idle", "loss")
    )
    return SideSamples(values, cpu, idle, losses)
