"""Plans the next blocks of a speed comparison, and its end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.environments.request import Request, parse_request
from bench.records.blocks import Block, BlockTask, Results
from bench.records.catalogue import PAIR_SECONDS, Spec, check_margin, select, workloads_on
from bench.verdicts.sequential import LOOKS
from bench.verdicts.speed import Decision, decide
from lenet5.devices import CPU
from lenet5.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_BUDGET_SECONDS = 900.0
_REPEATED_SHARE = 3  # at most one block in three may be repeated
_LATER_SHARE = 0.75  # of the first block, with cold caches and unknown steps; observed: 0.65


@dataclass(frozen=True)
class Plan:
    """Workloads and limits of a speed comparison.

    Attributes:
        specs: workloads to measure, by candidate; none for a failed build.
        budget_seconds: measuring time per candidate.
        seed: seed of the workloads' order.
    """

    specs: tuple[Mapping[str, Spec], ...]
    budget_seconds: float = DEFAULT_BUDGET_SECONDS
    seed: int = 0


def next_blocks(
    plan: Plan, results: Results, there: Iterable[int], at_once: int = 1
) -> list[BlockTask]:
    """Returns the next blocks of all undecided candidates; empty if the budget reaches no look.

    Args:
        plan: workloads, budget and seed.
        results: results of all blocks so far.
        there: places of the candidates with an environment.
        at_once: number of machines. Several blocks are of use up to the next look only, and once
            the first block has fixed the steps of a slice.
    """
    places = [*there]
    specs = {place: [*own.values()] for place in places if (own := _todo(plan, results, place))}
    if not specs:
        return []
    seconds = [w.control_seconds for block in results.blocks for w in block.witnesses]
    task = BlockTask(
        specs,
        numbers={place: _next_number(plan, results, place) for place in specs},
        turn=max(sum(block.candidate == place for block in results.blocks) for place in places),
        seed=plan.seed,
        steps={name: terms.steps for name, terms in results.workloads.items() if terms.steps},
        quickest_control=min(seconds, default=None),
    )
    count = min(at_once, *(_blocks_to_look(plan, results, *item) for item in task.numbers.items()))
    return [
        replace(task, numbers={p: n + k for p, n in task.numbers.items()}, turn=task.turn + k)
        for k in range(count)
    ]


def _blocks_to_look(plan: Plan, results: Results, index: int, number: int) -> int:
    """Returns how many blocks a candidate lacks to its next look; 1 if the budget reaches none."""
    blocks = [block for block in results.blocks if block.candidate == index]
    look = next((look.blocks for look in LOOKS if look.blocks > number), number + 1)
    share = _LATER_SHARE if len(blocks) == 1 else 1.0
    return look - number if blocks and _reaches_a_look(plan, blocks, number, share) else 1


def _todo(plan: Plan, results: Results, index: int) -> dict[str, Spec]:
    """Returns the undecided workloads, if the budget reaches another look.

    A workload with a budget of its own goes on or ends by this budget alone.
    """
    blocks = [block for block in results.blocks if block.candidate == index]
    if not blocks:
        return dict(plan.specs[index])
    decisions = _decisions(results, index)
    left = {n: spec for n, spec in plan.specs[index].items() if not decisions[n].settled}
    if not left:
        return {}
    fresh: set[str] = set()  # a fresh block distinguishes fault from accident, at any budget
    if any(decisions[name].faults == 1 for name in left):
        before = _decisions(replace(results, blocks=_without_last(results, index)), index)
        fresh = {n for n in left if decisions[n].faults == 1 and not before[n].faults}
    number = _next_number(plan, results, index)
    numbers = {name: {b.number for b in blocks if name in b.samples} for name in left}
    values = {name: len(found - {number}) for name, found in numbers.items()}
    own = [name for name, spec in left.items() if spec.own_budget_seconds]
    shared = [name for name in left if name not in own]
    least = min((values[name] for name in shared), default=0)
    share = _LATER_SHARE if len(blocks) == 1 else 1.0
    goes_on = shared and (fresh & set(shared) or _reaches_a_look(plan, blocks, least, share))
    wanted = set(shared) if goes_on else set()
    wanted |= {n for n in own if n in fresh or _own_reaches_a_look(left[n], blocks, values[n])}
    return {name: spec for name, spec in left.items() if name in wanted}


def _decisions(results: Results, index: int) -> dict[str, Decision]:
    """Returns a candidate's decisions by workload."""
    return {d.workload: d for d in decide(results) if d.candidate == index}


