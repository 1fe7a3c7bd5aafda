"""Options of `python -m bench bisect`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.bisection.accuracy import AccuracyStages
from bench.bisection.flow import Ends, Measuring, follow
from bench.bisection.numerics import NumericsStages
from bench.bisection.speed import SpeedStages, SpeedTerms
from bench.environments.request import parse_request
from bench.measure import capacity
from bench.plans.seeds import check_margin as check_points
from bench.plans.seeds import default_margin
from bench.plans.speed import DEFAULT_MARGIN
from bench.records import results
from bench.records.catalogue import WORKLOADS, check_margin
from bench.report.bisection.page import bisection_text
from bench.speed import say
from lenet5.data import Dataset
from lenet5.errors import InputError
from lenet5.printable import printable
from lenet5.recipe import ENGINES
from lenet5.recipes import find_recipe

DEFAULT_BUDGET_SECONDS = 1800.0
DEFAULT_SEEDS = 40
_END = "words of requirements and settings, quoted as in a shell"
_OF_A_KIND = {
    **dict.fromkeys(("margin", "budget", "threads"), ("--workload", None)),
    **dict.fromkeys(
        ("recipe", "engine", "seeds", "accuracy_margin", "processes"), ("--accuracy", None)
    ),
}


def run(options: argparse.Namespace, mnist: Callable[[], Dataset], cache: Path) -> int:
    """Runs a bisection; checks all options before it starts anything.

    Args:
        options: parsed options.
        mnist: returns MNIST.
        cache: folder of environments and locks.

    Returns:
        The exit code: 0 with an answer, 6 without one.

    Raises:
        InputError: an option is invalid, or the folder holds another walk.
        EnvironmentProblem: good or bad cannot be built or measured, or an index not read.
        KeyboardInterrupt: after the last block was stored.
    """
    ends, measuring = _ends(options), _measuring(options)
    folder = options.out or results.default_results(Path("reports"), "bisect").with_suffix("")
    sections = follow(ends, measuring(mnist(), cache), folder, cache, say)
    print(printable(bisection_text(sections)))
    print(folder / "report.html")
    return int(max(section.status for section in sections))


def _ends(options: argparse.Namespace) -> Ends:
    good, bad = (parse_request(text).text for text in (options.good, options.bad))
    if good == bad:
        raise InputError("--good and --bad are the same request")
    levels = tuple(parse_request(text).text for text in options.level)
    return Ends(good, bad, levels, options.nightly)


def _measuring(options: argparse.Namespace) -> Callable[[Dataset, Path], Measuring]:
    """Returns what is watched, once MNIST is known; all options are checked before."""
    kinds = [options.workload is not None, options.accuracy, options.numerics]
    if sum(kinds) != 1:
        raise InputError("give one of --workload, --accuracy and --numerics")
    kind = ("--workload", "--accuracy", "--numerics")[kinds.index(True)]
    for name, (option, default) in _OF_A_KIND.items():
        if getattr(options, name) != default and option != kind:
            raise InputError(f"--{name.replace('_', '-')} needs {option}")
    if options.accuracy:
        return _accuracy(options)
    if options.numerics:
        return lambda dataset, cache: NumericsStages(dataset.training, cache, say)
    return _speed(options)


def _accuracy(options: argparse.Namespace) -> Callable[[Dataset, Path], Measuring]:
    recipe = find_recipe(options.recipe or "fast")
    count = DEFAULT_SEEDS if options.seeds is None else options.seeds
    if not 4 <= count <= 1000:
        raise InputError(f"--seeds is {count}, expected 4 to 1000")
    engine = options.engine or "graph"
    margin = options.accuracy_margin
    if margin is None:
        margin = default_margin(recipe.name, engine)
    check_points(margin)
    at_once = capacity.processes(options.processes)
    return lambda dataset, cache: AccuracyStages(
        recipe, engine, margin, count, at_once, dataset, cache, say
    )


def _speed(options: argparse.Namespace) -> Callable[[Dataset, Path], Measuring]:
    budget = DEFAULT_BUDGET_SECONDS if options.budget is None else options.budget
    threads = 1 if options.threads is None else options.threads
    if options.workload not in WORKLOADS:
        raise InputError(f"--workload is {options.workload}, choose from {' '.join(WORKLOADS)}")
    if not 10 <= budget <= 86_400:
        raise InputError(f"--budget is {budget:g}, expected 10 to 86400 seconds")
    if not 1 <= threads <= 256:
        raise InputError(f"--threads is {threads}, expected 1 to 256")
    spec = WORKLOADS[options.workload]
    if options.margin is not None:
        if not spec.is_difference:
            check_margin(options.margin)
        spec = replace(spec, margin=options.margin)
    terms = SpeedTerms(spec, DEFAULT_MARGIN, budget, threads)
    return lambda dataset, cache: SpeedStages(terms, dataset.training, cache, say)


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of `python -m bench bisect`."""
    command.add_argument("--good", required=True, metavar="REQ", help=_END)
    command.add_argument("--bad", required=True, metavar="REQ", help=_END)
    command.add_argument(
        "--level",
        action="append",
        default=[],
        metavar="REQ",
        help="repeatable: an environment between good and bad; default: all releases between them",
    )
    command.add_argument("--workload", metavar="NAME", help="search a change of its time or memory")
    command.add_argument("--accuracy", action="store_true", help="search a change of accuracy")
    command.add_argument("--numerics", action="store_true", help="search changes of bits")
    command.add_argument(
        "--nightly", action="store_true", help="search nightly builds between two releases"
    )
    command.add_argument(
        "--margin", type=float, help="of --workload; a third of the margin counts as a step"
    )
    command.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help=f"of --workload: measuring in each stage; default: {DEFAULT_BUDGET_SECONDS:g}",
    )
    command.add_argument("--threads", type=int, help="of --workload: TensorFlow's; default: 1")
    command.add_argument("--recipe", metavar="NAME", help="of --accuracy; default: fast")
    command.add_argument("--engine", choices=ENGINES, help="of --accuracy; default: graph")
    command.add_argument(
        "--seeds", type=int, help=f"of --accuracy: at most; default: {DEFAULT_SEEDS}"
    )
    command.add_argument(
        "--accuracy-margin",
        type=float,
        metavar="POINTS",
        help="of --accuracy; a third of the margin counts as a step",
    )
    command.add_argument("--processes", type=int, help="of --accuracy: trainings at a time")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="ledgers and page; the same folder continues a walk"
    )
