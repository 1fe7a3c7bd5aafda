"""`python -m bench gpu-check`: options, files, and the lines as they end."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from bench.environments import builds
from bench.environments.builds import Built
from bench.environments.commands import EnvironmentProblem
from bench.environments.request import parse_request
from bench.gpu_check.context import Context
from bench.gpu_check.lines import LIMIT_SECONDS, checks_on, modes_on, training_of_check
from bench.gpu_check.running import run_checks
from bench.measure import machine
from bench.measure.processes import private_folder
from bench.outputs import Output
from bench.records.numerics import DETERMINISTIC_OPS
from bench.report.gpu_check.page import FAIL, NOT_RUN, PASS, GpuCheck, check_html, check_json
from bench.verdicts.outcomes import Exit
from lenet5.data import Dataset
from lenet5.devices import CPU, Device, read_device
from lenet5.environment import git_commit
from lenet5.errors import InputError
from lenet5.printable import printable, short_line

Say = Callable[[str], None]


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of `gpu-check`."""
    add = command.add_argument
    add("--device", default="gpu", metavar="DEVICE", help="gpu or gpu:N; default: gpu")
    add("--environment", default=".", metavar="REQ", help="requirements; default: this environment")
    add(
        "--out",
        type=Path,
        default=Path("reports/gpu-check.html"),
        metavar="FILE.html",
        help="the page",
    )
    add(
        "--json",
        type=Path,
        default=Path("reports/gpu-check.json"),
        metavar="FILE.json",
        help="figures",
    )


def run(
    options: argparse.Namespace,
    load: Callable[[], Dataset],
    cache: Path,
    environment: Mapping[str, str],
    say: Say,
) -> Exit:
    """Runs the check, and writes its figures and its page after every line.

    Args:
        options: parsed options of `add_options`.
        load: returns MNIST.
        cache: folder of environments.
        environment: variables of this process.
        say: receives lines.

    Returns:
        PASSED if every line passed, else FAILED.

    Raises:
        InputError: an option is invalid, or there is no GPU.
        EnvironmentProblem: the environment cannot be built.
        KeyboardInterrupt: after both files were written.
    """
    device = read_device(options.device, environment)
    if device == CPU:
        raise InputError("--device cpu: gpu-check needs a GPU, gpu or gpu:N")
    if options.out.resolve() == options.json.resolve():
        raise InputError(f"--out and --json are both {options.out}")
    request = parse_request(options.environment)
    if DETERMINISTIC_OPS in request.settings:
        raise InputError(f"{DETERMINISTIC_OPS} is set: gpu-check computes with and without it")
    page, figures = Output.checked(options.out), Output.checked(options.json)

    def write(check: GpuCheck, *, is_last: bool = False) -> None:
        figures.write(check_json(check), is_last=is_last)
        page.write(check_html(check, options.json.name), is_last=is_last)

    checks = checks_on(device.name)
    check = GpuCheck(
        request=request.text,
        device=device.name,
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        commit=git_commit(),
        limit_seconds=LIMIT_SECONDS,
        lines=tuple(one.not_run("not reached") for one in checks),
    )
    try:
        write(check)  # files of an earlier check must not look like this one's
        described = machine.describe(device=device)  # before a build, which takes long
        check = replace(check, machine=described)
        built = builds.build(request, cache, say=say)
        check = replace(check, lock=built.lock)
        dataset = load()
        with (
            private_folder() as folder,
            closing(_context(check, built, device, dataset, folder)) as context,
        ):
            start = context.clock()
            context.prepare()
            left = LIMIT_SECONDS - (context.clock() - start)
            for place, line in enumerate(run_checks(checks, context, left)):
                lines = (*check.lines[:place], line, *check.lines[place + 1 :])
                check = replace(check, lines=lines, seconds=context.clock() - start)
                write(check)
                say(printable(str(line)))
        check = replace(check, is_complete=True)
    except (InputError, EnvironmentProblem) as error:
        first, *others = check.lines
        if first.verdict == NOT_RUN:
            first = replace(first, verdict=FAIL, finding=short_line(str(error)))
        check = replace(check, lines=(first, *others))
        raise
    finally:
        write(check, is_last=True)
    say(f"{check.headline}; {options.json}, {options.out}")
    return Exit.PASSED if check.verdict == PASS else Exit.FAILED


def _context(
    check: GpuCheck, built: Built, device: Device, dataset: Dataset, folder: Path
) -> Context:
    return Context(
        *(built, device, dataset, folder),
        modes=modes_on(device.name),
        training=training_of_check(),
        driver=check.machine.get("gpu", {}),
    )
