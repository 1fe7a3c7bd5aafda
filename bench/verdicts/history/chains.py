"""Chains of baselines: ratios to different baselines on one scale, where measurements link them.

A ratio to a fixed baseline is comparable over months, whatever the machine's mood on a day. Where
the baseline changed, log r(candidate, old) = log r(candidate, new) + log r(new, old), and
r(new, old) is known if a run measured one against the other, or a third environment against both.
Without such a link the series is split. Differences of `memory_growth` add up in the same way.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np


class Edge(NamedTuple):
    """A measurement of one environment against another: log-ratio or difference, and its error."""

    base: str
    other: str
    value: float
    error: float


class Link(NamedTuple):
    """A value to add to points of another baseline, and its standard error."""

    value: float
    error: float


Neighbours = Mapping[str, Mapping[str, Link]]


def links_to(root: str, neighbours: Neighbours) -> dict[str, Link]:
    """Returns the value of every linked environment against the root, over its best path.

    The best path has the least variance (Dijkstra 1959, "A note on two problems in connexion with
    graphs").

    Args:
        root: identity of the baseline that the links lead to.
        neighbours: links of measured pairs, from `pooled`.
    """
    found: dict[str, Link] = {}
    heap = [(0.0, root, 0.0)]
    while heap:
        variance, name, total = heapq.heappop(heap)
        if name in found:
            continue
        found[name] = Link(total, math.sqrt(variance))
        for other, link in neighbours.get(name, {}).items():
            if other not in found:
                heapq.heappush(heap, (variance + link.error**2, other, total + link.value))
    return found


def pooled(edges: Iterable[Edge]) -> Neighbours:
    """Returns the links from each environment to its neighbours, in both directions.

    Repeated measurements of a pair are averaged; the error is the larger one of what the runs
    state and of what their scatter shows.

    Args:
        edges: all measurements of a workload on a machine class; those without an error are left
            out.
    """
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for base, other, value, error in edges:
        if base != other and math.isfinite(error):
            low, high = sorted((base, other))
            pairs[low, high].append((value if base == low else -value, error))
    neighbours: dict[str, dict[str, Link]] = defaultdict(dict)
    for (low, high), measurements in pairs.items():
        values, errors = (np.array(column) for column in zip(*measurements, strict=True))
        count = len(values)
        stated = math.sqrt(float(np.sum(errors**2))) / count
        shown = float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else 0.0
        link = Link(float(np.mean(values)), max(stated, shown))
        neighbours[low][high] = link
        neighbours[high][low] = Link(-link.value, link.error)
    return neighbours
