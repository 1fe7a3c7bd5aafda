"""The lines of the check: each measures one thing on the GPU, and judges it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from bench.gpu_check.context import Context
from bench.gpu_check.running import Check, OutOfTimeError
from bench.measure.processes import WorkerError
from bench.plans.speed import Plan, Terms
from bench.records.blocks import Block, BlockTask, Results
from bench.records.catalogue import WORKLOADS
from bench.records.numerics import Mode
from bench.report.gpu_check.page import FAIL, NOT_RUN, PASS, Line
from bench.verdicts import numerics
from bench.verdicts.sequential import LOOKS, Verdict
from bench.verdicts.speed import decide
from lenet5.recipe import Recipe
from lenet5.recipes import find_recipe

LIMIT_SECONDS = 300.0
RECIPE, SEED, ENGINE = "fast", 0, "graph"
BATCHES = (32, 128, 512, 2048)
WORKLOAD = "train_step[loop,b512]"
FIT_STEPS = 100  # of the worker's command `first_fit`
FIT_SECONDS = 60.0
_LEAST_FIT_SECONDS = 10.0
_START_SECONDS = 30.0
_STEPS = {32: 200, 128: 200, 512: 80, 2048: 20}  # of a slice; at most the context's images
_WARM_UP_SLICES = 2
_LEAST_SLICES = 5
_SLICES_SECONDS = 1.5
# No scatter was measured on a GPU: the comparison shows that the method works, not that it is fine.
_MARGIN = 1.1
_PAIR_SECONDS = 2.0
_INFORMATIONAL = "(informational)"
_THROUGHPUT, _FIT = "throughput", "fit"  # names of workers
_FACTS = (
    *("gpu", "compute_capability", "cuda", "cudnn", "tensorflow", "keras", "numpy", "python"),
)


def modes_on(device: str) -> tuple[tuple[Mode, int], ...]:
    """Returns the modes of the numerics, each with its processes: two where bits are compared."""
    default, without, deterministic = numerics_modes(device)
    return (default, 2), (without, 1), (deterministic, 2)


def numerics_modes(device: str) -> tuple[Mode, Mode, Mode]:
    """Returns TF32 on, off, and off with deterministic operations."""
    return Mode(device, tf32=True), Mode(device), Mode(device, deterministic_ops=True)


def training_of_check() -> tuple[Recipe, int, str]:
    """Returns recipe, seed and engine of the line `accuracy`."""
    return find_recipe(RECIPE), SEED, ENGINE


def checks_on(device: str) -> tuple[Check, ...]:
    """Returns the lines in order: the last one, of unknown duration, takes what is left."""
    default, without, deterministic = numerics_modes(device)
    informational = partial(Check, is_informational=True)
    return (
        Check("device", 60, device_line, is_needed=True),
        *(
            informational(f"images per second, batch {batch}", 25, partial(speed_line, batch=batch))
            for batch in BATCHES
        ),
        Check("numerics, TF32 on", 90, partial(numerics_line, mode=default)),
        Check("numerics, TF32 off", 60, partial(numerics_line, mode=without)),
        Check("numerics, deterministic", 60, partial(numerics_line, mode=deterministic)),
        Check("same bits, deterministic", 30, partial(bits_line, mode=deterministic)),
        Check(f"accuracy of {RECIPE}", 75, accuracy_line),
        Check("comparison with itself", 130, comparison_line),
        informational("same bits, TF32 on", 30, partial(bits_line, mode=default, is_gated=False)),
        informational("first fit without XLA", 45, first_fit_line),
        informational("peak device memory", 30, memory_line),
        informational("first fit as Keras decides", FIT_SECONDS + _START_SECONDS, keras_fit_line),
    )


def device_line(context: Context) -> Line:
    """The worker computes on the GPU: it has run a convolution there, or it would not start."""
    context.worker(_THROUGHPUT)
    said = context.said(_THROUGHPUT)
    figures = {name: said[name] for name in _FACTS if name in said}
    figures |= {"device": context.device.name, "driver": dict(context.driver)}
    if "gpu" not in said:
        told = f"TensorFlow computes on {said.get('device', 'another device')}"
        return Line("", FAIL, told, figures)
    parts = [
        f"{said['gpu']} (compute capability {said.get('compute_capability')})",
        f"driver {context.driver.get('driver', 'unknown')}",
        f"CUDA {said.get('cuda')}, cuDNN {said.get('cudnn')}",
        f"TensorFlow {said.get('tensorflow')}, Keras {said.get('keras')}",
        f"Python {said.get('python')}",
    ]
    return Line("", PASS, ", ".join(parts), figures)


def speed_line(context: Context, batch: int) -> Line:
    """Training steps in the graph; the median of slices after a warm-up."""
    name = f"train_step[loop,b{batch}]"
    ask = partial(context.ask, _THROUGHPUT)
    ask("prepare", workload=name, builder="loop", arguments={"batch_size": batch})
    steps = _STEPS[batch]
    for _ in range(_WARM_UP_SLICES):
        ask("slice", workload=name, steps=steps)
    seconds: list[float] = []
    while len(seconds) < _LEAST_SLICES or sum(seconds) < _SLICES_SECONDS:
        seconds.append(float(ask("slice", workload=name, steps=steps)["value"]))
    speed = steps * batch / median(seconds)
    figures = {"batch_size": batch, "images_per_second": speed, "steps": steps, "seconds": seconds}
    is_right = math.isfinite(speed) and speed > 0
    told = f"{speed:,.0f}, median of {len(seconds)} slices {_INFORMATIONAL}"
    return Line("", PASS if is_right else FAIL, told, figures)


def first_fit_line(context: Context) -> Line:
    """The first `fit` in a process, with the choice of cuDNN's algorithms."""
    context.worker(_FIT)
    seconds = float(context.ask(_FIT, "first_fit", jit_compile=False)["value"])
    told = f"{FIT_STEPS} steps in {seconds:.1f} s {_INFORMATIONAL}"
    return Line("", PASS, told, {"fit_seconds": seconds, "jit_compile": False})


