"""Pictures of digits as people make them, drawn from 28x28 digits: scans, photos, screenshots.

A kind is a function of a digit (uint8, (28, 28), 0 ground to 255 ink) and a random stream. Most
draw ink on paper: `inked` enlarges the digit to a map from 0 (paper) to 1 (ink).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from PIL import Image
from scipy import ndimage

Draw = Callable[[np.ndarray, np.random.RandomState], Image.Image]


@dataclass(frozen=True)
class Kind:
    """A kind of picture, and how its files are written."""

    draw: Draw
    format: str = "PNG"
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    def file(self, digit: np.ndarray, seed: int) -> bytes:
        """Returns the file of one digit: uint8 (28, 28)."""
        written = io.BytesIO()
        self.draw(digit, np.random.RandomState(seed)).save(written, self.format, **self.options)
        return written.getvalue()


# ---- ink and paper


def inked(digit: np.ndarray, side: int = 140) -> np.ndarray:
    """Enlarges a digit to (side, side), with edges as sharp as a pen's."""
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    return np.clip((np.asarray(large, np.float64) / 255 - 0.5) * 2.5 + 0.5, 0, 1)


def _cropped(ink: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 0.5) for axis in (1, 0))
    return np.asarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def on_page(ink: np.ndarray, height: int, width: int, top: int, left: int) -> np.ndarray:
    page = np.zeros((height, width))
    page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return page


def grey_image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.uint8(np.clip(np.round(values), 0, 255)))


def drawn(ink: np.ndarray, paper: float | np.ndarray = 245, pen: float = 30) -> np.ndarray:
    """Returns grey values from 0 to 255; a shadow on the paper darkens the ink as well."""
    return np.asarray(paper * (1 - ink * (1 - pen / 245)))


def coloured(ink: np.ndarray, paper: tuple[int, ...], pen: tuple[int, ...]) -> Image.Image:
    ground, colour = np.array(paper, np.float64), np.array(pen, np.float64)
    return grey_image(ground + ink[..., np.newaxis] * (colour - ground))


