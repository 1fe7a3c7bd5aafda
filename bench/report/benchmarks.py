"""What this session's benchmarks measured, as pytest-benchmark has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Throughput:
    """What one benchmark measured.

    Attributes:
        name: Name of the benchmark, such as `train_step[loop,b32]`.
        batch_size: Images per batch; None if the benchmark does not say.
        threads: TensorFlow's threads; None if the benchmark does not say.
        images_per_second: One value per round, in the order measured; not empty.
    """

    name: str
    batch_size: int | None
    threads: int | None
    images_per_second: tuple[float, ...]


def session_throughput(config: pytest.Config) -> list[Throughput]:
    """What this session's benchmarks measured, in the order they ran.

    A benchmark that did not fail counts if its `extra_info` has `images` (of a round) or else
    `images_per_second`. Without pytest-benchmark, or with it disabled, the list is empty.
    """
    session = getattr(config, "_benchmarksession", None)  # the only place that holds results
    rows = (_throughput(benchmark) for benchmark in getattr(session, "benchmarks", ()))
    return [row for row in rows if row is not None]


def _throughput(benchmark: Any) -> Throughput | None:
    info = benchmark.extra_info
    if benchmark.has_error:
        return None
    if "images" in info:
        rates = tuple(info["images"] / seconds for seconds in benchmark.stats.data if seconds > 0)
    else:
        rates = (info["images_per_second"],) if "images_per_second" in info else ()
    if not rates:
        return None
    name = str(benchmark.name).removeprefix("test_")
    return Throughput(name, info.get("batch_size"), info.get("threads"), rates)
