"""Read images of any format as gray values, with bright ink on a black ground."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from coordconv_apps.data.image_decoding import decode_image, to_rgb

Bytes = npt.NDArray[np.uint8]
"""Gray values, 0 to 255."""

MIN_IMAGE_SIDE = 16
"""Smallest image side that the paper's backbone without padding takes, in pixels; smaller images are padded."""

Ink = Literal["auto", "bright", "dark"]
"""Brightness of an image's ink relative to its ground; "auto" takes the border for the ground."""


def read_gray(path: Path, ink: Ink = "auto") -> Bytes:
    """Read an image file of any format, size and colour mode as bright ink on a dark ground, ``(H, W)``.

    The image is inverted if its ink is dark; with "auto", if most of its border is brighter than medium gray.
    Transparent parts count as ground; a camera's orientation is applied.

    Raises:
        ValueError: If the file is not a readable image.
    """
    return bright_ink(decode_image(path, to_gray), ink)


def bright_ink(gray: Bytes, ink: Ink = "auto") -> Bytes:
    """Invert gray values ``(H, W)`` if their ink is dark, see `read_gray`.

    Example:
        >>> bright_ink(np.array([[255, 255, 255], [255, 0, 255], [255, 255, 255]], np.uint8))[1]
        array([  0, 255,   0], dtype=uint8)
    """
    border = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    dark = ink == "dark" or (ink == "auto" and float(np.median(border)) > 127)
    return 255 - gray if dark else gray


def network_input(gray: Bytes | Tensor) -> Tensor:
    """Return the network's input of gray values ``(H, W)``: float32 ``(1, H, W)`` in [0, 1], padded to 16 pixels.

    Example:
        >>> network_input(np.zeros((8, 20), np.uint8)).shape
        torch.Size([1, 16, 20])
    """
    image = torch.as_tensor(gray)
    height, width = image.shape
    padding = (0, max(MIN_IMAGE_SIDE - width, 0), 0, max(MIN_IMAGE_SIDE - height, 0))
    return functional.pad(image, padding).unsqueeze(0).float().div_(255)


def to_gray(image: Image.Image) -> Bytes:
    """Return the brightness ``(H, W)`` of an image of any mode, see `to_colour`.

    Example:
        >>> to_gray(Image.new("RGB", (2, 1), "white"))
        array([[255, 255]], dtype=uint8)
    """
    return np.array(to_colour(image).convert("L"))


def to_colour(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB.

    Transparent parts become ground: white or black, whichever contrasts with the visible parts.
    """
    if image.mode[0] in "IF" or not image.has_transparency_data:
        return to_rgb(image)
    gray, alpha = (np.asarray(band) for band in image.convert("RGBA").convert("LA").split())
    # 1e-9: nothing may be visible.
    return to_rgb(image, "white" if np.average(gray, weights=alpha + 1e-9) < 128 else "black")
