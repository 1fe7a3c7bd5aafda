"""Image files of every kind become 28x28 light digits on dark, or give a one-line error."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lenet5.errors import InputError
from lenet5.images import read_image, resize


def seven(scale: int = 1) -> np.ndarray:
    """Returns a 7 of `scale` times 20x13 pixels, 255 on 0, off-centre in `scale` times 56x40."""
    picture = np.zeros((56, 40), np.uint8)
    picture[4:7, 20:33] = 255
    for row in range(17):
        picture[7 + row, 30 - row // 2 : 33 - row // 2] = 255
    return picture.repeat(scale, 0).repeat(scale, 1)


def saved(
    folder: Path, pixels: np.ndarray | Image.Image, name: str = "digit.png", **options: str
) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(folder / name, **options)
    return folder / name


def read(
    folder: Path, pixels: np.ndarray | Image.Image, name: str = "digit.png", **options: str
) -> np.ndarray:
    image = read_image(saved(folder, pixels, name, **options))
    assert image.shape == (28, 28, 1)
    assert image.dtype == np.uint8
    return image[..., 0]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as info:
        read_image(path)
    message = str(info.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def in_mnists_form() -> np.ndarray:
    return np.pad(np.random.RandomState(0).randint(0, 256, (20, 20)).astype(np.uint8), 4)


def test_an_image_in_mnists_form_is_unchanged(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, in_mnists_form()), in_mnists_form())


def test_dark_on_light_is_inverted(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, 255 - in_mnists_form()), in_mnists_form())


def test_a_ground_of_nearly_0_is_mnists(tmp_path: Path) -> None:
    image = np.maximum(in_mnists_form(), 5)
    np.testing.assert_array_equal(read(tmp_path, image), image)


@pytest.mark.parametrize("shift", [(-4, -3), (-3, 2), (0, 3)])
def test_a_digit_of_28x28_beside_the_centre_is_moved_there(
    tmp_path: Path, shift: tuple[int, int]
) -> None:
    digit = read(tmp_path, seven(scale=7))
    moved = read(tmp_path, np.roll(digit, shift, (0, 1)))
    assert np.corrcoef(moved.ravel(), digit.ravel())[0, 1] > 0.97


def test_the_grey_ground_of_a_picture_of_28x28_becomes_black(tmp_path: Path) -> None:
    digit = read(tmp_path, seven(scale=7))
    grey = np.asarray(90 + digit * (160 / 255), np.uint8)
    assert np.corrcoef(read(tmp_path, grey).ravel(), digit.ravel())[0, 1] > 0.97
    assert np.median(read(tmp_path, grey)) == 0


def test_on_request_a_picture_of_28x28_stays_as_it_is(tmp_path: Path) -> None:
    image = np.zeros((28, 28), np.uint8)
    image[2:25, 1:9] = 200
    for picture in (image, 255 - image):
        path = saved(tmp_path, picture)
        np.testing.assert_array_equal(read_image(path, convert_28x28=False)[..., 0], image)
        assert (read_image(path)[..., 0] != image).any()


@pytest.mark.parametrize(("ground", "ink"), [(100, 20), (200, 90), (30, 140), (120, 255)])
def test_digit_and_border_may_have_any_two_greys(tmp_path: Path, ground: int, ink: int) -> None:
    image = np.where(seven(), ink, ground).astype(np.uint8)
    expected = read(tmp_path, seven())
    assert np.abs(read(tmp_path, image).astype(int) - expected).max() <= 3


def test_a_digit_is_scaled_to_20_pixels_and_centred_by_its_mass(tmp_path: Path) -> None:
    digit = read(tmp_path, seven(scale=7))
    rows, columns = (np.flatnonzero(digit.max(axis=axis) > 127) for axis in (1, 0))
    assert np.ptp(rows) + 1 == 20
    assert np.ptp(columns) + 1 == 13
    for axis in (0, 1):
        mass = digit.sum(axis=1 - axis) / digit.sum()
        assert mass @ np.arange(28) == pytest.approx(14, abs=0.5)
    assert digit[0].max() == 0  # the background


def test_the_position_of_the_digit_does_not_matter(tmp_path: Path) -> None:
    moved = np.pad(seven(scale=5), ((300, 10), (10, 200)))
    found, expected = read(tmp_path, moved), read(tmp_path, seven(scale=5))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97


def test_the_size_of_the_image_does_not_matter(tmp_path: Path) -> None:
    small, large = (read(tmp_path, seven(scale)).astype(int) for scale in (5, 9))
    assert np.abs(small - large).mean() < 2


@pytest.mark.parametrize("shape", [(30, 9), (300, 3), (200, 1), (300, 60)])
def test_an_upright_stroke_is_read(tmp_path: Path, shape: tuple[int, int]) -> None:
    stroke = np.zeros(shape, np.uint8)
    stroke[shape[0] // 3 : -(-shape[0] // 2), shape[1] // 3 : -(-shape[1] // 2)] = 255
    assert read(tmp_path, stroke).max() > 0


def line(down: bool, whole: bool) -> np.ndarray:
    """A line of 3 pixels in a picture of 200, over all or half of it."""
    picture = np.full((200, 200), 240, np.uint8)
    picture[100:103, 0 if whole else 50 : 200 if whole else 150] = 20
    return picture.T.copy() if down else picture


def ruled_paper() -> np.ndarray:
    picture = np.full((200, 200), 240, np.uint8)
    picture[15::30] = picture[16::30] = 120
    return picture


def digits_side_by_side(gap: int) -> np.ndarray:
    one = 240 - 220 * (seven(scale=3)[8:76, 56:104] // 255)
    return np.pad(np.hstack([one, np.full((68, gap), 240), one]), 20, constant_values=240)


def blank_paper() -> np.ndarray:
    return np.random.RandomState(0).randint(200, 240, (150, 150)).astype(np.uint8)


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (blank_paper(), "no digit stands out from the ground"),
        (line(down=False, whole=True), "a line or several digits instead of one digit"),
        (line(down=False, whole=False), "a line or several digits instead of one digit"),
        (line(down=True, whole=True), "a line across the picture instead of one digit"),
        (ruled_paper(), "a line or several digits instead of one digit"),
        (digits_side_by_side(gap=6), "several digits instead of one digit"),
        (digits_side_by_side(gap=80), "several digits instead of one digit"),
    ],
)
def test_a_picture_without_one_digit_is_refused(
    tmp_path: Path, picture: np.ndarray, reason: str
) -> None:
    assert refusal(saved(tmp_path, picture.astype(np.uint8))) == reason


def test_two_distant_specks_are_refused(tmp_path: Path) -> None:
    specks = np.zeros((1500, 1500), np.uint8)
    specks[10, 10] = specks[-10, -10] = 255
    assert refusal(saved(tmp_path, specks))


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp", "png"])
def test_a_file_of_several_pages_is_refused(tmp_path: Path, suffix: str) -> None:
    pages = [Image.fromarray(page) for page in (seven(), seven()[::-1].copy())]
    path = tmp_path / f"pages.{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert refusal(path) == "has 2 pages or frames, one is expected"


@pytest.mark.parametrize(
    "mode", ["L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I", "I;16", "F"]
)
def test_every_mode_gives_the_same_digit(tmp_path: Path, mode: str) -> None:
    way = {"PA": ("P", "PA"), "I;16": ("I", "I;16")}.get(mode, (mode,))
    image = Image.fromarray(seven())
    for step in way:
        image = image.convert(step)
    # Pillow before 13 cannot read it without compression: findings/pillow_ycbcr_tiff.sh.
    options = {"compression": "tiff_lzw"} if mode == "YCbCr" else {}
    digit = read(tmp_path, image, "digit.tiff", **options)
    assert np.abs(digit.astype(int) - read(tmp_path, seven())).max() <= 3


def test_an_image_opened_as_ycbcr_gives_the_same_digit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow opens some files so since version 13; earlier versions convert all files to RGB."""
    expected = read(tmp_path, seven())
    image = Image.fromarray(seven()).convert("YCbCr")
    monkeypatch.setattr(Image, "open", lambda _: image)
    digit = read_image(tmp_path / "digit.tiff")[..., 0]
    assert np.abs(digit.astype(int) - expected).max() <= 3


