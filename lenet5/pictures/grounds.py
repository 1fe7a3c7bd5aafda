"""What lies under the ink of a picture: one grey, a smooth surface, a shadow, a sheet on a table.

All pictures and grounds are float64 arrays (rows, columns) from 0 to 255.
"""

from __future__ import annotations

import numpy as np

from lenet5.pictures.masks import grown, rim, runs

_CELLS = 40  # along the longer side: a ground that varies is estimated in cells
_SHEET = 0.75  # of the rectangle around it: a sheet of paper, even a torn one
_BLANK = 0.72  # of a sheet bears no ink


def noise_of(grey: np.ndarray) -> float:
    """Standard deviation of noise between neighbours, after Immerkaer 1996, but by the median."""
    from scipy import ndimage

    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    differences = np.abs(ndimage.convolve(grey, kernel, mode="nearest"))
    return float(np.median(differences)) / 0.6745 / 6


def flat_grounds(grey: np.ndarray) -> list[np.ndarray]:
    """The two greys of most pixels, that of most corners first."""
    above = grey > _otsu(grey)
    high, low = (
        np.full_like(grey, np.median(grey[side]) if side.any() else 0) for side in (above, ~above)
    )
    reach = max(1, round(0.06 * min(grey.shape)))
    ends = [*range(reach), *range(-reach, 0)]
    corners = above[np.ix_(ends, ends)]
    return [high, low] if corners.mean() > 0.5 else [low, high]


def _otsu(grey: np.ndarray) -> float:
    """The threshold that separates two classes best (Otsu 1979)."""
    counts, edges = np.histogram(grey, bins=128)
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + np.nanargmax(between[:-1])])


def smooth_ground(grey: np.ndarray) -> np.ndarray:
    """A surface of the second degree through most pixels: least absolute differences."""
    cell = max(1, round(max(grey.shape) / _CELLS))
    cells = _cell_means(grey, cell)
    rows, columns = (np.linspace(-1, 1, side) for side in cells.shape)
    terms = _surface_terms(rows, columns)
    weights = np.ones(cells.size)
    for _ in range(20):
        fitted = np.linalg.lstsq(
            terms * weights[:, np.newaxis], weights * cells.ravel(), rcond=None
        )[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(terms @ fitted - cells.ravel()), 1))
    rows, columns = (np.linspace(-1, 1, side) for side in grey.shape)
    surface = (_surface_terms(rows, columns) @ fitted).reshape(grey.shape)
    return np.asarray(np.clip(surface, 0, 255))


def _surface_terms(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    y, x = (part.ravel() for part in np.meshgrid(rows, columns, indexing="ij"))
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def local_ground(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest ground around each pixel: medians of a window half the picture's size.

    Two bounds, because the ground on both sides of a shadow's edge is ground.
    """
    from scipy import ndimage

    cell = max(1, round(max(grey.shape) / _CELLS))
    cells = _cell_means(grey, cell)
    medians = ndimage.median_filter(cells, size=_CELLS // 2 + 1, mode="reflect")
    bounds = []
    for extreme in (ndimage.minimum_filter, ndimage.maximum_filter):
        coarse = extreme(medians, size=3, mode="nearest")
        rows, columns = (
            np.clip((np.arange(n) + 0.5) / cell - 0.5, 0, m - 1)
            for n, m in zip(grey.shape, coarse.shape, strict=True)
        )
        grid = np.meshgrid(rows, columns, indexing="ij")
        bounds.append(ndimage.map_coordinates(coarse, grid, order=1, mode="nearest"))
    return bounds[0], bounds[1]


def _cell_means(grey: np.ndarray, cell: int) -> np.ndarray:
    height, width = (-(-side // cell) * cell for side in grey.shape)
    padded = np.pad(grey, ((0, height - grey.shape[0]), (0, width - grey.shape[1])), mode="edge")
    return np.asarray(
        padded.reshape(height // cell, cell, width // cell, cell).mean(axis=(1, 3)), np.float64
    )


def ground_between(grey: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Means of what is no ink around each pixel, over a tenth of the picture or more."""
    from scipy import ndimage

    sigma = 0.04 * max(grey.shape)
    bare = (~grown(ink, 3)).astype(np.float64)
    total, weight = np.zeros_like(grey), np.zeros_like(grey)
    for wider in (1, 4, 16):  # the wider means count where the narrower find no ground
        share = 1e-3 ** np.log2(wider)
        total += share * ndimage.gaussian_filter(grey * bare, wider * sigma)
        weight += share * ndimage.gaussian_filter(bare, wider * sigma)
    return np.asarray(total / np.maximum(weight, 1e-12))


def sheets_in(grey: np.ndarray) -> list[np.ndarray]:
    """Masks of a sheet of paper on a table, without its rim."""
    from scipy import ndimage

    above = grey > _otsu(grey)
    sheets = []
    for side in (above, ~above):
        labels, count = ndimage.label(runs(runs(side, 5, axis=0), 5, axis=1))
        if count:
            sheet = labels == 1 + np.bincount(labels[side])[1:].argmax()
            whole = ndimage.binary_fill_holes(sheet)
            if 0.2 < whole.mean() < 0.97 and is_sheet(grey, sheet):
                sheets.append(~grown(~whole, max(grey.shape) // 50))
    return sheets


def is_sheet(values: np.ndarray, mask: np.ndarray, least: float = _SHEET) -> bool:
    """Whether a mask with few holes fills a rectangle, at any angle, and is no bar.

    Args:
        values: greys, or distances from a ground.
        mask: bool array (rows, columns).
        least: share of the rectangle that it fills, 0 to 1.
    """
    from scipy import ndimage

    rows, columns = np.nonzero(rim(mask))
    angles = np.deg2rad(np.arange(0, 90, 5))[:, np.newaxis]
    lengths = np.ptp(rows * np.cos(angles) + columns * np.sin(angles), axis=1) + 1
    widths = np.ptp(columns * np.cos(angles) - rows * np.sin(angles), axis=1) + 1
    best = np.argmin(lengths * widths)
    narrow = min(lengths[best], widths[best]) < 0.5 * max(lengths[best], widths[best])
    whole = ndimage.binary_fill_holes(mask)
    area = whole.sum()
    blank = mask.sum() > _BLANK * area
    if narrow or not blank or area < least * lengths[best] * widths[best]:
        return False
    holes = whole & ~mask
    if not holes.any() or whole.mean() > 0.5:
        return True
    # A thick 0 or 8 has the same grey inside and around it, a sheet on a table has not.
    own, inside, around = (float(np.median(values[part])) for part in (mask, holes, ~whole))
    return abs(inside - around) > 0.2 * abs(inside - own)