def _without_last(results: Results, index: int) -> tuple[Block, ...]:
    places = [place for place, b in enumerate(results.blocks) if b.candidate == index]
    return (*results.blocks[: places[-1]], *results.blocks[places[-1] + 1 :])


def _reaches_a_look(
    plan: Plan, blocks: Sequence[Block], values: int, later_share: float = 1.0
) -> bool:
    """Returns whether the budget reaches the next look of a workload with this many values.

    The estimate for every block is `later_share` of the last block's time.
    """
    # Decided workloads drop out, so the last block predicts better than earlier ones.
    last = next((block for block in reversed(blocks) if not block.is_beside_the_budget), blocks[-1])
    spent = sum(block.seconds for block in blocks)
    return _is_reached(values, spent, later_share * last.seconds, plan.budget_seconds)


def _own_reaches_a_look(spec: Spec, blocks: Sequence[Block], values: int) -> bool:
    """Returns whether a workload's own budget reaches its next look."""
    seconds = [b.own_seconds[spec.name] for b in blocks if spec.name in b.own_seconds]
    expected_seconds = seconds[-1] if seconds else 0.0
    return _is_reached(values, sum(seconds), expected_seconds, spec.own_budget_seconds)


def _is_reached(values: int, spent: float, expected_seconds: float, budget: float) -> bool:
    """Returns whether blocks of `expected_seconds` each reach the next look after `values`."""
    look = next((look.blocks for look in LOOKS if look.blocks > values), None)
    return look is not None and spent + (look - values) * expected_seconds <= budget


def _next_number(plan: Plan, results: Results, index: int) -> int:
    """Returns the number of a candidate's next block; a repeated block keeps its number.

    A disturbed block is better than no verdict: it is not repeated if that would cost the look.
    """
    blocks = [block for block in results.blocks if block.candidate == index]
    if not blocks:
        return 0
    last = max(reversed(blocks), key=lambda block: block.number)  # a cluster may end others later
    number = last.number
    repeats = len(blocks) - len({block.number for block in blocks})
    look = next((look.blocks for look in LOOKS if look.blocks > number), number + 1)
    may_repeat = last.disturbed and repeats < look // _REPEATED_SHARE
    if may_repeat and _reaches_a_look(plan, blocks, number):
        return number
    return number + 1


DEFAULT_MARGIN = 1.03
GPU_MARGIN = 1.05  # chosen wide: no scatter of blocks was measured on a GPU


@dataclass(frozen=True)
class Terms:
    """Terms of a speed comparison.

    Attributes:
        baseline: environment of the baseline.
        candidates: environments of the candidates.
        workloads: workloads to measure, by name.
        margin: margin of workloads without a separate one.
        budget_seconds: measuring time per candidate.
        threads: number of TensorFlow threads; more than one are not pinned to a core.
        seed: seed of the workloads' order.
        pair_seconds: duration of a workload's pairs in a block.
        call_steps: steps of each call of a slice; empty: one call.
        device: device of all sides, as in `lenet5.devices.read_device`.
    """

    baseline: Request
    candidates: tuple[Request, ...]
    workloads: Mapping[str, Spec]
    margin: float = DEFAULT_MARGIN
    budget_seconds: float = DEFAULT_BUDGET_SECONDS
    threads: int = 1
    seed: int = 0
    pair_seconds: float = PAIR_SECONDS
    call_steps: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    device: str = CPU.name