def test_black_and_white_is_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        read(tmp_path, Image.fromarray(seven()).convert("1")), read(tmp_path, seven())
    )


def test_16_bit_images_keep_their_contrast(tmp_path: Path) -> None:
    """Clipping would turn a scan with values only in the upper half white."""
    values = np.where(seven(), 40_000, 60_000).astype(np.uint16)
    np.testing.assert_array_equal(read(tmp_path, values), read(tmp_path, seven()))


@pytest.mark.parametrize("grey", [0, 255])
def test_strokes_on_transparency_are_read(tmp_path: Path, grey: int) -> None:
    """Black or white ones, as from drawing programs."""
    layers = np.full((56, 40, 4), grey, np.uint8)
    layers[..., 3] = seven()
    np.testing.assert_array_equal(read(tmp_path, layers), read(tmp_path, seven()))


def test_transparent_corners_of_a_photo_get_the_greys_of_its_paper(tmp_path: Path) -> None:
    layers = np.full((56, 40, 4), 255, np.uint8)
    layers[..., :3] = np.where(seven(), 30, 180)[..., np.newaxis]
    layers[:3, :3] = layers[-3:, -3:] = 0
    found, expected = read(tmp_path, layers), read(tmp_path, seven())
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    turned = Image.fromarray(np.rot90(seven(4)).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees clockwise for display
    turned.save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(
        read_image(tmp_path / "photo.png")[..., 0], read(tmp_path, seven(4))
    )


def test_resizing_is_bilinear_and_keeps_the_type() -> None:
    small = np.array([[0, 100], [100, 200]], np.uint8)
    large = resize(small, 4, 8)
    assert large.shape == (4, 8)
    assert large.dtype == np.uint8
    assert large[0].tolist() == [0, 0, 13, 38, 63, 88, 100, 100]


@pytest.mark.parametrize("shape", [(1, 1), (28, 28), (300, 200)])
@pytest.mark.parametrize("value", [0, 127, 255])
def test_an_image_of_one_colour_is_refused(
    tmp_path: Path, shape: tuple[int, int], value: int
) -> None:
    path = saved(tmp_path, np.full(shape, value, np.uint8))
    assert refusal(path) == "an image of one colour contains no digit"


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "digit.png").write_text("seven")
    assert refusal(tmp_path / "digit.png") == "not an image that Pillow can read"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "digit.png").touch()
    assert refusal(tmp_path / "digit.png") == "not an image that Pillow can read"


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.png") == "cannot be read as an image: No such file or directory"
    assert refusal(tmp_path) == "cannot be read as an image: Is a directory"


