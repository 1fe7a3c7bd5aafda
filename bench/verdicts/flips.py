"""Test images that flip between two environments, and a test whether flips exceed chance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.records.trainings import Trained

SHARE = 0.8  # of the seeds in which an image must flip: 8 of 10
_MOST_EXACT = 12  # seeds up to which every swap of sides is counted
_SAMPLES = 4000


@dataclass(frozen=True)
class Flips:
    """Images that one side classifies correctly and the other wrongly, in most seeds.

    Attributes:
        lost: indices of the images that only the candidate gets wrong, ascending.
        gained: indices of the images that only the candidate gets right, ascending.
        seeds: number of compared seeds.
        least: net number of seeds in which an image must flip one way.
        p_value: share of swaps of the two sides within seeds that give at least as many such
            images. It is the global test of all flips; single images are descriptive only.
    """

    lost: tuple[int, ...]
    gained: tuple[int, ...]
    seeds: int
    least: int
    p_value: float


def find_flips(
    candidate: Sequence[Trained], baseline: Sequence[Trained], labels: np.ndarray, seed: int = 0
) -> Flips | None:
    """Compares the answers of the same seeds.

    If the sides are equal, the assignment of a seed's two answers to the sides is random.
    Swaps within seeds then give the distribution of the number of flips (a permutation test
    after Fisher 1935). Up to 12 seeds all swaps are counted, above that 4,000 random swaps
    and the true assignment.

    Args:
        candidate: seeds with the answers to all test images.
        baseline: the same for the baseline.
        labels: uint8 array (n,), the true digits.
        seed: seed of the random swaps.

    Returns:
        The flips; None if no seed has answers of both sides.
    """
    theirs = {
        trained.seed: trained.digits for trained in baseline if len(trained.digits) == len(labels)
    }
    pairs = [
        (_right(trained.digits, labels), _right(theirs[trained.seed], labels))
        for trained in candidate
        if len(trained.digits) == len(labels) and trained.seed in theirs
    ]
    if not pairs:
        return None
    changes = np.array([ours.astype(np.int8) - other for ours, other in pairs])  # -1: lost
    least = math.ceil(SHARE * len(pairs))
    sums = changes.sum(axis=0)
    observed = int((np.abs(sums) >= least).sum())
    counts = [int((np.abs(signs @ changes) >= least).sum()) for signs in _swaps(len(pairs), seed)]
    return Flips(
        lost=tuple(int(i) for i in np.flatnonzero(sums <= -least)),
        gained=tuple(int(i) for i in np.flatnonzero(sums >= least)),
        seeds=len(pairs),
        least=least,
        p_value=sum(count >= observed for count in counts) / len(counts),
    )


def _right(digits: str, labels: np.ndarray) -> np.ndarray:
    return np.asarray(np.frombuffer(digits.encode(), np.uint8) - ord("0") == labels)


def _swaps(seeds: int, seed: int) -> np.ndarray:
    """Signs, one row per swap; the first row is the true assignment."""
    if seeds <= _MOST_EXACT:
        # The first seed is never swapped: a swap of all seeds changes no count.
        return np.array(list(itertools.product([1], *([[1, -1]] * (seeds - 1)))), np.int8)
    drawn = np.random.RandomState(seed).choice([-1, 1], size=(_SAMPLES, seeds)).astype(np.int8)
    return np.concatenate([np.ones((1, seeds), np.int8), drawn])
