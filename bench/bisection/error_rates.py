"""`python -m bench bisect-error-rates`: walks on drawn blocks of known truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from bench.plans.simulated_walks import (
    KINDS,
    Counts,
    bank_of,
    binary_search,
    noise_of,
    simulate,
)
from bench.records import results
from bench.records.catalogue import check_margin
from bench.report.tables import Table
from bench.verdicts.bisection.stages import least_step
from bench.verdicts.outcomes import Exit
from lenet5.errors import InputError

EQUAL = Path(__file__).parents[1] / "results" / "equal.jsonl"


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of `python -m bench bisect-error-rates`."""
    command.add_argument(
        "file",
        type=Path,
        nargs="?",
        default=EQUAL,
        metavar="EQUAL.jsonl",
        help="comparison of an environment with itself, side by side; default: the stored one",
    )
    command.add_argument("--workload", default="train_step[loop,b128]", metavar="NAME")
    command.add_argument("--levels", type=int, default=11, help="with good and bad; default: 11")
    command.add_argument("--walks", type=int, default=200, help="of each kind; default: 200")
    command.add_argument("--seed", type=int, default=0, help="default: 0")


def run(options: argparse.Namespace) -> int:
    """Prints hit rate, coverage and cost of walks of each kind, beside binary searches.

    Raises:
        InputError: an option is invalid, or the file holds no blocks of equal environments.
    """
    for name, least, most in (("levels", 6, 1000), ("walks", 1, 10_000), ("seed", 0, 2**31)):
        value = getattr(options, name)
        if not least <= value <= most:
            raise InputError(f"--{name} is {value}, expected {least} to {most}")
    found = results.read(options.file)
    if options.workload not in found.workloads:
        raise InputError(f"{options.file}: has no {options.workload}")
    terms = found.workloads[options.workload]
    if terms.is_difference:
        raise InputError(f"{options.workload} is compared by difference: walks need ratios")
    check_margin(terms.margin)
    bank = bank_of(found, options.workload)
    paired, alone = noise_of(bank)
    print(
        f"{options.workload}, {len(bank.ratios)} blocks of {bank.ratios.shape[1]} sides; standard "
        f"deviation {100 * paired:.2f} % side by side, {100 * alone:.2f} % one after the other"
    )
    same = {"levels": options.levels, "walks": options.walks, "seed": options.seed}
    rows = []
    for name, kind in tqdm(KINDS.items(), disable=None):
        step = least_step(terms)
        own = simulate(kind, bank, least_step=step, **same)
        pairs = binary_search(kind, bank, is_paired=True, **same)
        singles = binary_search(kind, bank, is_paired=False, **same)
        rows.append(_row(name, own, pairs, singles))
    header = (
        *("truth", "right", "answers", "covered", "blocks", "starts"),
        *("binary, paired", "starts", "binary, alone", "starts"),
    )
    print(Table(header, rows, left=1))
    return Exit.PASSED


def _row(name: str, own: Counts, *others: Counts) -> tuple[str, ...]:
    walk = (
        *(f"{own.right} of {own.walks}", str(own.answered), str(own.covered)),
        *(f"{own.blocks:.1f}", f"{own.sides:.0f}"),
    )
    searches = (x for other in others for x in (str(other.right), f"{other.sides:.0f}"))
    return (name, *walk, *searches)
