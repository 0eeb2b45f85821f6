"""Pictures of a folder as squares: the middle is kept, resized as torchvision does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image

from generative.datasets import read_square_image
from tests.helpers.images import colour_of


@pytest.mark.parametrize("size", [(60, 20), (20, 60)])
def test_the_middle_square_is_kept(size: tuple[int, int], tmp_path: Path) -> None:
    picture = Image.new("RGB", size, (255, 0, 0))
    picture.paste((0, 255, 0), ((size[0] - 20) // 2, (size[1] - 20) // 2, (size[0] + 20) // 2, (size[1] + 20) // 2))
    picture.save(tmp_path / "1.png")
    assert colour_of(read_square_image(tmp_path / "1.png", 20)) == [0, 255, 0]
    for other in (10, 40):  # but for its border, where resizing looks at what is beyond
        assert colour_of(read_square_image(tmp_path / "1.png", other)[:, 2:-2, 2:-2]) == [0, 255, 0]


@pytest.mark.parametrize(("size", "target"), [((96, 64), 32), ((30, 45), 60)])
def test_resizing_equals_torchvisions(size: tuple[int, int], target: int, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "1.png")
    resized = tv.resize(torch.from_numpy(noise).permute(2, 0, 1).float(), [target], antialias=True)
    expected = tv.center_crop(resized, [target, target])
    assert (read_square_image(tmp_path / "1.png", target).float() - expected).abs().max() <= 1.01


def test_large_jpeg_images_are_decoded_small_and_look_the_same(tmp_path: Path) -> None:
    y, x = np.mgrid[:240, :320]
    smooth = np.stack([x * 255 / 319, y * 255 / 239, (x + y) * 255 / 558], 2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "1.jpg", quality=95)
    Image.fromarray(smooth).save(tmp_path / "1.png")
    small, whole = (read_square_image(tmp_path / f"1.{suffix}", 20).float() for suffix in ("jpg", "png"))
    assert (small - whole).abs().max() <= 4


def test_small_jpeg_images_are_decoded_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "1.jpg")
    with Image.open(tmp_path / "1.jpg") as picture:
        picture.save(tmp_path / "1.png")
    assert torch.equal(read_square_image(tmp_path / "1.jpg", 20), read_square_image(tmp_path / "1.png", 20))
