"""Image files of all kinds become bright ink on black."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.gray_images import Bytes, read_gray, to_colour

EXPECTED = np.zeros((12, 16), np.uint8)
EXPECTED[3:9, 4:12] = 255


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Image.fromarray, "bright.png"),
        (lambda gray: Image.fromarray(255 - gray), "dark.png"),
        (lambda gray: Image.fromarray(gray).convert("RGB"), "colour.bmp"),
        (lambda gray: Image.fromarray(255 - gray).convert("P"), "palette.gif"),
        (lambda gray: Image.fromarray(gray).convert("1"), "bits.tiff"),
        (lambda gray: Image.fromarray(gray.astype(np.uint16) * 257), "deep.png"),
        (lambda gray: Image.merge("LA", [Image.new("L", (16, 12), 0), Image.fromarray(gray)]), "ink.png"),
        (lambda gray: Image.merge("LA", [Image.new("L", (16, 12), 255), Image.fromarray(gray)]), "chalk.png"),
        (lambda gray: Image.fromarray(gray).convert("CMYK"), "print.jpg"),
        (lambda gray: Image.fromarray(gray.astype(np.float32) / 255), "floats.tiff"),
        (lambda gray: Image.merge("LAB", [Image.fromarray(gray)] + [Image.new("L", (16, 12), 128)] * 2), "lab.tiff"),
        (lambda gray: Image.fromarray(gray), "ink.ppm"),
    ],
)
def test_all_kinds_give_bright_ink_on_black(tmp_path: Path, make: Callable[[Bytes], Image.Image], name: str) -> None:
    make(EXPECTED).save(tmp_path / name)
    np.testing.assert_allclose(read_gray(tmp_path / name), EXPECTED, atol=60 if name.endswith("jpg") else 0)


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (255, 0)])
def test_transparent_parts_are_shown_as_the_ground_that_the_network_sees(ink: int, ground: int) -> None:
    picture = Image.merge("LA", [Image.new("L", (16, 12), ink), Image.fromarray(EXPECTED)])
    shown = np.asarray(to_colour(picture))
    np.testing.assert_array_equal(shown, np.where(EXPECTED[..., None] > 0, ink, ground).repeat(3, -1))


def test_ink_can_be_given(tmp_path: Path) -> None:
    Image.fromarray(EXPECTED).save(tmp_path / "a.png")
    assert np.array_equal(read_gray(tmp_path / "a.png", "bright"), EXPECTED)
    assert np.array_equal(read_gray(tmp_path / "a.png", "dark"), 255 - EXPECTED)


def test_orientation_of_the_camera_is_applied(tmp_path: Path) -> None:
    picture = Image.fromarray(EXPECTED[:5])
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned to the right
    picture.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_gray(tmp_path / "a.png"), np.rot90(EXPECTED[:5], -1))


def test_unreadable_images_are_refused_in_one_line(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes((tmp_path / "a.png").read_bytes()[:900])
    for path in (cut, tmp_path / "none.png", tmp_path):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is compared below
            read_gray(path)
        assert str(caught.value).startswith(f"{path}: not a readable image (")
        assert "\n" not in str(caught.value)
