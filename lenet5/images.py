"""Image files and arrays as 28x28 grey images of a light digit on a dark ground, as MNIST's are."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lenet5.errors import InputError

SIDE = 28
_DIGIT_SIDE = 20  # MNIST digits fill a box of 20x20 pixels within the 28x28


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A uint8 image (rows, columns) resampled bilinearly to (height, width), uint8."""
    size = (width, height)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def read_image(path: Path) -> np.ndarray:
    """One digit from an image file of any size and mode that Pillow reads.

    Transparent parts count as white. A digit darker than the picture's border is inverted. A
    picture that is not 28x28 is brought into MNIST's form: the digit's bounding box is scaled to
    fit 20x20 and placed with its centre of mass at the centre (LeCun et al. 1998, section III.A).

    Args:
        path: the file.

    Returns:
        uint8 array of shape (28, 28, 1), digit light on dark.

    Raises:
        InputError: the file is missing, unreadable, not an image, or of one colour.
    """
    grey = _read_grey(path)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > 127:
        grey = 255 - grey
    if np.ptp(grey) < 16:
        raise InputError(f"{path}: an image of one colour holds no digit")
    if grey.shape != (SIDE, SIDE):
        grey = _centre(grey)
    return grey[..., np.newaxis]


def _read_grey(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            # A picture of so many pixels that Pillow warns of it is no scan of one digit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode.startswith(("I", "F")):  # 16 and 32 bits a pixel: keep the contrast
                    values = np.asarray(image, np.float64)
                    span = np.ptp(values) or 1.0
                    return np.asarray(np.round(255 * (values - values.min()) / span), np.uint8)
                layered = image.convert("RGBA")
                white = Image.new("RGBA", layered.size, "white")
                return np.asarray(Image.alpha_composite(white, layered).convert("L"))
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that Pillow can read") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{path}: more pixels than a picture of one digit can have") from None
    except (OSError, ValueError, SyntaxError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as an image: {reason}") from None


def _centre(grey: np.ndarray) -> np.ndarray:
    ground = float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    ink = np.clip(grey - ground, 0, None)
    ink *= 255 / max(ink.max(), 1)
    rows, columns = np.flatnonzero((ink > 48).any(axis=1)), np.flatnonzero((ink > 48).any(axis=0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    scale = _DIGIT_SIDE / max(box.shape)
    height, width = (max(1, round(side * scale)) for side in box.shape)
    digit = resize(box, height, width)
    mass = digit / max(digit.sum(), 1)
    middle = (SIDE - 1) / 2
    row = round(middle - float(mass.sum(axis=1) @ np.arange(height)))
    column = round(middle - float(mass.sum(axis=0) @ np.arange(width)))
    row, column = min(max(row, 0), SIDE - height), min(max(column, 0), SIDE - width)
    centred = np.zeros((SIDE, SIDE), np.uint8)
    centred[row : row + height, column : column + width] = digit
    return centred
