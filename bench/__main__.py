"""`python -m bench`: verdicts and tables of a results file, and calibration of this machine.

Exit status as pytest's with `--baseline`: 0 all PASS, 1 a FAIL, 2 interrupted, 4 bad input, 6 an
INCONCLUSIVE, 7 an environment that could not be built.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench import (
    accuracy_replays,
    calibration,
    comparison,
    environments,
    machine,
    numerics,
    results,
    trials,
)
from bench.accuracy_comparison import check_margin, decide_all, default_margin, finding
from bench.accuracy_report import accuracy_text
from bench.catalogue import WORKLOADS
from bench.collection import condensed, together
from bench.comparison_report import (
    comparison_html,
    comparison_pictures,
    summary_markdown,
    table_text,
)
from bench.environments import Built, EnvironmentProblem, default_cache
from bench.request import parse_request
from bench.results import Block, Results
from bench.statistics import Verdict
from bench.trainings import (
    Comparison,
    Trainings,
    holds_trainings,
    identity,
    only_writer,
    read_comparison,
    read_trainings,
    reference_path,
    reference_seeds,
    write_trainings,
)
from bench.verdicts import Exit, exit_code, verdicts_of_all
from lenet5 import data
from lenet5.cli import default_data_dir, default_mnist_dir
from lenet5.errors import InputError
from lenet5.recipe import DEFAULT_ENGINE, ENGINES, Recipe, check_seed
from lenet5.recipes import find_recipe
from lenet5.run_directory import writing

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>LeNet-5: training speed</title></head>
<body>{head}</body></html>
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; gives its exit status."""
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
    except BrokenPipeError:  # `... | head`: what was wanted was read
        _leave_pipe()
        return Exit.PASSED
    except KeyboardInterrupt:
        return _refuse("interrupted; what was measured is kept", Exit.INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, told in (
        ("verdict", _verdict, "findings of results files; their exit status"),
        ("show", _show, "the table of results files"),
        ("report", _report, "writes report.html, summary.md, results.json and plots"),
    ):
        command = commands.add_parser(name, help=told)
        command.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
        command.set_defaults(run=run)
        if name == "report":
            command.add_argument("--out", type=Path, required=True, metavar="DIR")
    calibrate = commands.add_parser(
        "calibrate", help=f"measure blocks of known truth: {calibration.WORKLOAD} against itself"
    )
    calibrate.add_argument("--environment", default=".", metavar="REQ", help="default: this one")
    calibrate.add_argument(
        "--runs", type=int, default=10, help="to add to each bank, of up to 120 s; default: 10"
    )
    calibrate.add_argument("--threads", type=int, default=1)
    calibrate.set_defaults(run=_calibrate)
    reference = commands.add_parser(
        "reference", help="train seeds of a recipe: what accuracy is held against"
    )
    reference.add_argument("--recipe", default="fast", metavar="NAME", help="default: fast")
    _add_engine(reference)
    reference.add_argument(
        "--seeds", type=int, metavar="N", help="default: 20 of fast, 10 of other recipes"
    )
    reference.add_argument("--environment", default=".", metavar="REQ", help="default: this one")
    reference.add_argument(
        "--out",
        type=Path,
        metavar="FILE.json",
        help="default: bench/references/<recipe>-<engine>.json",
    )
    reference.set_defaults(run=_reference)
    tried = commands.add_parser("trials", help="train recipes that change one another in something")
    tried.add_argument("recipes", type=Path, metavar="RECIPES.json")
    tried.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    _add_engine(tried)
    tried.add_argument("--seeds", type=int, default=1, metavar="N", help="of each; default: 1")
    tried.add_argument(
        "--first-seed",
        type=int,
        default=0,
        metavar="N",
        help="the N seeds from here on; default: 0",
    )
    tried.add_argument(
        "--protocol",
        choices=trials.PROTOCOLS,
        default="validation",
        help="images that are scored, default: validation; original: the original project's",
    )
    tried.add_argument("--environment", default=".", metavar="REQ", help="default: this one")
    tried.set_defaults(run=_trials)
    errors = commands.add_parser(
        "error-rates", help="draw accuracy comparisons from seeds of known truth, count verdicts"
    )
    errors.add_argument("baseline", type=Path, metavar="BASELINE.json")
    errors.add_argument("candidates", type=Path, nargs="+", metavar="CANDIDATE.json")
    errors.add_argument(
        "--accuracy-margin",
        type=float,
        metavar="POINTS",
        help="default: 1.5 standard deviations between the seeds of the recipe's reference",
    )
    errors.set_defaults(run=_error_rates)
    numerics = commands.add_parser(
        "numerics", help="hold what TensorFlow computes against NumPy with float64"
    )
    numerics.add_argument(
        "--environment", action="append", metavar="REQ", help="repeatable; default: this one"
    )
    numerics.set_defaults(run=_numerics)
    return parser


def _add_engine(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--engine",
        choices=ENGINES,
        default=DEFAULT_ENGINE,
        help=f"that trains; default: {DEFAULT_ENGINE}",
    )


def _verdict(options: argparse.Namespace) -> int:
    if holds_trainings(options.files[0]):
        return _accuracy_verdict(options)
    found = _read(options)
    decisions = verdicts_of_all(found)
    wanted = {decision.candidate for decision in decisions}
    missing = sum(bool(found.candidates[place].problem) for place in wanted)
    lines = [f"{decision.verdict.value}: {decision.finding}" for decision in decisions]
    if not found.complete:
        lines.append("the experiment did not end by itself")
    _print_all(lines)
    return exit_code(decisions, problems=missing)


def _accuracy_verdict(options: argparse.Namespace) -> int:
    sets, terms = _read_accuracy(options)
    decisions = decide_all(sets, terms)
    _print_all(
        f"{decision.verdict.value}: {finding(decision, candidate, sets[0], paired=terms.paired)}"
        for decision, candidate in zip(decisions, sets[1:], strict=True)
    )
    verdicts = {decision.verdict for decision in decisions}
    if Verdict.FAIL in verdicts:
        return Exit.FAILED
    if any(item.problem for item in sets):
        return Exit.NOT_THERE
    return Exit.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts else Exit.PASSED


def _read_accuracy(options: argparse.Namespace) -> tuple[list[Trainings], Comparison]:
    if len(options.files) > 1:
        raise InputError("accuracy results are read one at a time: give one file")
    return read_comparison(options.files[0])


def _show(options: argparse.Namespace) -> int:
    if holds_trainings(options.files[0]):
        sets, terms = _read_accuracy(options)
        print(accuracy_text(sets, decide_all(sets, terms)))
        return Exit.PASSED
    found = _read(options)
    print(table_text(found, verdicts_of_all(found)))
    return Exit.PASSED


def _report(options: argparse.Namespace) -> int:
    found = _read(options)
    kept = options.out / "results.json"
    if any(path.resolve() == kept.resolve() for path in options.files):
        raise InputError(f"{kept} is to be read and would be replaced: choose another --out")
    decisions = verdicts_of_all(found)
    alarms = calibration.false_alarms(found, default_cache(os.environ))
    with writing(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
        head = comparison_html(found, decisions, false_alarms=alarms)
        (options.out / "report.html").write_text(_PAGE.format(head=head), encoding="utf-8")
        summary = summary_markdown(found, decisions, false_alarms=alarms)
        (options.out / "summary.md").write_text(summary, encoding="utf-8")
        for name, png in comparison_pictures(found, decisions).items():
            (options.out / f"{name}.png").write_bytes(png)
    results.write(kept, condensed(found))
    print(options.out)
    return Exit.PASSED


def _read(options: argparse.Namespace) -> Results:
    for path in options.files:
        if holds_trainings(path):
            raise InputError(f"{path}: is of accuracy, expected results of speed")
    return together([results.read(path) for path in options.files])


def _calibrate(options: argparse.Namespace) -> int:
    if not 1 <= options.runs <= 1000:
        raise InputError(f"--runs is {options.runs}, expected 1 to 1000")
    if not 1 <= options.threads <= 256:
        raise InputError(f"--threads is {options.threads}, expected 1 to 256")
    request = parse_request(options.environment)
    images = _mnist().training
    cache = default_cache(os.environ)
    terms = comparison.Terms(
        baseline=request,
        candidates=(request,),
        workloads={calibration.WORKLOAD: WORKLOADS[calibration.WORKLOAD]},
        budget_seconds=calibration.BUDGET_SECONDS,
        threads=options.threads,
    )
    built = comparison.build_environments(terms.baseline, terms.candidates, cache, print)
    for number in range(1, options.runs + 1):
        for bank in (calibration.EQUAL, calibration.SLOWED):  # in turns: drift falls on both
            slowed = replace(terms, call_steps=calibration.call_steps(bank))
            finding = _add_run(bank, slowed, built, images, cache)
            print(f"{bank} {number} of {options.runs}: {finding}", flush=True)
    return Exit.PASSED


def _add_run(
    bank: str,
    terms: comparison.Terms,
    built: comparison.Environments,
    images: data.Subset,
    cache: Path,
) -> str:
    """Measures a run and keeps it; gives its verdict in words."""
    empty = comparison.empty_results(terms, built, code="")
    folder = calibration.bank_folder(cache, bank, empty)
    folder.mkdir(parents=True, exist_ok=True)
    others = [results.read(path) for path in sorted(folder.glob("*.json"))[:1]]
    path = comparison.default_results(folder)

    def on_block(found: Results, _block: Block, _decisions: Any) -> None:
        for other in others:
            calibration.check_belongs(found, other, folder)
        results.write(path, found)

    found = comparison.measure(terms, built, [[calibration.WORKLOAD]], images, on_block)
    results.write(path, found)
    decision = verdicts_of_all(found)[0]
    if not any(block.samples for block in found.blocks):
        path.unlink()
        raise EnvironmentProblem(decision.finding)
    return f"{decision.verdict.value}: {decision.finding}"


def _reference(options: argparse.Namespace) -> int:
    """Trains the seeds that a reference lacks yet; what is trained is kept after each."""
    recipe = find_recipe(options.recipe)
    path = options.out or reference_path(options.recipe, options.engine)
    options.seeds = reference_seeds(recipe.name) if options.seeds is None else options.seeds
    with only_writer(path, default_cache(os.environ)):
        before = read_trainings(path) if path.exists() else []
        if before and identity(before[0].recipe) != identity(recipe):
            raise InputError(f"{path} is of another recipe: remove it to begin a new one")
        return _train(options, [recipe], before, path, least_seeds=2, keep_answers=True)


def _trials(options: argparse.Namespace) -> int:
    """Trains what a file of recipes asks for, and writes a chart beside the results."""
    recipes = trials.read_trials(options.recipes)
    chart_path = options.out.parent / f"{options.out.stem}.png"
    if options.out.suffix != ".json":
        raise InputError(f"--out is {options.out}, expected a name that ends in .json")
    with only_writer(options.out, default_cache(os.environ)):
        before = read_trainings(options.out) if options.out.exists() else []
        status = _train(
            options,
            recipes,
            before,
            options.out,
            first_seed=options.first_seed,
            protocol=options.protocol,
        )
    from bench.accuracy_plots import trials_png  # matplotlib takes long to import

    chart = trials_png(read_trainings(options.out), options.protocol)
    with writing(chart_path):
        chart_path.write_bytes(chart)
    return status


def _train(
    options: argparse.Namespace,
    recipes: Sequence[Recipe],
    before: Sequence[Trainings],
    path: Path,
    *,
    least_seeds: int = 1,
    first_seed: int = 0,
    protocol: str = "test",
    keep_answers: bool = False,
) -> int:
    if not least_seeds <= options.seeds <= 1000:
        raise InputError(f"--seeds is {options.seeds}, expected {least_seeds} to 1000")
    wanted = range(first_seed, first_seed + options.seeds)
    check_seed(wanted[0])
    check_seed(wanted[-1])
    request = parse_request(options.environment)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    dataset = trials.arrange(_mnist(), protocol)
    built = environments.build(request, default_cache(os.environ), say=print)
    asked = {identity(recipe) for recipe in recipes}
    with tqdm(total=len(asked) * options.seeds, unit="seed", disable=None) as bar:

        def on_sets(sets: Sequence[Trainings]) -> None:
            kept = sets if keep_answers else [trials.without_answers(item) for item in sets]
            write_trainings(path, kept)
            seeds = [t.seed for item in sets if identity(item.recipe) in asked for t in item.seeds]
            done = sum(seed in wanted for seed in seeds)
            bar.update(done - bar.n)
            if bar.disable:
                _print_all([f"{done} of {bar.total} seeds"])

        sets, failed = trials.train_recipes(
            recipes,
            built,
            dataset,
            before,
            on_sets,
            engine=options.engine,
            seeds=wanted,
            processes=max(len(machine.cores()), 1),
        )
    print(trials.table(sets))
    if effects := trials.effects_table(sets):
        print(f"\n{effects}")
    for recipe, trained in failed:
        print(f"{path}: {recipe.name}: seed {trained.seed} is missing: {trained.problem}")
    wanting = any(not set(wanted) <= {t.seed for t in item.seeds} for item in sets)
    diverged = any(trained.wrong is None for item in sets for trained in item.seeds)
    return Exit.FAILED if wanting or (keep_answers and diverged) else Exit.PASSED


def _error_rates(options: argparse.Namespace) -> int:
    baseline = _only_set(options.baseline)
    if options.accuracy_margin is not None:
        check_margin(options.accuracy_margin)
    margin = options.accuracy_margin
    if margin is None:
        margin = default_margin(baseline.recipe.name, baseline.engine)
    rows = {
        path.stem: accuracy_replays.replay(
            baseline,
            _only_set(path),
            margin_points=margin,
            replays=accuracy_replays.REPLAYS,
            seed=0,
        )
        for path in options.candidates
    }
    print(f"margin {margin:g} points\n\n{accuracy_replays.table(rows)}")
    return Exit.PASSED


def _only_set(path: Path) -> Trainings:
    sets = read_trainings(path)
    if len(sets) > 1:
        raise InputError(f"{path}: holds {len(sets)} recipes or sides, expected one")
    return sets[0]


def _numerics(options: argparse.Namespace) -> int:
    requests = [parse_request(text) for text in options.environment or ["."]]
    training = _mnist().training
    cache = default_cache(os.environ)
    built = comparison.build_candidates(requests, cache, print)
    there = [comparison.interpreter_of(side) for side in built if isinstance(side, Built)]
    computed = iter(numerics.compute_in(there, training))
    answers = [next(computed) if isinstance(side, Built) else "not there" for side in built]
    found = [answer if isinstance(answer, str) else numerics.by_name(answer) for answer in answers]
    truth = numerics.solve(numerics.make_problem(training))
    print(numerics.table([request.text for request in requests], found, truth))
    status = Exit.PASSED if len(there) == len(built) else Exit.NOT_THERE
    for request, side, quantities in zip(requests, built, found, strict=True):
        if not isinstance(side, Built):
            wrong = []
        elif isinstance(quantities, str):
            wrong = [quantities]
        else:
            wrong = numerics.beyond(numerics.deviations(quantities, truth), numerics.TOLERANCES)
        for line in wrong:
            print(f"FAIL: {request.text}: {line}")
            status = Exit.FAILED
    return status


def _mnist() -> data.Dataset:
    return data.load_dataset(
        "mnist",
        data_dir=default_data_dir(os.environ),
        mnist_dir=default_mnist_dir(os.environ),
    )


def _print_all(lines: Iterable[str]) -> None:
    """Prints lines whether they are read or not: the exit status is of all of them."""
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # `... | head`
        _leave_pipe()


def _leave_pipe() -> None:
    """Lets the interpreter end without complaint that nobody reads its output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(message: str, status: Exit) -> Exit:
    print(f"bench: error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
