"""The strokes of one digit in a grey picture: ink that belongs together, on the likeliest ground.

Lengths are shares of the picture's longer side, or of the digit's where it says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from lenet5.pictures.grounds import (
    flat_grounds,
    ground_between,
    is_sheet,
    local_ground,
    noise_of,
    sheets_in,
    smooth_ground,
)
from lenet5.pictures.masks import grown, without_lines

CERTAIN = 0.97  # score of a digit that needs no other attempt
LEAST_SCORE = 0.3  # pencil strokes on a small picture reach 0.34, noise and a page of text 0.27
LEAST_CONTRAST = 10  # grey values of 255
LEAST_SHARE_OF_INK = 0.2  # of all ink: a digit stands out from dirt and noise
LONGEST_GAP = 0.35  # of the digit's size: parts of a digit, such as a 5's bar, are as near
THINNEST = 0.09  # strokes, of the digit's size
THICKEST = 0.4  # strokes of a digit that touches the border, of its size
THICKEST_INSIDE = 0.55  # the same, of a digit that touches no border
BLOT = 0.75  # the same: no stroke at all
FULLEST = 0.6  # strokes of a digit that touches the border, of the box around it
WIDEST = 2.2  # times the height; digits of MNIST reach 1.8 in all but 1 of 1,000
_NOTHING = "no digit stands out from the ground"


class UnreadableError(Exception):
    """The picture holds no digit, or several; the message says which."""


@dataclass(frozen=True)
class Strokes:
    """A digit in a picture.

    Attributes:
        ink: float64 array (rows, columns), 0 ground to 1 ink, 0 outside the digit.
        box: rows and columns of the digit.
        score: how well the digit and its ground explain the picture, at most 1.05.
        flaw: why this is not one digit; empty: it may be one.
    """

    ink: np.ndarray
    box: tuple[slice, slice]
    score: float
    flaw: str = ""


@dataclass(frozen=True)
class _Part:
    """A connected piece of ink."""

    label: int
    box: tuple[slice, slice]
    area: int
    mass: float
    touches: int  # borders of the picture

    @property
    def height(self) -> int:
        return int(self.box[0].stop - self.box[0].start)

    @property
    def width(self) -> int:
        return int(self.box[1].stop - self.box[1].start)

    @property
    def size(self) -> int:
        return max(self.height, self.width)

    def contains(self, other: _Part) -> bool:
        margin = 0.06 * self.size
        return all(
            mine.start + margin <= its.start and its.stop <= mine.stop - margin
            for mine, its in zip(self.box, other.box, strict=True)
        )

    def is_beside(self, other: _Part) -> bool:
        """Whether the other part is as tall and as heavy as another digit."""
        starts, stops = zip(*[(p.box[1].start, p.box[1].stop) for p in (self, other)], strict=True)
        shared = min(stops) - max(starts)
        return (
            other.height > 0.6 * self.height
            and other.mass > 0.3 * self.mass
            and shared < 0.15 * min(self.width, other.width)
            and max(stops) - min(starts) > 0.7 * max(self.height, other.height)
        )

    def gap_to(self, other: _Part) -> float:
        """The distance of the boxes."""
        gaps = [
            max(0, its.start - mine.stop, mine.start - its.stop)
            for mine, its in zip(self.box, other.box, strict=True)
        ]
        return float(np.hypot(*gaps))


def find_strokes(grey: np.ndarray) -> Strokes:
    """Finds the strokes of one digit, darker or lighter than the ground around it.

    Args:
        grey: float64 array (rows, columns), 0 to 255.

    Raises:
        UnreadableError: no digit or several digits.
    """
    from scipy import ndimage

    noise = noise_of(grey)
    if noise > 3:
        grey = ndimage.gaussian_filter(grey, min(0.6 + noise / 12, 2.5))
    least = max(LEAST_CONTRAST, noise)
    smooth = smooth_ground(grey)
    attempts: list[Callable[[], Strokes | None]] = [
        *(partial(_strokes_on, grey, ground, ground, least) for ground in flat_grounds(grey)),
        lambda: _strokes_on(grey, *local_ground(grey), least),
        *(partial(_strokes_on_sheet, grey, sheet, least) for sheet in sheets_in(grey)),
        partial(_strokes_on, grey, smooth, smooth, least),
    ]
    found: list[Strokes] = []
    for number, attempt in enumerate(attempts):
        strokes = attempt()
        if strokes is None:
            continue
        if strokes.score > CERTAIN and number < 2:
            return _readable(strokes)
        found.append(replace(strokes, score=strokes.score + 0.05 * (number == 0)))
    if not found:
        raise UnreadableError(_NOTHING)
    best = max(found, key=lambda strokes: strokes.score)  # the first of equals
    for _ in range(2):  # thick strokes hide the ground, once found they do not
        if best.score > CERTAIN:
            break
        ground = ground_between(grey, best.ink > 0)
        again = _strokes_on(grey, ground, ground, least)
        if again is None or again.score <= best.score:
            break
        best = again
    return _readable(best)


def _readable(strokes: Strokes) -> Strokes:
    if strokes.score < LEAST_SCORE:
        raise UnreadableError(_NOTHING)
    if strokes.flaw:
        raise UnreadableError(f"{strokes.flaw} instead of one digit")
    return strokes


def _strokes_on(
    grey: np.ndarray, low: np.ndarray, high: np.ndarray, least: float
) -> Strokes | None:
    # A shadow weakens ink as well.
    dark = np.maximum(low - grey, 0) * (np.median(low) / np.maximum(low, 64))
    light = np.maximum(grey - high, 0)
    drawn = [(ink, *_main_parts(ink, least)) for ink in (dark, light)]
    ink, labels, parts, flaw = max(drawn, key=lambda found: sum(part.mass for part in found[2]))
    return _rated(ink, labels, parts, flaw, np.maximum(dark, light)) if parts else None


def _strokes_on_sheet(grey: np.ndarray, sheet: np.ndarray, least: float) -> Strokes | None:
    """Finds strokes on a sheet of paper alone, a mask; what lies around it is painted over."""
    flat = np.full_like(grey, np.median(grey[sheet]))
    return _strokes_on(np.where(sheet, grey, flat), flat, flat, least)


def _main_parts(ink: np.ndarray, least: float) -> tuple[np.ndarray, list[_Part], str]:
    """Returns labels of pieces of ink, the pieces of the largest thing drawn, and its flaw."""
    level = float(np.quantile(ink, 0.999))
    labels = np.zeros(ink.shape, int)
    parts: list[_Part] = []
    flaw = ""
    for _ in range(2):  # the second time by the digit's own ink instead of the darkest of all
        if level < least:
            return labels, [], ""
        labels, found = _parts(without_lines(ink > max(0.45 * level, least)), ink)
        parts, flaw = _belonging(found)
        if not parts:
            return labels, [], ""
        level = float(np.quantile(ink[labels == parts[0].label], 0.8))
    return labels, parts, flaw


def _parts(mask: np.ndarray, ink: np.ndarray) -> tuple[np.ndarray, list[_Part]]:
    from scipy import ndimage

    near = grown(mask, 1 + max(mask.shape) // 100)
    labels, count = ndimage.label(near, np.ones((3, 3)))
    labels[~mask] = 0
    numbers = np.arange(1, count + 1)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    masses = ndimage.sum_labels(ink, labels, numbers)
    parts = []
    for number, box in enumerate(ndimage.find_objects(labels, count), start=1):
        if box is not None:
            touches = sum(
                edge
                for side, length in zip(box, mask.shape, strict=True)
                for edge in (side.start == 0, side.stop == length)
            )
            parts.append(
                _Part(number, box, int(areas[number - 1]), float(masses[number - 1]), touches)
            )
    return labels, parts


def _belonging(parts: list[_Part]) -> tuple[list[_Part], str]:
    """Returns the largest part inside the picture first, then what belongs to it, and a flaw."""
    # A frame around other ink is none of it.
    inner = [
        part
        for part in parts
        if not any(part.contains(other) and other.mass > 0.1 * part.mass for other in parts)
    ]
    if not inner:
        return [], ""
    main = max(inner, key=lambda part: part.mass * (0.25 if part.touches else 1))
    if main.mass < LEAST_SHARE_OF_INK * sum(part.mass for part in inner if not part.touches):
        return [], ""
    others = [part for part in inner if part is not main and part.touches <= main.touches]
    near = [
        part
        for part in others
        if part.area > 0.04 * main.area and main.gap_to(part) < LONGEST_GAP * main.size
    ]
    several = any(main.is_beside(part) for part in others)
    return [main, *near], "several digits" if several else ""


def _rated(
    ink: np.ndarray, labels: np.ndarray, parts: list[_Part], flaw: str, residual: np.ndarray
) -> Strokes:
    from scipy import ndimage

    chosen = np.isin(labels, [part.label for part in parts])
    level = float(np.quantile(ink[chosen], 0.6))
    box = ndimage.find_objects(chosen.astype(int))[0]
    height, width = (side.stop - side.start for side in box)
    if width > WIDEST * height:
        flaw = flaw or "a line or several digits"
    near = grown(chosen, 2)
    thickness = 2 * ndimage.distance_transform_edt(np.pad(chosen[box], 1)).max()
    core = ~grown(~chosen, 2)
    core = core if core.any() else chosen
    even = float(np.mean(np.abs(ink[core] / level - 1) < 0.25))
    bare = ~(grown(labels > 0, 2) if flaw else near)
    explained = float(np.mean(residual[bare] < 0.25 * level)) if bare.any() else 1.0
    touching = sum(
        edge
        for side, length in zip(box, ink.shape, strict=True)
        for edge in (side.start == 0, side.stop == length)
    )
    if thickness > BLOT * max(height, width) and width > 0.5 * height:
        flaw = "a blot"
    across = {box[0].start == 0, box[0].stop == ink.shape[0]} == {True}
    if across and thickness < 0.08 * height and width < 0.5 * ink.shape[1]:
        flaw = "a line across the picture"
    score = min(even, explained) - 0.04 * touching - 0.03 * (len(parts) - 1)
    thickest = THICKEST if touching else THICKEST_INSIDE
    if touching and width > 0.5 * height:
        score -= max(0.0, float(chosen[box].mean()) - FULLEST)
    if flaw:
        score -= 0.1
    if is_sheet(residual, chosen):
        score -= 0.3
        flaw = flaw or ("a surface" if is_sheet(residual, chosen, least=0.9) else "")
    score -= 1.5 * max(0.0, thickness / max(height, width) - thickest)
    inside = np.clip((ink / level - 0.25) / 0.5, 0, 1) * near
    return _thickened(Strokes(inside, box, score, flaw))


def _thickened(strokes: Strokes) -> Strokes:
    """Draws thin strokes as thick as a thin one of MNIST, which survives the scaling to 20x20."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(strokes.ink > 0.5, 1))
    thickness = 4 * depth[depth > 0].mean() - 2  # the mean depth of a bar is a quarter of it
    size = max(side.stop - side.start for side in strokes.box)
    more = round((THINNEST * size - thickness) / 2)
    if more < 1:
        return strokes
    offsets = np.arange(-more, more + 1)
    disc = np.hypot(*np.meshgrid(offsets, offsets)) <= more + 0.5
    rows, columns = (slice(max(0, side.start - more), side.stop + more) for side in strokes.box)
    return replace(
        strokes, ink=ndimage.grey_dilation(strokes.ink, footprint=disc), box=(rows, columns)
    )
