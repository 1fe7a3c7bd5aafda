"""Kinds of pictures that the conversion was not fitted to: files of other modes, photos, tables."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image
from scipy import ndimage

from tests.pictures import (
    Kind,
    coloured,
    drawn,
    grey_image,
    inked,
    on_page,
    positions,
    turned,
)

# ---- files


def palette(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    return squared_paper(digit, random).quantize(16)


def cmyk(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return coloured(inked(digit), (250, 245, 235), (40, 40, 90)).convert("CMYK")


def grey_with_alpha(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    """A light digit on transparency, with a black outline that has no alpha."""
    ink = np.round(255 * inked(digit))
    return Image.merge("LA", [Image.fromarray(np.uint8(np.where(ink, 230, 0))), grey_image(ink)])


def black_and_white(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(drawn(inked(digit))).convert("1", dither=Image.Dither.NONE)


def sixteen_bits(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    values = 40_000 - 12_000 * inked(digit) + random.normal(0, 300, (140, 140))
    return Image.fromarray(values.astype(np.uint16))


def turned_by_exif(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    """A picture that lies on its side; the file's options hold the way to turn it back."""
    return Image.fromarray(np.rot90(np.uint8(drawn(inked(digit)))).copy())


def small_jpeg(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(drawn(inked(digit, 56)))


# ---- pens


def thin_pen(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    """A fineliner at 300 dots per inch: lines of some 5 pixels in a digit of 400."""
    ink = inked(digit, 560)
    inside = ndimage.distance_transform_edt(ink > 0.5)
    ridge = (inside > 2) & (inside >= ndimage.maximum_filter(inside, 5) - 0.5)
    line = ndimage.binary_dilation(ndimage.binary_closing(ridge, _disc(8)), _disc(1))
    return grey_image(drawn(ndimage.gaussian_filter(line.astype(float), 1), 250, 40))


def marker(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    ink = ndimage.grey_dilation(np.pad(inked(digit), 15), footprint=_disc(6))
    return coloured(ink, (252, 252, 250), (20, 20, 25))


def broken_strokes(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """A gap through the digit, such as between a 5's bar and its body."""
    ink = inked(digit)
    at, gap = random.randint(50, 90), random.randint(4, 8)
    if random.randint(2):
        ink[at : at + gap] = 0
    else:
        ink[:, at : at + gap] = 0
    return grey_image(drawn(ink))


def pencil(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """Grey and grainy strokes."""
    ink = ndimage.grey_erosion(inked(digit, 200), 5)
    grain = ndimage.gaussian_filter(random.normal(0, 1, ink.shape), 1)
    ink = ink * np.clip(0.45 + 0.35 * grain / grain.std(), 0, 1)
    return grey_image(240 - 130 * ink + random.normal(0, 4, ink.shape))


def chalk(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """Grainy strokes on a board with wiped areas."""
    ink = np.pad(inked(digit, 200), 40)
    grain = ndimage.gaussian_filter(random.normal(0, 1, ink.shape), 1.2)
    ink = ink * np.clip(0.75 + 0.5 * grain / grain.std(), 0, 1)
    wiped = ndimage.gaussian_filter(random.normal(0, 1, ink.shape), (30, 10))
    board = 55 + 18 * wiped / wiped.std()
    grey = board + ink * (225 - board) + random.normal(0, 5, ink.shape)
    return grey_image(np.stack([0.85 * grey, grey, 0.9 * grey], axis=-1))


def yellow_on_white(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return coloured(inked(digit), (255, 255, 255), (250, 225, 60))


def red_on_green(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    """Two colours of nearly the same brightness."""
    return coloured(inked(digit), (40, 130, 60), (210, 70, 50))


# ---- paper and table


def squared_paper(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ink = np.pad(inked(digit), 20)
    paper = np.full((*ink.shape, 3), (250.0, 250.0, 248.0))
    for at in range(random.randint(18), ink.shape[0], 18):
        paper[at] = paper[:, at] = (160, 185, 225)
    colour = np.array([35.0, 50.0, 150.0])
    return grey_image(paper + ink[..., np.newaxis] * (colour - paper))


def tilted_ruled_paper(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """Ruled paper with a margin line, photographed at a tilt of up to 4 degrees."""
    ink = np.pad(inked(digit), 60)
    lines = np.zeros_like(ink)
    for at in range(random.randint(4, 30), ink.shape[0], 42):
        lines[at : at + 2] = 0.55
    lines[:, 40:42] = 0.55
    tilted = turned(np.maximum(ink, lines), random.uniform(-4, 4))
    return grey_image(drawn(tilted[25:-25, 25:-25]))


def page_corner(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """A digit of 80 pixels in the corner of a page of 1000x700, with dust."""
    top, left = random.choice([30, 860]), random.choice([30, 560])
    page = on_page(inked(digit, 112), 1000, 700, top, left)
    for row, column in random.randint(0, 690, (25, 2)):
        page[row : row + 3, column : column + 3] = 0.8
    return grey_image(drawn(page))


def torn_paper(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """Paper with torn edges on a dark table."""
    ink = np.pad(inked(digit), 30)
    tears = ndimage.gaussian_filter(random.normal(0, 1, ink.shape), 5)
    down, right = positions(ink)
    inside = np.minimum.reduce([down, right, 1 - down, 1 - right]) - 0.03 * tears / tears.std()
    return grey_image(np.where(inside > 0.07, drawn(ink), 70) + random.normal(0, 3, ink.shape))


def paper_on_table(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """A sheet at an angle, darker wood with grain all around."""
    ink = np.pad(inked(digit), 25)
    sheet = np.pad(drawn(ink), 60, constant_values=-1000)
    sheet = ndimage.rotate(sheet, random.uniform(-7, 7), reshape=False, order=1, cval=-1000)
    wood = ndimage.gaussian_filter(random.normal(0, 1, sheet.shape), (1, 20))
    return grey_image(np.where(sheet > 0, sheet, 105 + 15 * wood / wood.std()))


def stain(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """A ring of coffee over the digit."""
    ink = np.pad(inked(digit), 20)
    down, right = positions(ink)
    far = np.hypot(down - random.uniform(0.3, 0.7), right - random.uniform(0.3, 0.7))
    ring = np.exp(-(((far - 0.3) / 0.015) ** 2)) + 0.3 * (far < 0.3)
    return grey_image(drawn(ink, 245 - 60 * ring))


def crease(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """A fold across the paper: one side darker, a thin dark line between."""
    ink = np.pad(inked(digit), 15)
    down, right = positions(ink)
    side = right - 0.5 + random.uniform(-0.8, 0.8) * (down - 0.5) + random.uniform(-0.2, 0.2)
    paper = np.where(side > 0, 235, 205) - 70 * np.exp(-((side / 0.01) ** 2))
    return grey_image(drawn(ink, paper))


def other_side(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    """The back of the paper shows through."""
    ink = np.pad(inked(digit), 10)
    back = 0.22 * ndimage.gaussian_filter(np.roll(ink[:, ::-1], 40, axis=0), 2)
    return grey_image(drawn(np.maximum(ink, back)))


def cloth(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ink = np.pad(inked(digit), 20)
    down, right = positions(ink)
    threads = np.sin(down * 200 + random.uniform(0, 6)) * np.sin(right * 200)
    return grey_image(drawn(ink, 200 + 25 * threads))


def circled(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    ink = np.pad(inked(digit), 30)
    down, right = positions(ink)
    far = np.hypot(down - 0.5, right - 0.5)
    return grey_image(drawn(np.maximum(ink, np.abs(far - 0.45) < 0.015)))


# ---- light and lens


def vignette(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ink = np.pad(inked(digit), 20)
    down, right = positions(ink)
    light = 1 - 1.1 * ((down - 0.5) ** 2 + (right - 0.5) ** 2)
    return grey_image(drawn(ink, 225 * light) + random.normal(0, 6, ink.shape))


def hand_shadow(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """A blob with a soft edge, from one side over the digit."""
    ink = np.pad(inked(digit), 20)
    blobs = ndimage.gaussian_filter(random.normal(0, 1, ink.shape), 22)
    down, right = positions(ink)
    reach = (right if random.randint(2) else down) + 0.12 * blobs / blobs.std()
    light = 1 - 0.45 / (1 + np.exp(-(reach - 0.5) / 0.025))
    return grey_image(drawn(ink, 235 * light))


def glare(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ink = np.pad(inked(digit), 20)
    down, right = positions(ink)
    far = np.hypot(down - random.uniform(0.2, 0.8), right - random.uniform(0.2, 0.8))
    return grey_image(drawn(ink, 150) + 120 * np.exp(-((far / 0.25) ** 2)))


def motion_blur(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    grey = drawn(np.pad(inked(digit), 15))
    return grey_image(ndimage.uniform_filter1d(grey, 12, axis=random.randint(2)))


def perspective(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    image = grey_image(drawn(np.pad(inked(digit), 30)))
    right, lower = random.randint(0, 25, 2)
    corners = (0, 0, lower, 200, 200 - lower, 200 - right, 200, right)
    return image.transform((200, 200), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)


def toolbar(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """A screenshot of a drawing program: a bar with buttons above the canvas."""
    canvas = np.pad(drawn(inked(digit, 180), 255, 0), ((20, 20), (60, 60)), constant_values=255)
    bar = np.full((30, canvas.shape[1]), 210.0)
    for left in range(8, 200, 26):
        bar[8:22, left : left + 14] = random.randint(40, 160)
    return grey_image(np.concatenate([bar, canvas]))


def _disc(radius: int) -> np.ndarray:
    offsets = np.arange(-radius, radius + 1)
    return np.hypot(*np.meshgrid(offsets, offsets)) <= radius + 0.5


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


MORE_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        **{
            draw.__name__: Kind(draw)
            for draw in (
                *(palette, grey_with_alpha, black_and_white, sixteen_bits, thin_pen, marker),
                *(broken_strokes, pencil, chalk, yellow_on_white, red_on_green, squared_paper),
                *(tilted_ruled_paper, page_corner, torn_paper, paper_on_table, stain, crease),
                *(other_side, cloth, circled, vignette, hand_shadow, glare, motion_blur),
                *(perspective, toolbar),
            )
        },
        "cmyk": Kind(cmyk, "JPEG"),
        "turned_by_exif": Kind(turned_by_exif, "JPEG", MappingProxyType({"exif": _orientation(6)})),
        "small_jpeg": Kind(small_jpeg, "JPEG", MappingProxyType({"quality": 8})),
    }
)