def memory_line(context: Context) -> Line:
    """Peak memory that TensorFlow used on the device in training and prediction, without XLA."""
    peak = float(context.ask(_FIT, "device_memory")["value"])
    context.end(_FIT)
    told = f"{peak:,.0f} MiB {_INFORMATIONAL}"
    return Line("", PASS if math.isfinite(peak) and peak > 0 else FAIL, told, {"peak_mib": peak})


def keras_fit_line(context: Context) -> Line:
    """The same `fit` as Keras decides: on GPUs it compiles with XLA, for an unknown time."""
    worker = context.worker(_FIT)
    seconds = min(context.left(), FIT_SECONDS)
    figures: dict[str, Any] = {"fit_seconds": None, "limit_seconds": seconds, "jit_compile": None}
    if seconds < _LEAST_FIT_SECONDS:
        return Line("", NOT_RUN, f"only {seconds:.0f} s are left for it", figures)
    try:
        found = float(worker.ask(seconds, "first_fit", jit_compile=None)["value"])
    except WorkerError as error:
        if not error.reason.startswith("timed out"):
            raise
        return Line("", PASS, f"not back after {seconds:.0f} s {_INFORMATIONAL}", figures)
    finally:
        context.end(_FIT)
    told = f"{FIT_STEPS} steps in {found:.1f} s {_INFORMATIONAL}"
    return Line("", PASS, told, {**figures, "fit_seconds": found})


def numerics_line(context: Context, mode: Mode) -> Line:
    """The problem in one mode, held against NumPy and against the mode that was asked for."""
    found, *_ = context.computed(mode)
    held = numerics.hold(found, context.truth)
    off = numerics.deviations(found.quantities, context.truth)
    most = numerics.tolerances(found.mode)
    worst = max(off, key=lambda name: off[name] / most[name])
    within = f"{found.mode.arithmetic} in force, {worst} deviates most: {off[worst]:.1e}"
    told = "; ".join((*held.wrong, *held.notes, f"{within} of {most[worst]:.0e}"))
    figures = {
        "asked_mode": found.asked.arithmetic,
        "mode": found.mode.arithmetic,
        "deviations": off,
        "tolerances": dict(most),
    }
    return Line("", FAIL if held.wrong else PASS, told, figures)


