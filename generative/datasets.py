"""Datasets of real images, two-shape or from a folder, that return whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from coordconv_apps.data.image_decoding import open_image
from coordconv_apps.data.image_files import ImageFiles
from generative.pixel_range import to_float
from generative.two_shapes import Scenes, render


class ImageBatch(NamedTuple):
    """Real images."""

    images: Tensor  # float32 (B, 3, H, W), RGB, -1 to 1
    indices: Tensor  # int64 (B,): index of each image in its split, from 0


class TwoShapeDataset(Dataset[ImageBatch]):
    """Two-shape scenes as batches of images, rendered on demand; sizes are in pixels."""

    def __init__(self, scenes: Scenes, image_size: int, radius: int) -> None:
        self.scenes = scenes
        self.image_size = image_size
        self.radius = radius

    def __len__(self) -> int:
        return len(self.scenes.centers)

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        """Return a batch of images. The data loader calls this once per batch."""
        chosen = torch.as_tensor(indices)
        images = render(self.scenes.at(chosen), self.image_size, self.radius, torch.float32)
        return ImageBatch(images, chosen)


class ImageFolderDataset(Dataset[ImageBatch]):
    """Image files of a folder as batches, read on demand.

    Args:
        files: The files, read as uint8 ``(3, H, W)`` of one size.
        flip: Whether to flip each image horizontally with probability 1/2, by torch's global random number generator.
    """

    def __init__(self, files: ImageFiles, flip: bool = False) -> None:
        self.files = files
        self.flip = flip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> ImageBatch:
        """Return a batch of one image."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> ImageBatch:
        """Return a batch of images. The data loader calls this once per batch."""
        images = torch.stack([self._read(index) for index in indices])
        return ImageBatch(to_float(images), torch.as_tensor(indices))

    def _read(self, index: int) -> Tensor:
        image = self.files.read(index)
        return image.flip(-1) if self.flip and torch.rand(()) < 0.5 else image


def concatenate_batches(batches: Sequence[ImageBatch]) -> ImageBatch:
    """Collate batches of one image, which a loader returns if each sample has random numbers of its own."""
    images, indices = zip(*batches, strict=True)
    return ImageBatch(torch.cat(images), torch.cat(indices))


def read_square_image(path: Path, size: int) -> Tensor:
    """Read an image file of any format, size and colour mode as a square: uint8 ``(3, size, size)``, RGB.

    The shorter side is resized (bilinear, anti-aliased); the longer side is cropped to the middle. See
    `coordconv_apps.data.image_decoding.open_image` for colours. A file that is not an image raises `ValueError`.
    """
    # JPEG decodes to at least twice the size, so that its coarser resizing is not visible.
    image = ImageOps.fit(open_image(path, draft=2 * size), (size, size), Image.Resampling.BILINEAR)
    pixels: Tensor = pil_to_tensor(image).contiguous()
    return pixels
