"""Images per second of this session's benchmarks, and their chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito (2008), distinguishable with any colour vision; grey for names without these words.
COLOURS = {"loop": "#0072B2", "fit": "#E69F00", "original": "#009E73", "predict": "#CC79A7"}
OTHER_COLOUR = "#999999"


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


def throughput_figure(rows: Sequence[Throughput]) -> Figure:
    """Draws bars of the median images per second, with a line from slowest to fastest round.

    Training and prediction have separate panels, since prediction is many times faster.

    Args:
        rows: Measured throughput, not empty; bars are in this order from the top.
    """
    from bench.report import charts  # matplotlib takes long to import

    predictions = [row for row in rows if "predict" in row.name]
    panels = [
        ("Training", [row for row in rows if "predict" not in row.name]),
        ("Prediction", predictions),
    ]
    panels = [(title, panel) for title, panel in panels if panel]
    heights = [len(panel) for _, panel in panels]
    figure = charts.new_figure(0.2 + 0.36 * sum(heights) + 0.7 * len(panels))  # 0.7: title and axis
    grid = figure.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (title, panel) in zip(grid[:, 0], panels, strict=True):
        _draw_bars(axes, panel)
        axes.set_title(title, loc="left", fontsize=11)
    grid[-1, 0].set_xlabel("images per second")
    return figure


def _draw_bars(axes: Axes, rows: Sequence[Throughput]) -> None:
    from bench.report import charts

    for position, row in enumerate(rows):
        rates = row.images_per_second
        middle, low, high = median(rates), min(rates), max(rates)
        axes.barh(position, middle, height=0.68, color=_colour(row.name))
        axes.plot([low, high], [position, position], color="black", linewidth=1.5, marker="|")
        axes.annotate(
            f"{middle:,.0f}", (high, position), (6, 0), textcoords="offset points", va="center"
        )
    fastest = max(max(row.images_per_second) for row in rows)
    axes.set_xlim(0, 1.1 * fastest)  # space for the number next to the longest bar
    axes.set_yticks(range(len(rows)), [charts.short(row.name) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # bars equally thick in all panels, the first at the top
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _colour(name: str) -> str:
    return next((colour for word, colour in COLOURS.items() if word in name), OTHER_COLOUR)