def bits_line(context: Context, mode: Mode, *, is_gated: bool = True) -> Line:
    """Two processes train with all random operations; their weights have the same bits or not."""
    bits = [str(one.answer.get("bits")) for one in context.computed(mode)]
    are_same = len(set(bits)) == 1
    told = f"{'the same' if are_same else 'other'} bits in {len(bits)} processes"
    verdict = PASS if are_same or not is_gated else FAIL
    return Line("", verdict, told + f" {_INFORMATIONAL}" * (not is_gated), {"sha256": bits})


def accuracy_line(context: Context) -> Line:
    """A whole training with the recipe's bounds, as in the gate."""
    recipe, seed, engine = context.training
    trained = context.trained()
    figures = {
        "wrong": trained.wrong,
        "images": trained.images,
        "seed": seed,
        "engine": engine,
        "epochs": trained.epochs,
        "train_seconds": trained.train_seconds,
        "min_accuracy": recipe.min_accuracy,
        "max_accuracy": recipe.max_accuracy,
    }
    if trained.wrong is None:
        return Line("", FAIL, f"seed {seed}: {trained.problem}", figures)
    is_right = recipe.min_accuracy <= trained.accuracy <= recipe.max_accuracy
    bounds = f"{100 * recipe.min_accuracy:g} to {100 * recipe.max_accuracy:g} %"
    told = (
        f"{100 * trained.accuracy:.2f} % ({trained.wrong} wrong of {trained.images:,}), "
        f"bounds {bounds}, seed {seed}, engine {engine}"
    )
    return Line("", PASS if is_right else FAIL, told, figures)


def comparison_line(context: Context) -> Line:
    """The environment against itself: two workers on the same GPU, and the verdict is PASS."""
    context.end(_THROUGHPUT)
    found: list[Results] = []
    spec = replace(WORKLOADS[WORKLOAD], gated=True, margin=_MARGIN)
    request = context.built.request
    terms = replace(
        Terms(
            baseline=request,
            candidates=(request,),
            workloads={WORKLOAD: spec},
            pair_seconds=_PAIR_SECONDS,
        ),
        device=context.device.name,
    )

    def keep(results: Results, _: Block | None) -> None:
        found[:] = [results]

    is_late = False
    try:
        context.compare(
            *(terms, [context.built] * 2, [[WORKLOAD]], context.dataset.training, keep),
            next_tasks=next_block,
        )
    except OutOfTimeError:  # what was measured is a finding too
        is_late = True
    if not found:
        return Line("", FAIL, "nothing was measured in time")
    (decision,) = decide(found[0])
    figures = {
        "workload": WORKLOAD,
        "margin": _MARGIN,
        "ratio": decision.ratio,
        "low": decision.low,
        "high": decision.high,
        "blocks": decision.blocks,
        "pairs": decision.pairs,
        "failures": [failure.reason for block in found[0].blocks for failure in block.failures],
        "disturbed": [words for block in found[0].blocks for words in block.disturbed],
    }
    verdict = PASS if decision.verdict is Verdict.PASS else FAIL
    told = f"{WORKLOAD}: {decision.verdict.value}, {decision.finding}" + "; out of time" * is_late
    return Line("", verdict, told, figures)


def next_block(plan: Plan, results: Results, there: Iterable[int]) -> list[BlockTask]:
    """Returns one more block up to the first look, disturbed or not."""
    number = len(results.blocks)
    specs = {place: [*plan.specs[place].values()] for place in there}
    if not specs or number >= LOOKS[0].blocks:
        return []
    steps = {name: terms.steps for name, terms in results.workloads.items() if terms.steps}
    seconds = [w.control_seconds for block in results.blocks for w in block.witnesses]
    return [
        BlockTask(
            *(specs, dict.fromkeys(specs, number), number, plan.seed, steps),
            quickest_control=min(seconds, default=None),
        )
    ]