def test_pixels_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    values = np.where(seven(), np.float32(np.nan), np.float32(0))
    path = saved(tmp_path, values, "digit.tiff")
    assert refusal(path) == "cannot be read as an image: it has pixels that are not finite"


@pytest.mark.parametrize("limit", [2_000, 1_000])  # for 2,240 pixels: a warning, an error
def test_a_decompression_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    path = saved(tmp_path, seven())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert refusal(path) == "more pixels than a picture of one digit can have"


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_the_end(content: bytes) -> bytes:
    return content[:-20]


def blot(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + b"\xff" * 40 + content[middle + 40 :]


def test_pillows_warnings_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """An example is damaged EXIF data in a valid image."""
    path, open_image = saved(tmp_path, seven()), Image.open

    def warn_and_open(path: Path) -> Image.Image:
        warnings.warn("Corrupt EXIF data", stacklevel=1)
        return open_image(path)

    monkeypatch.setattr(Image, "open", warn_and_open)
    assert read_image(path).shape == (28, 28, 1)
    assert not recwarn.list


@pytest.mark.parametrize("damage", [truncate, cut_the_end, blot])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tiff", "bmp", "webp"])
def test_a_damaged_file_is_read_or_refused(
    tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    """Some formats survive it; the only possible error is InputError."""
    noise = np.random.RandomState(0).randint(0, 256, (60, 60)).astype(np.uint8)
    path = saved(tmp_path, noise, f"digit.{suffix}")
    path.write_bytes(damage(path.read_bytes()))
    with suppress(InputError):
        assert read_image(path).shape == (28, 28, 1)


def test_a_truncated_png_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, np.random.RandomState(0).randint(0, 256, (60, 60)).astype(np.uint8))
    path.write_bytes(truncate(path.read_bytes()))
    assert refusal(path).startswith("cannot be read as an image: ")


def test_an_error_of_a_pillow_plugin_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AVIF's plugin raises RuntimeError, DDS's NotImplementedError."""

    def fail(*_: object) -> None:
        raise RuntimeError("decoding failed")

    path = saved(tmp_path, seven())
    monkeypatch.setattr(Image, "open", fail)
    assert refusal(path) == "cannot be read as an image: decoding failed"