def read_terms(
    baseline: str,
    candidates: Sequence[str],
    *,
    workloads: str,
    margin: float | None = None,
    budget_seconds: float = DEFAULT_BUDGET_SECONDS,
    threads: int = 1,
    device: str = "cpu",
    project: Path,
) -> Terms:
    """Checks the options of a comparison, without network and without starting anything.

    Args:
        baseline: requirements and settings.
        candidates: requirements and settings of each; none: the current environment.
        workloads: `gated`, `all` or names.
        margin: margin of workloads without a separate one; None: 1.03, on a GPU 1.05.
        budget_seconds: measuring time per candidate.
        threads: number of TensorFlow threads.
        device: `cpu` or `gpu:N`.
        project: folder of the `pyproject.toml` with `[tool.lenet5-bench.workloads]`, for a GPU
            `[tool.lenet5-bench.gpu-workloads]`.

    Raises:
        InputError: an option is invalid.
    """
    if margin is None:
        margin = DEFAULT_MARGIN if device == "cpu" else GPU_MARGIN
    check_margin(margin)
    _check_budget(budget_seconds)
    return Terms(
        baseline=parse_request(baseline),
        candidates=tuple(parse_request(text) for text in candidates or ["."]),
        workloads=select(workloads, _project_options(project, device), device),
        margin=margin,
        budget_seconds=budget_seconds,
        threads=threads,
        device=device,
    )


def terms_to_resume(found: Results, budget_seconds: float = DEFAULT_BUDGET_SECONDS) -> Terms:
    """Returns the terms of results to resume, with another budget.

    Raises:
        InputError: the budget is invalid, or a workload has changed.
    """
    _check_budget(budget_seconds)
    workloads = {}
    for name, terms in found.workloads.items():
        spec = workloads_on(found.device).get(name)
        if spec is None or spec.version != terms.version:
            raise InputError(
                f"{name} has changed since it was measured: the results cannot be resumed"
            )
        workloads[name] = replace(spec, margin=terms.margin, gated=terms.gated)
    return Terms(
        baseline=parse_request(found.baseline.request),
        candidates=tuple(parse_request(side.request) for side in found.candidates),
        workloads=workloads,
        budget_seconds=budget_seconds,
        device=found.device,
        **_kept_options(found),
    )


def unlike_terms(found: Results, terms: Terms) -> str:
    """Returns the first difference between the terms of results and other terms; empty for none.

    The results may have fewer workloads, if `-k` selected some.

    Raises:
        InputError: a workload has changed, or the results lack options.
    """
    if found.device != terms.device:  # whose workloads are others
        return "another device"
    stored = terms_to_resume(found, terms.budget_seconds)
    own = {n: (spec.margin or terms.margin, spec.gated) for n, spec in terms.workloads.items()}
    kept = {name: (spec.margin, spec.gated) for name, spec in stored.workloads.items()}
    for what, one, other in (
        ("another baseline", stored.baseline.text, terms.baseline.text),
        ("other candidates", _texts(stored.candidates), _texts(terms.candidates)),
        ("another budget", found.options.get("budget_seconds"), terms.budget_seconds),
        ("another number of threads", stored.threads, terms.threads),
        ("other workloads or margins", kept, {name: own.get(name) for name in kept}),
    ):
        if one != other:
            return what
    return ""


def _texts(requests: Iterable[Request]) -> list[str]:
    return [request.text for request in requests]


def _kept_options(found: Results) -> dict[str, Any]:
    kinds = {"threads": int, "seed": int, "pair_seconds": float}
    try:
        return {name: kind(found.options[name]) for name, kind in kinds.items()}
    except (KeyError, TypeError, ValueError):
        raise InputError("the results lack options: they cannot be resumed") from None


def _check_budget(budget_seconds: float) -> None:
    if not 10 <= budget_seconds <= 86_400:
        raise InputError(f"--budget is {budget_seconds:g}, expected 10 to 86400 seconds")


def _project_options(project: Path, device: str) -> Mapping[str, Mapping[str, Any]]:
    """Reads a device's workloads from a `pyproject.toml`: `[tool.lenet5-bench.workloads]`."""
    table = "workloads" if device == "cpu" else "gpu-workloads"
    path = project / "pyproject.toml"
    if not path.is_file():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    options = content.get("tool", {}).get("lenet5-bench", {}).get(table, {})
    if not all(isinstance(changes, dict) for changes in options.values()):
        raise InputError(f"{path}: tool.lenet5-bench.{table} must hold a table per workload")
    return dict(options)
