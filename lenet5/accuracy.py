"""Accuracy with counts and a confidence interval."""

from __future__ import annotations

from scipy.stats import binomtest


def wilson_interval(right: int, images: int) -> tuple[float, float]:
    """Returns the 95 % interval of `right / images` by Wilson's score method, within [0, 1].

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Raises:
        ValueError: `right` is not within 0 to `images`, or `images` is 0.
    """
    interval = binomtest(right, images).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def describe_accuracy(errors: int, images: int, interval: tuple[float, float]) -> str:
    """Returns, for example, `98.52 % (148 wrong of 10,000; 95 % interval 98.26-98.74 %)`."""
    low, high = interval
    return (
        f"{100 * (images - errors) / images:.2f} % ({errors:,} wrong of {images:,}; "
        f"95 % interval {100 * low:.2f}-{100 * high:.2f} %)"
    )
