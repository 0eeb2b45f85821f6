"""Decode image files of any format, size and colour mode."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from coordconv_apps.utils.errors import one_line, printable

T = TypeVar("T")

_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
"""Formats that Pillow recognises but does not decode by itself; an IPTC file may contain any of the others."""


def decoded_formats() -> list[str]:
    """Return the names of the formats that Pillow decodes by itself, the most common ones first.

    >>> "PNG" in decoded_formats(), "EPS" in decoded_formats()
    (True, False)
    """
    Image.preinit()  # the common ones
    Image.init()
    return [kind for kind in Image.ID if kind not in _NOT_DECODED]


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """Convert an image of any colour mode to RGB.

    Transparent parts get the colour ``background``. Gray values above 255 are read as 16 bits, fractions as values up
    to 1.
    """
    if image.mode[0] in "IF":  # 16 bits and more: Pillow's own conversion clips them at 255
        return Image.fromarray(to_8_bits(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    opaque = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(opaque, image.convert("RGBA")).convert("RGB")


def to_8_bits(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Scale gray values of up to 65,535, up to 255, or (fractions) up to 1, to 0 to 255; NaN becomes 0.

    >>> to_8_bits(np.array([0, 257, 65535])).tolist(), to_8_bits(np.array([0.0, 0.5, 1.0])).tolist()
    ([0, 1, 255], [0, 128, 255])
    """
    numbers = values.astype(np.float64)
    highest = numbers.max(where=np.isfinite(numbers), initial=0)
    scale = 257.0 if highest > 255 else 1.0
    if np.issubdtype(values.dtype, np.floating) and highest <= 1:
        scale = 1 / 255
    return np.round(np.nan_to_num(numbers / scale)).clip(0, 255).astype(np.uint8)


def open_file(path: Path) -> Image.Image:
    """Open an image file without decoding it.

    Opening a pipe or a device, which might wait forever, is an error. So are formats for which Pillow runs another
    program, such as Ghostscript for EPS, whatever the name of the file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("not a regular file")
    return Image.open(path, formats=decoded_formats())


def decode_image(path: Path, convert: Callable[[Image.Image], T], draft: int | None = None, *, turn: bool = True) -> T:
    """Open and decode an image file, and convert the image. The first frame of an animation is used.

    Args:
        path: The file.
        convert: Makes the result of the decoded image, such as `to_rgb`.
        draft: Let JPEG decode at 1/2, 1/4 or 1/8 of the size, as long as both sides keep at least this many pixels.
            This is several times as fast.
        turn: Whether to apply the orientation that a camera noted.

    Raises:
        ValueError: The file is not a readable image.
    """
    try:
        with open_file(path) as opened:
            if draft is not None:
                opened.draft(None, (draft, draft))
            return convert(ImageOps.exif_transpose(opened) if turn else opened)
    except Exception as error:  # on a damaged file, decoders raise almost anything
        raise ValueError(f"{printable(path)}: not a readable image ({one_line(error)})") from error


def open_image(path: Path, draft: int | None = None) -> Image.Image:
    """Open an image file of any format, size and colour mode as RGB, see `decode_image` and `to_rgb`."""
    return decode_image(path, to_rgb, draft)


def read_image(path: Path) -> Tensor:
    """Read an image file of any format as uint8 ``(3, H, W)``, RGB, see `open_image`."""
    pixels: Tensor = pil_to_tensor(open_image(path)).contiguous()
    return pixels
