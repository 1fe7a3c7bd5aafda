"""Options of `python -m bench bisect`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.bisection.flow import Ends, Measuring, follow
from bench.bisection.speed import SpeedStages, SpeedTerms
from bench.environments.request import parse_request
from bench.plans.speed import DEFAULT_MARGIN
from bench.records import results
from bench.records.catalogue import WORKLOADS, check_margin
from bench.report.bisection import bisection_text
from bench.speed import say
from lenet5.data import Dataset
from lenet5.errors import InputError
from lenet5.printable import printable

DEFAULT_BUDGET_SECONDS = 1800.0


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
    sections = follow(ends, measuring(mnist(), cache), folder, say)
    print(printable(bisection_text(sections)))
    print(folder / "report.html")
    return int(sections[0].status)


def _ends(options: argparse.Namespace) -> Ends:
    good, bad = (parse_request(text).text for text in (options.good, options.bad))
    if good == bad:
        raise InputError("--good and --bad are the same request")
    levels = tuple(parse_request(text).text for text in options.level)
    return Ends(good, bad, levels, options.nightly)


def _measuring(options: argparse.Namespace) -> Callable[[Dataset, Path], Measuring]:
    if not 10 <= options.budget <= 86_400:
        raise InputError(f"--budget is {options.budget:g}, expected 10 to 86400 seconds")
    return _speed(options)


def _speed(options: argparse.Namespace) -> Callable[[Dataset, Path], Measuring]:
    if options.workload not in WORKLOADS:
        raise InputError(f"--workload is {options.workload}, choose from {' '.join(WORKLOADS)}")
    if not 1 <= options.threads <= 256:
        raise InputError(f"--threads is {options.threads}, expected 1 to 256")
    spec = WORKLOADS[options.workload]
    if options.margin is not None:
        if not spec.is_difference:
            check_margin(options.margin)
        spec = replace(spec, margin=options.margin)
    terms = SpeedTerms(spec, DEFAULT_MARGIN, options.budget, options.threads)
    return lambda dataset, cache: SpeedStages(terms, dataset.training, cache, say)


def add_options(command: argparse.ArgumentParser, request_help: str) -> None:
    """Adds the options of `python -m bench bisect`."""
    command.add_argument("--good", required=True, metavar="REQ", help=request_help)
    command.add_argument("--bad", required=True, metavar="REQ", help=request_help)
    command.add_argument(
        "--level",
        action="append",
        default=[],
        metavar="REQ",
        help="repeatable: an environment between good and bad; default: all releases between them",
    )
    command.add_argument("--workload", metavar="NAME", help="workload whose change is searched")
    command.add_argument("--margin", type=float, help="margin; a third of it counts as a step")
    command.add_argument(
        "--nightly", action="store_true", help="search nightly builds between two releases"
    )
    command.add_argument(
        "--budget",
        type=float,
        default=DEFAULT_BUDGET_SECONDS,
        help=f"seconds of measuring in each stage; default: {DEFAULT_BUDGET_SECONDS:g}",
    )
    command.add_argument("--threads", type=int, default=1, help="TensorFlow's threads; default: 1")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="ledgers and page; the same folder continues a walk"
    )
