"""Conversion of images to MNIST's form: 28x28, grey, light digit on dark background."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lenet5.errors import InputError
from lenet5.pictures.strokes import Strokes, UnreadableError, find_strokes

SIDE = 28
_DIGIT_SIDE = 20  # MNIST digits fill a box of 20x20 within the 28x28 pixels
_CENTRE = 14.0  # row and column of the centre of mass, in MNIST's files within 0.52
# Other formats keep further sizes or views of the same picture, such as a phone's MPO.
_PAGED = ("GIF", "PNG", "TIFF", "WEBP", "AVIF")
_WORK_SIDE = 200  # pixels of the longer side in which strokes are looked for


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resamples a uint8 image (rows, columns) bilinearly to (height, width), uint8."""
    size = (width, height)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def read_image(path: Path, *, convert_28x28: bool = True) -> np.ndarray:
    """Reads one digit from an image file of any size and mode that Pillow supports.

    A picture in MNIST's form (28x28, black ground, a digit of 20x20 centred by its mass), or its
    negative, is taken as it is. Of any other, the strokes of the digit are found on their ground,
    whatever its shade, scaled to fit 20x20 and centred by mass (LeCun et al. 1998, section III.A).
    The EXIF orientation is applied.

    Args:
        path: image file.
        convert_28x28: False takes every picture of 28x28 pixels as it is, at most inverted.

    Returns:
        uint8 array of shape (28, 28, 1), light digit on dark background.

    Raises:
        InputError: the file is missing, unreadable, not an image, or shows no single digit.
    """
    grey = _read_grey(path)
    if np.ptp(grey) < 16:
        raise InputError(f"{path}: an image of one colour contains no digit")
    if not convert_28x28 and grey.shape == (SIDE, SIDE):
        return (255 - grey if np.median(_border(grey)) > 127 else grey)[..., np.newaxis]
    for image in (grey, 255 - grey):
        if _is_like_mnist(image):
            return image[..., np.newaxis]
    try:
        return _converted(grey)[..., np.newaxis]
    except UnreadableError as error:
        raise InputError(f"{path}: {error}") from None


def _read_grey(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # An image large enough for Pillow's warning is no scan of one digit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                pages = getattr(file, "n_frames", 1) if file.format in _PAGED else 1
                if pages > 1:
                    raise InputError(f"{path}: has {pages} pages or frames, one is expected")
                image = ImageOps.exif_transpose(file)
                if image.mode.startswith(("I", "F")):  # 16 or 32 bits per pixel: keeps the contrast
                    return _stretched(np.asarray(image, np.float64))
                return _flattened(image)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that Pillow can read") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{path}: more pixels than a picture of one digit can have") from None
    except Exception as error:  # Pillow's plugins raise errors of many kinds for a damaged file
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as an image: {reason}") from None


def _flattened(image: Image.Image) -> np.ndarray:
    """Returns grey values; what is transparent gets the ground's grey."""
    colours = image.convert("RGBA")
    layers = np.asarray(colours)
    seen = layers[..., 3] >= 200
    grey = np.asarray(colours.convert("L"))
    if seen.any():  # red on green has the same brightness, but not the same red
        best = max((layers[..., channel] for channel in range(3)), key=lambda c: c[seen].std())
        grey = best if best[seen].std() > 2 * grey[seen].std() else grey
    if not seen.any() or seen.all():
        ground = 255.0
    elif np.ptp(grey[seen]) < 64:  # strokes of one colour
        ground = 255.0 if grey[seen].mean() < 128 else 0.0
    else:
        ground = float(np.median(grey[seen]))
    alpha = layers[..., 3] / 255
    return np.asarray(np.round(alpha * grey + (1 - alpha) * ground), np.uint8)


def _stretched(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are not finite")
    span = np.ptp(values) or 1.0
    return np.asarray(np.round(255 * (values - values.min()) / span), np.uint8)


def _is_like_mnist(image: np.ndarray) -> bool:
    """Whether a uint8 image has MNIST's form: dark ground, digit in 20x20, centred by mass."""
    if image.shape != (SIDE, SIDE):
        return False
    border = _border(image)
    ink = image * (image > 32.0)
    if np.median(border) > 8 or np.mean(border > 32) > 0.1 or ink.max() < 128:
        return False
    size = max(np.ptp(np.flatnonzero(ink.any(axis=axis))) + 1 for axis in (0, 1))
    off = max(abs(at - _CENTRE) for at in _centre_of_mass(ink))
    return bool(18 <= size <= 21 and off < 1)


def _border(image: np.ndarray) -> np.ndarray:
    return np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])


def _centre_of_mass(ink: np.ndarray) -> tuple[float, float]:
    rows, columns = (ink.sum(axis=axis) @ np.arange(ink.shape[1 - axis]) for axis in (1, 0))
    return rows / ink.sum(), columns / ink.sum()


def _converted(grey: np.ndarray) -> np.ndarray:
    for _ in range(3):  # a small digit is cut out and looked at again
        scale = min(_WORK_SIDE / max(grey.shape), 8)
        height, width = (max(1, round(side * scale)) for side in grey.shape)
        strokes = find_strokes(resize(grey, height, width).astype(np.float64))
        size = max(side.stop - side.start for side in strokes.box)
        if size > 0.45 * max(height, width):
            break
        margin = 0.4 * size
        grey = grey[
            tuple(
                slice(
                    max(0, int((side.start - margin) / scale)),
                    int(np.ceil((side.stop + margin) / scale)),
                )
                for side in strokes.box
            )
        ]
    return _centred(strokes)


def _centred(strokes: Strokes) -> np.ndarray:
    """Scales the digit to 20x20 and places its centre of mass as MNIST's files do."""
    box = strokes.ink[strokes.box]
    scale = _DIGIT_SIDE / max(box.shape)
    height, width = (max(1, round(side * scale)) for side in box.shape)
    digit = resize(np.asarray(np.round(255 * box), np.uint8), height, width)
    if digit.mean() > 230 and min(height, width) >= 10:
        raise UnreadableError("a surface instead of one digit")
    top, left = (
        min(max(round(_CENTRE - at), 0), SIDE - side)
        for at, side in zip(_centre_of_mass(digit.astype(float)), (height, width), strict=True)
    )
    centred = np.zeros((SIDE, SIDE), np.uint8)
    centred[top : top + height, left : left + width] = digit
    return centred
