"""Simulated walks on drawn blocks of equal environments."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.plans.simulated_walks import (
    KINDS,
    Bank,
    bank_of,
    binary_search,
    noise_of,
    one_step,
    simulate,
    steps_of,
)
from bench.records import results
from lenet5.errors import InputError
from tests.commands import ROOT
from tests.synthetic import LOOP

EQUAL = ROOT / "bench" / "results" / "equal.jsonl"
LEAST = math.log(1.03) / 3


@pytest.fixture(scope="module")
def bank() -> Bank:
    """Returns the stored blocks of equal environments."""
    return bank_of(results.read(EQUAL), LOOP)


def test_the_stored_bank_has_24_blocks_of_six_sides(bank: Bank) -> None:
    assert bank.ratios.shape == (24, 6, 6)
    assert np.allclose(bank.ratios, -bank.ratios.transpose(0, 2, 1))
    paired, alone = noise_of(bank)
    assert 0.004 < paired < 0.012
    assert alone > 3 * paired


@pytest.mark.parametrize("name", KINDS)
def test_few_walks_of_every_kind_are_right(bank: Bank, name: str) -> None:
    """The table of 200 walks a kind stands in the results."""
    found = simulate(KINDS[name], bank, levels=9, least_step=LEAST, walks=5, seed=0)
    assert found.covered == found.answered
    assert found.right >= 4


def test_quiet_blocks_are_never_wrong() -> None:
    side = np.random.RandomState(0).standard_normal((20, 6)) * 1e-4
    quiet = Bank(side[:, None, :] - side[:, :, None], side)
    for kind in (one_step(1.03), steps_of(1.03, 1 / 1.02), steps_of()):
        found = simulate(kind, quiet, levels=8, least_step=LEAST, walks=10, seed=0)
        assert (found.right, found.covered, found.answered) == (10, 10, 10)


def test_binary_search_on_quiet_blocks_finds_a_step() -> None:
    quiet = Bank(np.zeros((4, 6, 6)), np.zeros((4, 6)))
    for is_paired in (True, False):
        found = binary_search(
            one_step(1.03), quiet, levels=9, walks=20, seed=0, is_paired=is_paired
        )
        assert found.right == 20


def test_levels_one_after_the_other_mislead_binary_search(bank: Bank) -> None:
    found = binary_search(one_step(1.03), bank, levels=11, walks=200, seed=0, is_paired=False)
    assert found.right < 60


def test_a_bank_without_whole_blocks_is_refused() -> None:
    with pytest.raises(InputError, match="no block has all 6 sides of import"):
        bank_of(results.read(EQUAL), "import")
