"""Masks of ink: bool arrays (rows, columns), and the lines of ruled paper and frames in them."""

from __future__ import annotations

import numpy as np


def runs(mask: np.ndarray, length: float, axis: int) -> np.ndarray:
    """Keeps runs of at least so many pixels along an axis: an opening."""
    from scipy import ndimage

    size = 2 * int(length / 2) + 1
    kept = ndimage.minimum_filter1d(mask.view(np.uint8), size, axis, mode="constant")
    return np.asarray(ndimage.maximum_filter1d(kept, size, axis, mode="constant").view(bool))


def without_gaps(mask: np.ndarray, length: float, axis: int) -> np.ndarray:
    """Fills gaps of at most so many pixels along an axis: a closing."""
    return ~runs(~mask, length + 1, axis)


def grown(mask: np.ndarray, pixels: int, axis: int | None = None) -> np.ndarray:
    """Adds so many pixels on each side, along one axis or both."""
    from scipy import ndimage

    for each in (0, 1) if axis is None else (axis,):
        size = 2 * pixels + 1
        mask = ndimage.maximum_filter1d(mask.view(np.uint8), size, each, mode="constant")
    return np.asarray(mask.view(bool))


def rim(mask: np.ndarray) -> np.ndarray:
    """Returns the outermost pixels of a mask."""
    return np.asarray(mask & grown(~np.pad(mask, 1), 1)[1:-1, 1:-1])


def without_lines(mask: np.ndarray) -> np.ndarray:
    """Removes thin straight lines that reach beyond the rest on both sides: ruled paper, frames."""
    from scipy import ndimage

    across, down = _lines(mask), _lines(mask.T).T
    rest = runs(runs(mask & ~across & ~down, 3, axis=0), 3, axis=1)
    labels, count = ndimage.label(grown(rest, 2))
    if not count or not (across.any() or down.any()):
        return mask
    main = 1 + np.bincount(labels[rest], minlength=count + 1)[1:].argmax()
    box = ndimage.find_objects(labels)[main - 1]
    for axis, lines in enumerate((down, across)):
        at = np.flatnonzero(lines.any(axis=1 - axis))
        length, digit = mask.shape[axis], box[axis]
        margin = max(0.03 * length, 0.12 * (digit.stop - digit.start))
        beyond = len(at) and at[0] < digit.start - margin and digit.stop + margin < at[-1]
        if beyond and at[0] < 0.12 * length and at[-1] > 0.88 * length:
            mask = mask & ~lines
    return mask


def _lines(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels of thin, long and nearly horizontal lines, without strokes across them."""
    from scipy import ndimage

    height, width = mask.shape
    reach = width // 10  # more than any slant shifts a column
    shifts = _slant(mask)
    level = _shifted(np.pad(mask, ((reach, reach), (0, 0))), -shifts)
    whole = without_gaps(grown(level, 1, axis=0), 0.05 * width, axis=1)
    long = runs(whole, 0.6 * width, axis=1)
    if not long.any():
        return long[:height]
    thickest = max(3, round(0.05 * max(mask.shape)))
    lines = np.zeros_like(long)
    labels, _ = ndimage.label(long, np.ones((3, 3)))
    for box in ndimage.find_objects(labels):
        if box[0].stop - box[0].start <= thickest + 2:
            lines[box] |= long[box]
    # A stroke that crosses a line is longer than the line is thick.
    lines = grown(lines, 1, axis=0) & ~runs(level, 2 * thickest, axis=0)
    return _shifted(lines, shifts)[reach : height + reach]


def _slant(mask: np.ndarray) -> np.ndarray:
    """Returns by how many rows the longest nearly horizontal line deviates in each column."""
    rows, columns = np.nonzero(mask)
    width = mask.shape[1]

    def longest(shifts: np.ndarray) -> int:
        return int(np.bincount(rows - shifts[columns] + width).max(initial=0))

    away = np.arange(width) - width / 2
    slopes = sorted(np.linspace(-0.1, 0.1, 21), key=abs)
    return max((np.round(slope * away).astype(int) for slope in slopes), key=longest)


def _shifted(mask: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    rows = (np.arange(mask.shape[0])[:, np.newaxis] - shifts) % mask.shape[0]
    return np.asarray(np.take_along_axis(mask, rows, axis=0))
