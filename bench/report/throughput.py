"""Images per second of this session's benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Throughput:
    """Result of one benchmark.

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
    """Returns the results of this session's benchmarks, in the order of their runs.

    A benchmark without an error counts if its `extra_info` has `images` (per round) or
    `images_per_second`. The list is empty without pytest-benchmark or with it disabled.
    """
    session = getattr(config, "_benchmarksession", None)  # the only place with the results
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
