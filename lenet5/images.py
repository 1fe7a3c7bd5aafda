"""Conversion of images to MNIST's form: 28x28, grey, light digit on dark background."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lenet5.errors import InputError

SIDE = 28
_DIGIT_SIDE = 20  # MNIST digits fill a box of 20x20 within the 28x28 pixels


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resamples a uint8 image (rows, columns) bilinearly to (height, width), uint8."""
    size = (width, height)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def read_image(path: Path) -> np.ndarray:
    """Reads one digit from an image file of any size and mode that Pillow supports.

    Transparent parts count as white, and the EXIF orientation is applied. A digit darker than the
    image's border is inverted. An image of another size than 28x28 is converted to MNIST's form:
    the digit's bounding box is scaled to fit 20x20. Its centre of mass is placed at the centre
    (LeCun et al. 1998, section III.A).

    Args:
        path: image file.

    Returns:
        uint8 array of shape (28, 28, 1), light digit on dark background.

    Raises:
        InputError: the file is missing, unreadable, not an image, or of one colour.
    """
    grey = _read_grey(path)
    if np.ptp(grey) < 16:
        raise InputError(f"{path}: an image of one colour contains no digit")
    if _ground(grey) - grey.min() > grey.max() - _ground(grey):
        grey = 255 - grey
    if grey.shape != (SIDE, SIDE):
        grey = _centre(grey)
    return grey[..., np.newaxis]


def _read_grey(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # An image large enough for Pillow's warning is no scan of one digit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file)
                if image.mode.startswith(("I", "F")):  # 16 or 32 bits per pixel: keeps the contrast
                    return _stretched(np.asarray(image, np.float64))
                layered = image.convert("RGBA")
                white = Image.new("RGBA", layered.size, "white")
                return np.asarray(Image.alpha_composite(white, layered).convert("L"))
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that Pillow can read") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{path}: more pixels than a picture of one digit can have") from None
    except Exception as error:  # Pillow's plugins raise errors of many kinds for a damaged file
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as an image: {reason}") from None


def _stretched(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are not finite")
    span = np.ptp(values) or 1.0
    return np.asarray(np.round(255 * (values - values.min()) / span), np.uint8)


def _ground(grey: np.ndarray) -> float:
    return float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))


def _centre(grey: np.ndarray) -> np.ndarray:
    ink = np.clip(grey - _ground(grey), 0, None)
    ink *= 255 / ink.max()
    rows, columns = np.flatnonzero((ink > 48).any(axis=1)), np.flatnonzero((ink > 48).any(axis=0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    scale = _DIGIT_SIDE / max(box.shape)
    height, width = (max(1, round(side * scale)) for side in box.shape)
    digit = resize(box, height, width)
    mass = digit / max(digit.sum(), 1)  # downscaling may remove all specks
    middle = (SIDE - 1) / 2
    row = round(middle - float(mass.sum(axis=1) @ np.arange(height)))
    column = round(middle - float(mass.sum(axis=0) @ np.arange(width)))
    row, column = min(max(row, 0), SIDE - height), min(max(column, 0), SIDE - width)
    centred = np.zeros((SIDE, SIDE), np.uint8)
    centred[row : row + height, column : column + width] = digit
    return centred
