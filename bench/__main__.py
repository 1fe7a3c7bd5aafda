"""`python -m bench`: verdicts and tables of a results file, and calibration of this machine.

The exit status is as for pytest with `--baseline`: 0 all PASS, 1 a FAIL, 2 interrupted, 4 bad
input, 6 an INCONCLUSIVE, 7 a failed build of an environment.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from bench import environments_command, history, numerics, seeds, speed, stored, unit
from bench.bisection import command as bisection
from bench.bisection import error_rates as walk_rates
from bench.environments import builds
from bench.environments.builds import Built, default_cache
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import parse_request
from bench.gpu_check import command as gpu_check
from bench.measure import capacity, machine
from bench.measure.cluster.executor import connected
from bench.plans import speed as speed_plan
from bench.plans.seeds import check_margin, default_margin
from bench.records import results
from bench.records.blocks import Block, Results
from bench.records.catalogue import WORKLOADS
from bench.records.trainings import (
    Trainings,
    is_begun,
    keeping,
    read_trainings,
    reference_path,
    reference_seeds,
)
from bench.report.tables import error_rates_table, reference_table
from bench.verdicts import accuracy_error_rates, speed_error_rates
from bench.verdicts.outcomes import Exit, exit_code
from bench.verdicts.speed import decide
from lenet5 import data
from lenet5.devices import CPU, read_device
from lenet5.errors import InputError
from lenet5.folders import default_cache_dir, default_data_dir, default_mnist_dir
from lenet5.printable import printable
from lenet5.recipe import DEFAULT_ENGINE, ENGINES, check_seed
from lenet5.recipes import find_recipe

_DEVICE = "cpu, gpu or gpu:N, to compute on; default: cpu"
_REQ = "words of requirements and settings, quoted as in a shell; default: this environment"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command, and returns its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may support only ASCII
    parser = _parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as end:  # argparse's own status for a wrong argument is 2
        return Exit.USAGE if end.code else Exit.PASSED
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except InputError as error:
        return _refuse(str(error), Exit.USAGE)
    except EnvironmentProblem as problem:
        return _refuse(str(problem), Exit.NOT_THERE)
    except BrokenPipeError:  # `... | head`: the reader has finished
        _leave_pipe()
        return Exit.PASSED
    except KeyboardInterrupt:
        return _refuse("interrupted; finished measurements are kept", Exit.INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, run in zip(stored.add_commands(commands), (_verdict, _show, _report), strict=True):
        command.set_defaults(run=run)
    unit.add_command(commands).set_defaults(run=_measure)
    calibrate = commands.add_parser(
        "calibrate",
        help="measure blocks of known truth: a workload against itself, "
        f"{speed_error_rates.WORKLOAD} or on a GPU {speed_error_rates.GPU_WORKLOAD}",
    )
    calibrate.add_argument("--environment", default=".", metavar="REQ", help=_REQ)
    calibrate.add_argument(
        "--runs",
        type=int,
        default=10,
        help="runs to add to each bank, up to 120 s each; default: 10",
    )
    calibrate.add_argument("--threads", type=int, default=1)
    calibrate.add_argument(
        "--device", default=CPU.name, metavar="DEVICE", help="cpu, gpu or gpu:N; default: cpu"
    )
    calibrate.set_defaults(run=_calibrate)
    trained = commands.add_parser(
        "reference", help="train seeds of a recipe: the reference of accuracy verdicts"
    )
    trained.add_argument("--recipe", default="fast", metavar="NAME", help="default: fast")
    _add_engine(trained)
    trained.add_argument(
        "--seeds", type=int, metavar="N", help="default: 20 of fast, 10 of other recipes"
    )
    trained.add_argument(
        "--first-seed", type=int, default=0, metavar="N", help="first seed; default: 0"
    )
    trained.add_argument("--environment", default=".", metavar="REQ", help=_REQ)
    trained.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="trainings at a time; default: as many as cores, CPU quota and memory allow",
    )
    trained.add_argument(
        "--cluster", metavar="ADDRESS", help="train on a Dask cluster, such as tcp://node1:8786"
    )
    trained.add_argument(
        "--out",
        type=Path,
        metavar="FILE.jsonl",
        help="default: bench/references/<recipe>-<engine>.jsonl",
    )
    trained.set_defaults(run=_reference)
    errors = commands.add_parser(
        "error-rates", help="draw accuracy comparisons from seeds of known truth, count verdicts"
    )
    errors.add_argument("baseline", type=Path, metavar="BASELINE.jsonl")
    errors.add_argument("candidates", type=Path, nargs="+", metavar="CANDIDATE.jsonl")
    errors.add_argument(
        "--accuracy-margin",
        type=float,
        metavar="POINTS",
        help="default: 1.5 standard deviations between the seeds of the recipe's reference",
    )
    errors.set_defaults(run=_error_rates)
    numerics = commands.add_parser(
        "numerics", help="compare TensorFlow's results with NumPy in float64"
    )
    numerics.add_argument(
        "--environment", action="append", metavar="REQ", help=f"repeatable; {_REQ}"
    )
    numerics.add_argument("--device", default=CPU.name, metavar="DEVICE", help=_DEVICE)
    numerics.set_defaults(run=_numerics)
    check = commands.add_parser("gpu-check", help="check everything that needs a GPU, on this one")
    gpu_check.add_options(check)
    check.set_defaults(run=_gpu_check)
    past = commands.add_parser("history", help="one page of all results under a folder")
    history.add_options(past)
    past.set_defaults(run=history.run)
    bisect = commands.add_parser("bisect", help="find the release and the package of a change")
    bisection.add_options(bisect)
    bisect.set_defaults(run=_bisect)
    kept = commands.add_parser("environments", help="list the built environments, or remove some")
    environments_command.add_options(kept)
    kept.set_defaults(run=environments_command.run)
    rates = commands.add_parser(
        "bisect-error-rates", help="bisect drawn blocks of known truth, count right answers"
    )
    walk_rates.add_options(rates)
    rates.set_defaults(run=walk_rates.run)
    return parser


def _add_engine(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--engine",
        choices=ENGINES,
        default=DEFAULT_ENGINE,
        help=f"training engine; default: {DEFAULT_ENGINE}",
    )


def _verdict(options: argparse.Namespace) -> int:
    lines, status = stored.findings(options)
    _print_all(lines)
    return status


def _show(options: argparse.Namespace) -> int:
    print(stored.table(options))
    return Exit.PASSED


def _report(options: argparse.Namespace) -> int:
    stored.report(options, _mnist)
    print(options.out)
    return Exit.PASSED


def _measure(options: argparse.Namespace) -> int:
    return unit.measure(options, _mnist, default_cache(os.environ), print)


def _calibrate(options: argparse.Namespace) -> int:
    if not 1 <= options.runs <= 1000:
        raise InputError(f"--runs is {options.runs}, expected 1 to 1000")
    if not 1 <= options.threads <= 256:
        raise InputError(f"--threads is {options.threads}, expected 1 to 256")
    request = parse_request(options.environment)
    here = machine.describe(read_device(options.device, os.environ))
    workload = speed_error_rates.workload_of(here)
    images = _mnist().training
    cache = default_cache(os.environ)
    terms = speed_plan.Terms(
        baseline=request,
        candidates=(request,),
        workloads={workload: WORKLOADS[workload]},
        budget_seconds=speed_error_rates.BUDGET_SECONDS,
        threads=options.threads,
        device=options.device,
    )
    built = [builds.build(request, cache, say=print)] * 2
    for number in range(1, options.runs + 1):
        for bank in (
            speed_error_rates.EQUAL,
            speed_error_rates.SLOWED,
        ):  # alternately: a drift affects both
            slowed = replace(terms, call_steps=speed_error_rates.call_steps(bank, workload))
            finding = _add_run(bank, slowed, built, images, cache)
            print(f"{bank} {number} of {options.runs}: {finding}", flush=True)
    return Exit.PASSED


def _add_run(
    bank: str,
    terms: speed_plan.Terms,
    built: Sequence[Built],
    images: data.Subset,
    cache: Path,
) -> str:
    """Measures and stores a run; returns its verdict in words."""
    empty = speed.empty_results(terms, built, code="")
    folder = speed_error_rates.bank_folder(cache, bank, empty)
    folder.mkdir(parents=True, exist_ok=True)
    others = [results.read(path) for path in speed_error_rates.files(folder)[:1]]
    path = results.default_results(folder)

    with results.keeping(path, cache) as keep:

        def on_results(found: Results, _block: Block | None) -> None:
            for other in others:
                speed_error_rates.check_belongs(found, other, folder)
            keep(found)

        found = speed.measure(terms, built, [[*terms.workloads]], images, on_results)
    decision = decide(found)[0]
    if not any(block.samples for block in found.blocks):
        path.unlink()
        raise EnvironmentProblem(decision.finding)
    return f"{decision.verdict.value}: {decision.finding}"


def _reference(options: argparse.Namespace) -> int:
    """Trains the missing seeds of a reference, and stores each finished one."""
    recipe = find_recipe(options.recipe)
    path = options.out or reference_path(options.recipe, options.engine)
    count = reference_seeds(recipe.name) if options.seeds is None else options.seeds
    if not 2 <= count <= 1000:
        raise InputError(f"--seeds is {count}, expected 2 to 1000")
    wanted = range(options.first_seed, options.first_seed + count)
    check_seed(wanted[0])
    check_seed(wanted[-1])
    request = parse_request(options.environment)
    if options.cluster is not None and options.processes is not None:
        raise InputError("--cluster trains on all cores of its workers: remove --processes")
    processes_at_once = capacity.processes(options.processes)
    with (
        keeping(path, default_cache(os.environ)) as keep,
        connected(options.cluster) as cluster,
        tqdm(total=count, unit="seed", disable=None) as bar,
    ):

        def on_sets(sets: Sequence[Trainings]) -> None:
            keep(sets)
            done = sum(trained.seed in wanted for trained in sets[0].seeds)
            bar.update(done - bar.n)
            if bar.disable:
                _print_all([f"{done} of {count} seeds"])

        found, failed = seeds.train_reference(
            recipe,
            builds.build(request, default_cache(os.environ), say=print),
            _mnist(),
            _only_set(path) if is_begun(path) else None,
            on_sets,
            engine=options.engine,
            seeds=wanted,
            processes=processes_at_once,
            cluster=cluster,
        )
    print(reference_table(found))
    for trained in failed:
        print(f"{path}: seed {trained.seed} is missing: {trained.problem}")
    trained_all = set(wanted) <= {trained.seed for trained in found.seeds}
    whole = trained_all and all(trained.wrong is not None for trained in found.seeds)
    return Exit.PASSED if whole else Exit.FAILED


def _error_rates(options: argparse.Namespace) -> int:
    baseline = _only_set(options.baseline)
    if options.accuracy_margin is not None:
        check_margin(options.accuracy_margin)
    margin = options.accuracy_margin
    if margin is None:
        margin = default_margin(baseline.recipe.name, baseline.engine)
    rows = {
        path.stem: accuracy_error_rates.replay(
            baseline,
            _only_set(path),
            margin_points=margin,
            replays=accuracy_error_rates.REPLAYS,
            seed=0,
        )
        for path in options.candidates
    }
    print(f"margin {margin:g} points\n\n{error_rates_table(rows)}")
    return Exit.PASSED


def _only_set(path: Path) -> Trainings:
    sets = read_trainings(path)
    if len(sets) > 1:
        raise InputError(f"{path}: holds {len(sets)} recipes or sides, expected one")
    return sets[0]


def _numerics(options: argparse.Namespace) -> int:
    requests = [parse_request(text) for text in options.environment or ["."]]
    device = read_device(options.device, os.environ)
    cache = default_cache(os.environ)
    table, outcomes = numerics.hold(requests, _mnist().training, cache, print, device)
    print(table)
    _print_all(f"{o.word}: {o.finding}" for o in outcomes if o.is_failed_report)
    return exit_code(outcomes)


def _gpu_check(options: argparse.Namespace) -> int:
    say = partial(print, flush=True)
    return gpu_check.run(options, _mnist, default_cache(os.environ), os.environ, say)


def _bisect(options: argparse.Namespace) -> int:
    return bisection.run(options, _mnist, default_cache(os.environ))


def _mnist() -> data.Dataset:
    return data.load_dataset(
        "mnist",
        data_dir=default_data_dir(os.environ),
        mnist_dir=default_mnist_dir(os.environ),
        cache_dir=default_cache_dir(os.environ),
        report=print,
    )


def _print_all(lines: Iterable[str]) -> None:
    """Prints lines, and ignores a closed pipe: it must not change the exit status."""
    try:
        print(printable("\n".join(lines)), flush=True)
    except BrokenPipeError:  # `... | head`
        _leave_pipe()


def _leave_pipe() -> None:
    """Redirects stdout, so that the interpreter does not report a closed pipe at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(message: str, status: Exit) -> Exit:
    print(f"bench: error: {printable(message)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the time limit of a CI job
    sys.exit(main())
