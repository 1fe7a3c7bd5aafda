"""Error rates of the stopping rule on this machine, replayed on blocks of known truth.

Collected with `--self-check` only, after `python -m bench calibrate`. One workload, within 120 s.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from bench.environments.builds import default_cache
from bench.measure import machine
from bench.plans.speed import DEFAULT_MARGIN
from bench.records.catalogue import WORKLOADS
from bench.report.session import FINDINGS
from bench.report.tables import self_check_table
from bench.verdicts import speed_error_rates
from bench.verdicts.sequential import Verdict
from bench.verdicts.speed_error_rates import EQUAL, SLOWED, Row
from lenet5.devices import CPU, read_device
from lenet5.errors import InputError


@pytest.fixture(scope="module")
def replays(pytestconfig: pytest.Config) -> dict[str, list[Row]]:
    """Replays by bank; their table goes to the findings."""
    found: dict[str, list[Row]] = {}
    option = pytestconfig.option
    # TensorFlow has started: this process sees no GPU but the one of `--device`.
    shown = CPU.name if option.device in (None, CPU.name) else "gpu"
    here = machine.describe(read_device(shown, os.environ))
    version = WORKLOADS[speed_error_rates.workload_of(here)].version
    like = speed_error_rates.empty_like(here, option.threads, version)
    for bank in (EQUAL, SLOWED):
        folder = speed_error_rates.bank_folder(default_cache(os.environ), bank, like)
        try:
            runs = speed_error_rates.read_bank(folder, here)
            found[bank] = speed_error_rates.replay(
                runs, bank, margin=DEFAULT_MARGIN, replays=speed_error_rates.REPLAYS, seed=0
            )
        except InputError as error:
            pytest.fail(str(error), pytrace=False)
    table = self_check_table([row for rows in found.values() for row in rows])
    pytestconfig.stash.setdefault(FINDINGS, []).append(table)
    return found


@pytest.mark.parametrize("manner", ["stretches", "draws"])
@pytest.mark.parametrize(
    ("bank", "verdict", "least", "most"),
    [
        pytest.param(EQUAL, Verdict.PASS, 0.95, 1.0, id="equal-passes"),
        pytest.param(EQUAL, Verdict.FAIL, 0.0, 0.01, id="equal-does-not-fail"),
        pytest.param(SLOWED, Verdict.FAIL, 0.95, 1.0, id="slowed-by-6-percent-fails"),
    ],
)
def test_replayed_verdicts_have_the_required_error_rates(
    replays: dict[str, list[Row]],
    record_property: Callable[[str, object], None],
    bank: str,
    manner: str,
    verdict: Verdict,
    least: float,
    most: float,
) -> None:
    """Within 120 s, for one workload, margin 1.03."""
    row = next(row for row in replays[bank] if row.manner == manner)
    record_property(f"{bank}_{manner}_{verdict.value}", row.share(verdict))
    assert least <= row.share(verdict) <= most, str(self_check_table([row]))


def test_no_run_of_equal_sides_fails(replays: dict[str, list[Row]]) -> None:
    """Covers the few real runs."""
    runs = next(row for row in replays[EQUAL] if row.manner == "runs")
    assert runs.counts[Verdict.FAIL] == 0, str(self_check_table([runs]))
