"""One task, one ledger: `python -m bench measure`, for a CI matrix, a batch array or ssh.

The task is a block of a comparison of speed, or a seed of a recipe in an environment. The commands
`verdict`, `show` and `report` put the ledgers together.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bench import speed
from bench.environments.builds import Built, build_candidates
from bench.environments.request import parse_request
from bench.measure import machine
from bench.measure.cluster.tasks import BUSY_SECONDS, only_measurer
from bench.measure.worker_files import training_code
from bench.plans.speed import DEFAULT_MARGIN, GPU_MARGIN, Plan, Terms, read_terms, unlike_terms
from bench.records import results
from bench.records.blocks import Block, BlockTask, Results
from bench.records.sides import device_of
from bench.records.trainings import Trainings, identity, is_begun, keeping, read_trainings
from bench.seeds import begun, train_reference
from bench.verdicts.faults import missing
from bench.verdicts.outcomes import Exit
from lenet5.data import Dataset
from lenet5.devices import CPU, read_device
from lenet5.errors import InputError
from lenet5.recipe import DEFAULT_ENGINE, ENGINES, check_seed
from lenet5.recipes import find_recipe

_PROJECT = Path(__file__).parents[1]
_MOST_BLOCKS = 10_000
_OF_BLOCKS = ("baseline", "candidate", "workloads", "margin", "threads")
_OF_SEEDS = ("environment", "recipe", "engine")

Say = Callable[[str], None]


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Adds the parser of `measure`, and returns it."""
    command = commands.add_parser(
        "measure", help="measure one block, or train one seed, into a ledger of its own"
    )
    add = command.add_argument
    task = command.add_mutually_exclusive_group(required=True)
    task.add_argument("--block", type=int, metavar="N", help="the block to measure, from 0")
    task.add_argument("--seed", type=int, metavar="N", help="the seed to train")
    add("--baseline", metavar="REQ", help="of a block")
    add("--candidate", metavar="REQ", action="append", help="of a block; repeatable; default: .")
    add("--workloads", metavar="NAMES", help="of a block: gated (default), all, or names")
    margins = f"{DEFAULT_MARGIN}, on a GPU {GPU_MARGIN}"
    add("--margin", type=float, metavar="RATIO", help=f"of a block; default: {margins}")
    add("--threads", type=int, metavar="N", help="of a block; default: 1")
    add("--environment", metavar="REQ", help="of a seed; default: .")
    add("--recipe", metavar="NAME", help="of a seed; default: fast")
    add("--engine", choices=ENGINES, help=f"of a seed; default: {DEFAULT_ENGINE}")
    add("--device", default=CPU.name, metavar="DEVICE", help="cpu, gpu or gpu:N; default: cpu")
    add("--results", type=Path, required=True, metavar="FILE.jsonl", help="the ledger")
    return command


def measure(
    options: argparse.Namespace, load: Callable[[], Dataset], cache: Path, say: Say
) -> Exit:
    """Measures the task of the options, unless its ledger is complete.

    Args:
        options: parsed options of `add_command`.
        load: returns MNIST.
        cache: folder of environments and locks.
        say: receives progress messages, one line each.

    Returns:
        PASSED if the ledger is complete, whatever it says about the task; NOT_THERE if an
        environment is not there.

    Raises:
        InputError: an option is invalid, or the ledger holds another task.
    """
    is_block = options.block is not None
    for name in _OF_SEEDS if is_block else _OF_BLOCKS:
        if getattr(options, name) is not None:
            other = "--seed" if is_block else "--block"
            raise InputError(f"--{name} belongs to {other}: remove it")
    return (_block if is_block else _seed)(options, load, cache, say)


