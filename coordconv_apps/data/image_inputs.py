"""Images as users hand them over in Python: files, PIL images, NumPy arrays and tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from coordconv_apps.data.image_decoding import decode_image

ImageInput: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor"
"""One image: a file, a PIL image, an array ``(H, W)`` or ``(H, W, C)``, or a tensor ``(H, W)`` or ``(C, H, W)``, with
1, 3 or 4 channels: gray, RGB, RGB and opacity. Arrays and tensors are uint8, or floating-point in [0, 1]."""

ImageInputs: TypeAlias = "ImageInput | Sequence[ImageInput]"
"""One image, a sequence of images of any kinds and sizes, an array ``(N, H, W, C)``, or a tensor ``(N, C, H, W)``."""


def pil_images(images: ImageInputs) -> Iterator[Image.Image]:
    """Convert images to PIL images of 8 bits, as if they had been read from files, one after the other.

    Raises:
        ValueError: An image has another shape, type or range, or a file is not a readable image; raised at its turn.

    Example:
        >>> import torch
        >>> [image.size for image in pil_images([np.zeros((10, 20)), torch.zeros(3, 5, 5)])]
        [(20, 10), (5, 5)]
    """
    if isinstance(images, np.ndarray | Tensor):
        images = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, str | os.PathLike | Image.Image):
        images = [images]
    elif not isinstance(images, Sequence):
        raise ValueError(f"images={type(images).__name__}: must be an image or a sequence of images")
    return (_pil_image(image, f"images[{number}]") for number, image in enumerate(images))


def _pil_image(image: ImageInput, name: str) -> Image.Image:
    if isinstance(image, Image.Image):
        return ImageOps.exif_transpose(image)
    if isinstance(image, str | os.PathLike):
        return decode_image(Path(image), lambda opened: opened)
    if not isinstance(image, np.ndarray | Tensor):
        raise ValueError(f"{name}={type(image).__name__}: must be a path, a PIL image, an array or a tensor")
    shape = tuple(image.shape)
    channels_at = 0 if isinstance(image, Tensor) else -1
    if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[channels_at] not in (1, 3, 4)):
        wanted = "(H, W) or (C, H, W)" if isinstance(image, Tensor) else "(H, W) or (H, W, C)"
        raise ValueError(f"{name} of shape {shape}: must be {wanted} with 1, 3 or 4 channels")
    if isinstance(image, Tensor):
        image = image.detach()
        image = (image.float() if image.is_floating_point() else image).cpu().numpy()
        image = image.transpose(1, 2, 0) if image.ndim == 3 else image
    converted: Image.Image = to_pil_image(_to_bytes(image, name))
    return converted


def _to_bytes(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"{name} of type {pixels.dtype}: must be uint8, or floating-point in [0, 1]")
    lowest, highest = float(pixels.min()), float(pixels.max())
    if not 0 <= lowest <= highest <= 1:  # NaN, too
        raise ValueError(f"{name}: values from {lowest:g} to {highest:g}: floating-point images must be in [0, 1]")
    return np.round(pixels * 255).astype(np.uint8)
