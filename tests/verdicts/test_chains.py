"""Chains: baselines on one scale, where measurements link them."""

from __future__ import annotations

import math

import pytest

from bench.verdicts.history.chains import Edge, links_to, pooled


def test_a_direct_measurement_links_in_both_directions() -> None:
    edges = [Edge("old", "new", 0.05, 0.003)]
    assert links_to("old", pooled(edges))["new"] == pytest.approx((0.05, 0.003))
    assert links_to("new", pooled(edges))["old"] == pytest.approx((-0.05, 0.003))


def test_a_third_environment_links_two_baselines() -> None:
    """The ratio old to new: log r(third, new) - log r(third, old); errors add in squares."""
    edges = [Edge("old", "third", 0.02, 0.003), Edge("new", "third", -0.01, 0.004)]
    assert links_to("new", pooled(edges))["old"] == pytest.approx((-0.03, 0.005))


def test_the_path_of_least_variance_is_taken() -> None:
    edges = [
        Edge("a", "b", 0.1, 0.02),
        Edge("a", "c", 0.04, 0.001),
        Edge("c", "b", 0.05, 0.001),
    ]
    assert links_to("a", pooled(edges))["b"] == pytest.approx((0.09, 0.001 * math.sqrt(2)))


def test_repeated_measurements_are_averaged_and_their_scatter_counts() -> None:
    close = [Edge("a", "b", 0.1, 0.002)] * 4
    assert links_to("a", pooled(close))["b"] == pytest.approx((0.1, 0.001))
    apart = [Edge("a", "b", 0.08, 0.002), Edge("b", "a", -0.12, 0.002)]
    assert links_to("a", pooled(apart))["b"] == pytest.approx((0.1, 0.02))


def test_what_is_not_linked_is_absent() -> None:
    edges = [Edge("a", "b", 0.1, 0.002), Edge("c", "d", 0.1, 0.002), Edge("a", "c", 0.1, math.nan)]
    assert set(links_to("a", pooled(edges))) == {"a", "b"}
    assert links_to("a", pooled(edges))["a"] == (0.0, 0.0)