def _block(options: argparse.Namespace, load: Callable[[], Dataset], cache: Path, say: Say) -> Exit:
    number, path = options.block, options.results
    threads = 1 if options.threads is None else options.threads
    if options.baseline is None:
        raise InputError("--block needs --baseline")
    if not 0 <= number < _MOST_BLOCKS:
        raise InputError(f"--block is {number}, expected 0 to {_MOST_BLOCKS - 1}")
    if not 1 <= threads <= 256:
        raise InputError(f"--threads is {threads}, expected 1 to 256")
    device = read_device(options.device, os.environ)
    speed.check_device(device.name)
    terms = read_terms(
        options.baseline,
        options.candidate or (),
        workloads=options.workloads or "gated",
        margin=options.margin,
        threads=threads,
        device=device.name,
        project=_PROJECT,
    )
    before = results.read(path) if path.exists() and results.is_begun(path) else None
    if before is not None and (unlike := _unlike_block(before, terms, number)):
        raise InputError(f"{path}: holds {unlike}: choose another --results")
    if before is not None and before.complete:
        say(f"{path} is complete")
        return _status(before)
    if before is None:
        results.check_new(path)
    images = load().training
    found: list[Results] = []

    def keep_last(state: Results, _: Block | None) -> None:
        found[:] = [state]

    def only_block(plan: Plan, state: Results, there: Iterable[int]) -> list[BlockTask]:
        specs = {place: [*plan.specs[place].values()] for place in there}
        if not specs or any(block.number == number for block in state.blocks):
            return []
        return [BlockTask(specs, dict.fromkeys(specs, number), turn=number, seed=plan.seed)]

    with results.keeping(path, cache, before) as keep:
        built = build_candidates((terms.baseline, *terms.candidates), cache, say)
        wanted = [list(terms.workloads)] * len(terms.candidates)
        with only_measurer(BUSY_SECONDS):
            arguments = (terms, built, wanted, images, keep_last)
            speed.measure(*arguments, before=before, next_tasks=only_block)
        keep(found[0])  # only now: the rest of an interrupted block is measured again
    say(f"{path}: block {number} is measured")
    return _status(found[0])


def _unlike_block(found: Results, terms: Terms, number: int) -> str:
    """Returns what distinguishes a ledger's task from another; empty for the same."""
    if unlike := unlike_terms(found, terms):
        return f"a block with {unlike}"
    if set(found.workloads) != set(terms.workloads):
        return "a block of other workloads"
    others = {block.number for block in found.blocks} - {number}
    return f"block {min(others)}" if others else ""


def _status(found: Results) -> Exit:
    gone = any(missing(found, place) for place in range(len(found.candidates)))
    return Exit.NOT_THERE if gone else Exit.PASSED


def _seed(options: argparse.Namespace, load: Callable[[], Dataset], cache: Path, say: Say) -> Exit:
    seed, path = options.seed, options.results
    check_seed(seed)
    recipe = find_recipe(options.recipe or "fast")
    engine = options.engine or DEFAULT_ENGINE
    request = parse_request(options.environment or ".")
    device = read_device(options.device, os.environ)
    place = machine.describe(device)
    if path.exists() and is_begun(path):
        before, *others = read_trainings(path)
        task = (before.side.request, identity(before.recipe), before.engine)
        seeds = {trained.seed for trained in before.seeds} - {seed}
        if others or seeds or task != (request.text, identity(recipe), engine):
            raise InputError(f"{path}: holds another task: choose another --results")
        if (other := device_of(before.machine)) != device_of(place):
            raise InputError(f"{path}: holds a seed of {other}: choose another --results")
        if before.seeds:
            say(f"{path} is complete")
            return Exit.PASSED
    dataset = load()
    with keeping(path, cache) as keep:
        (built,) = build_candidates([request], cache, say)
        if not isinstance(built, Built):
            sets = begun(recipe, engine, [request], [built], dataset, training_code(), device)
            keep(sets, complete=True)
            return Exit.NOT_THERE
        found, failed = train_reference(
            *(recipe, built, dataset, None, _ignore),
            engine=engine,
            seeds=[seed],
            processes=1,
            device=device,
        )
        for trained in failed:
            if trained.started:
                found = found.with_seed(trained)
            else:
                found = replace(found, problem=f"its worker cannot start: {trained.problem}")
        keep([found], complete=True)
    say(f"{path}: seed {seed} is trained")
    return Exit.NOT_THERE if found.problem else Exit.PASSED


def _ignore(_: Sequence[Trainings]) -> None:
    """Stores nothing: a seed is stored once it has ended."""
