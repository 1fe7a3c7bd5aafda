"""Flipped images are found, and their number is tested against chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.records.trainings import Trained
from bench.verdicts.flips import find_flips

LABELS = np.arange(200, dtype=np.uint8) % 10


def answers(seed: int, wrong: Sequence[int]) -> Trained:
    """Correct answers except for these images."""
    digits = LABELS.copy()
    digits[list(wrong)] = (digits[list(wrong)] + 1) % 10
    return Trained(seed, len(wrong), len(LABELS), "".join(map(str, digits)))


def test_images_flipped_in_eight_of_ten_seeds_are_found() -> None:
    baseline = [answers(seed, [50]) for seed in range(10)]
    candidate = [answers(seed, [7] * (seed < 8) + [8] * (seed < 7) + [50]) for seed in range(9)]
    candidate.append(answers(9, []))
    flips = find_flips(candidate, baseline, LABELS)
    assert flips is not None
    assert (flips.lost, flips.gained, flips.seeds) == ((7,), (), 10)


def test_corrected_images_are_gained() -> None:
    flips = find_flips(
        [answers(seed, []) for seed in range(5)], [answers(seed, [3]) for seed in range(5)], LABELS
    )
    assert flips is not None
    assert (flips.lost, flips.gained) == ((), (3,))


def test_sides_are_matched_by_seed() -> None:
    assert find_flips([answers(1, [])], [answers(2, [])], LABELS) is None
    assert find_flips([Trained(1, 5, 200)], [answers(1, [])], LABELS) is None


def test_flips_of_equal_sides_agree_with_chance() -> None:
    """About a fifth of 60 equal pairs have a p value of at most 0.2, although images flip."""
    random = np.random.RandomState(0)
    found = []
    for _ in range(60):
        ours, theirs = (
            [answers(s, np.flatnonzero(random.rand(200) < 0.5).tolist()) for s in range(5)]
            for _ in range(2)
        )
        found.append(find_flips(ours, theirs, LABELS))
    counts = [len(flips.lost) + len(flips.gained) for flips in found if flips is not None]
    assert np.mean(counts) > 1
    small = sum(flips.p_value <= 0.2 for flips in found if flips is not None)
    assert 3 <= small <= 20


def test_a_systematic_change_has_a_small_p_value() -> None:
    baseline = [answers(seed, [seed]) for seed in range(10)]
    candidate = [answers(seed, [seed, 50, 51, 52]) for seed in range(10)]
    flips = find_flips(candidate, baseline, LABELS)
    assert flips is not None
    assert flips.lost == (50, 51, 52)
    assert flips.p_value <= 11 / 512  # the true assignment, and those with one seed swapped