def positions(ink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of the pixels, from 0 to 1 downwards and to the right."""
    rows, columns = np.indices(ink.shape)
    return rows / ink.shape[0], columns / ink.shape[1]


def turned(ink: np.ndarray, degrees: float) -> np.ndarray:
    return np.asarray(np.clip(ndimage.rotate(ink, degrees, reshape=False, order=1), 0, 1))


# ---- 28x28 pixels


def mnist(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return Image.fromarray(digit)


def mnist_inverted(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return Image.fromarray(255 - digit)


def mnist_on_grey(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ground = random.randint(50, 120)
    return grey_image(ground + digit / 255 * (250 - ground))


def mnist_shifted(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    shift = (random.choice([-4, 4]), random.choice([-4, 4]))
    return Image.fromarray(ndimage.shift(digit, shift, order=0))


def mnist_small(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    small = np.asarray(Image.fromarray(digit).resize((18, 18), Image.Resampling.BICUBIC))
    return Image.fromarray(np.pad(small, 5))


def mnist_filling(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    crop = Image.fromarray(digit[3:25, 3:25])
    return crop.resize((28, 28), Image.Resampling.BICUBIC)


# ---- position and size


def light_on_dark(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(250 * inked(digit))


def dark_on_light(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(drawn(inked(digit)))


def cropped(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(drawn(_cropped(inked(digit))))


def wide_margins(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(drawn(np.pad(inked(digit, 112), 200)))


def off_centre(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    top, left = random.randint(0, 160, 2)
    return grey_image(drawn(on_page(inked(digit, 140), 300, 300, top, left)))


def wide_picture(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    return grey_image(drawn(on_page(inked(digit), 140, 420, 0, random.randint(0, 280))))


def tall_picture(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    return grey_image(drawn(on_page(inked(digit), 420, 140, random.randint(0, 280), 0)))


def rotated(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    return grey_image(drawn(turned(inked(digit), random.choice([-8, 8]))))


# ---- colours and transparency


def low_contrast(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(220 - 40 * inked(digit))


def grey_on_grey(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(70 + 70 * inked(digit))


def blue_on_white(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return coloured(inked(digit), (250, 250, 245), (30, 50, 160))


def red_on_yellow(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return coloured(inked(digit), (250, 230, 90), (200, 30, 30))


def white_on_blue(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return coloured(inked(digit), (20, 40, 140), (250, 250, 250))


def _on_transparency(digit: np.ndarray, grey: int) -> Image.Image:
    ink = inked(digit)
    layers = np.full((*ink.shape, 4), grey, np.uint8)
    layers[..., 3] = np.round(255 * ink)
    return Image.fromarray(layers)


def black_on_transparency(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return _on_transparency(digit, 0)


def white_on_transparency(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return _on_transparency(digit, 255)


# ---- strokes


def thick_strokes(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(drawn(ndimage.grey_dilation(inked(digit), 7)))


def thin_strokes(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(drawn(ndimage.grey_erosion(inked(digit), 5)))


# ---- the optics


def blurred(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(ndimage.gaussian_filter(drawn(inked(digit)), 4))


def _with_noise(digit: np.ndarray, random: np.random.RandomState, sigma: float) -> Image.Image:
    clean = drawn(np.pad(inked(digit), 40), paper=215, pen=60)
    return grey_image(clean + random.normal(0, sigma, clean.shape))


def noise_10(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    return _with_noise(digit, random, 10)


def noise_25(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    return _with_noise(digit, random, 25)


def small_and_noisy(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    clean = drawn(np.pad(inked(digit, 42), 10), paper=215, pen=60)
    return grey_image(clean + random.normal(0, 12, clean.shape))


def dithered(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(drawn(inked(digit), paper=215, pen=40)).convert("1")


def jpeg(digit: np.ndarray, _: np.random.RandomState) -> Image.Image:
    return grey_image(drawn(inked(digit)))


# ---- the paper


def _with_specks(
    digit: np.ndarray, random: np.random.RandomState, specks: int, size: int
) -> Image.Image:
    ink = np.pad(inked(digit), 40)
    for top, left in random.randint(0, ink.shape[0] - size, (specks, 2)):
        ink[top : top + size, left : left + size] = 1
    return grey_image(drawn(ink))


def few_specks(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    return _with_specks(digit, random, specks=5, size=5)


def many_specks(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    return _with_specks(digit, random, specks=60, size=2)


def frame(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ink, width = np.pad(inked(digit), 10), random.randint(2, 7)
    ink[:width] = ink[-width:] = 1
    ink[:, :width] = ink[:, -width:] = 1
    return grey_image(drawn(ink))


def inset_frame(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ink, inset = np.pad(inked(digit), 20), random.randint(5, 16)
    inner = ink[inset + 3 : -inset - 3, inset + 3 : -inset - 3].copy()
    ink[inset:-inset, inset:-inset] = 1
    ink[inset + 3 : -inset - 3, inset + 3 : -inset - 3] = inner
    return grey_image(drawn(ink))


def scan_edge(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """One or two sides of the picture lie beyond the paper."""
    ink, width = np.pad(inked(digit), 12), random.randint(4, 12)
    ink[:, :width] = 0.9
    if random.randint(2):
        ink[-width:] = 0.9
    return grey_image(drawn(ink))


def grid_line(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ink, at = np.pad(inked(digit), 15), random.randint(4, 16)
    ink[at : at + 2, 4:-4] = 1
    return grey_image(drawn(ink))


def ruled(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    """Some lines cross the digit."""
    ink = np.pad(inked(digit), 10)
    for at in range(random.randint(4, 30), ink.shape[0], 36):
        ink[at : at + 2] = np.maximum(ink[at : at + 2], 0.6)
    return grey_image(drawn(ink))


def shadow(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ink = inked(digit)
    down, right = positions(ink)
    edge = random.uniform(0.3, 0.7) + random.uniform(-0.4, 0.4) * (down - 0.5)
    light = 1 - 0.55 / (1 + np.exp(-(right - edge) / 0.05))
    return grey_image(drawn(ink, 245 * light))


def hard_shadow(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ink = inked(digit)
    down, right = positions(ink)
    covered = right + random.uniform(-0.5, 0.5) * down > random.uniform(0.4, 0.8)
    return grey_image(drawn(ink, np.where(covered, 120, 245)))


def gradient(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ink = inked(digit)
    down, right = positions(ink)
    angle = random.uniform(0, 2 * np.pi)
    along = (right - 0.5) * np.cos(angle) + (down - 0.5) * np.sin(angle)
    return grey_image(drawn(ink, 155 + 130 * along))


def gradient_on_dark(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ink = inked(digit)
    down, right = positions(ink)
    ground = 20 + 120 * (down if random.randint(2) else right)
    return grey_image(ground + ink * (250 - ground))


def uneven_paper(digit: np.ndarray, random: np.random.RandomState) -> Image.Image:
    ink = inked(digit)
    stains = ndimage.gaussian_filter(random.normal(0, 1, ink.shape), 18, mode="wrap")
    return grey_image(drawn(ink, 205 + 25 * stains / stains.std()))


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        **{
            draw.__name__: Kind(draw)
            for draw in (
                *(mnist, mnist_inverted, mnist_on_grey, mnist_shifted, mnist_small, mnist_filling),
                *(light_on_dark, dark_on_light, cropped, wide_margins, off_centre, wide_picture),
                *(tall_picture, rotated, low_contrast, grey_on_grey, blue_on_white, red_on_yellow),
                *(white_on_blue, black_on_transparency, white_on_transparency, thick_strokes),
                *(thin_strokes, blurred, noise_10, noise_25, small_and_noisy, dithered),
                *(few_specks, many_specks, frame, inset_frame, scan_edge, grid_line, ruled),
                *(shadow, hard_shadow, gradient, gradient_on_dark, uneven_paper),
            )
        },
        "jpeg": Kind(jpeg, "JPEG", MappingProxyType({"quality": 10})),
    }
)
