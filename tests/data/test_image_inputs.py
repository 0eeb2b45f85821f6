"""Images from Python: every kind of input gives the pixels of the same file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from coordconv_apps.data.image_inputs import pil_images

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_each_kind_of_image_gives_the_same_pixels(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    image.save(tmp_path / "a.png")
    tensor = pil_to_tensor(image)
    inputs: list[Any] = [tmp_path / "a.png", str(tmp_path / "a.png"), image, PIXELS, PIXELS / 255, tensor, tensor / 255]
    inputs.append((PIXELS / 255).astype(np.float32))
    for found in [*pil_images(inputs), *(next(pil_images(one)) for one in inputs)]:
        assert found.mode == "RGB"
        assert np.array_equal(np.asarray(found), PIXELS)
    for batch in (np.stack([PIXELS, PIXELS]), torch.stack([tensor, tensor])):
        assert [np.array_equal(np.asarray(one), PIXELS) for one in pil_images(batch)] == [True, True]
    assert [*pil_images([])] == [*pil_images(torch.zeros(0, 3, 4, 4))] == []


def test_a_file_is_read_at_its_turn(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    found = pil_images([tmp_path / "a.png", tmp_path / "missing.png"])
    assert next(found).size == (7, 5)
    with pytest.raises(ValueError, match=r"missing\.png: not a readable image"):
        next(found)


@pytest.mark.parametrize(("channels", "mode"), [(None, "L"), (1, "L"), (3, "RGB"), (4, "RGBA")])
def test_channels_decide_the_mode(channels: int | None, mode: str) -> None:
    shape = (5, 7) if channels is None else (5, 7, channels)
    array = np.full(shape, 200, np.uint8)
    tensor = torch.full((5, 7) if channels is None else (channels, 5, 7), 200 / 255)
    for found in pil_images([array, tensor]):
        assert (found.mode, found.size) == (mode, (7, 5))
        assert np.unique(np.asarray(found)).tolist() == [200]


def test_the_orientation_of_a_camera_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=exif)
    from_file, opened = pil_images([tmp_path / "turned.png", Image.open(tmp_path / "turned.png")])
    assert from_file.size == opened.size == (5, 7)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (7, "images=int: must be an image or a sequence of images"),
        ([PIXELS, None], "images[1]=NoneType: must be a path, a PIL image, an array or a tensor"),
        (torch.zeros(5, 7, 3), "images[0] of shape (5, 7, 3): must be (H, W) or (C, H, W) with 1, 3 or 4 channels"),
        (np.zeros((3, 5, 7)), "images[0] of shape (3, 5, 7): must be (H, W) or (H, W, C) with 1, 3 or 4 channels"),
        (np.zeros((0, 7, 3)), "images[0] of shape (0, 7, 3): must be (H, W) or (H, W, C) with 1, 3 or 4 channels"),
        (torch.zeros(1, 2, 3, 4, 4), "of shape (1, 2, 3, 4, 4): must be"),
        (PIXELS.astype(np.int64), "images[0] of type int64: must be uint8, or floating-point in [0, 1]"),
        (PIXELS * 1.0, "floating-point images must be in [0, 1]"),
        (torch.full((3, 4, 4), -0.5), "images[0]: values from -0.5 to -0.5: floating-point images must be in [0, 1]"),
        (torch.full((3, 4, 4), torch.nan), "values from nan to nan"),
        ("missing.png", "missing.png: not a readable image"),
    ],
)
def test_other_inputs_are_refused_by_name(images: Any, message: str) -> None:  # noqa: ANN401  # of any type
    with pytest.raises(ValueError, match=re.escape(message)):
        list(pil_images(images))
