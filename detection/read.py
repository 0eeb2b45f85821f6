"""Read pictures of any format and IDX files as arrays of gray values."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Bytes = npt.NDArray[np.uint8]
"""Gray values, 0 to 255."""

Ink = Literal["auto", "bright", "dark"]
"""What stands out in a picture: bright on dark, dark on bright, or whatever its border is not."""

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".tif", ".tiff", ".webp")


def list_pictures(folder: Path) -> list[Path]:
    """List the pictures in a folder, known by their suffix.

    Args:
        folder: The folder; its sub-folders are not entered.

    Returns:
        Paths in alphabetical order, without hidden files.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def read_picture(path: Path, ink: Ink = "auto") -> Bytes:
    """Read a picture of any format, size and colour mode as gray values, bright ink on a dark ground.

    Args:
        path: The picture. Transparent parts count as ground; a camera's orientation is applied.
        ink: Whether the ink is bright or dark. ``auto``: dark, if most of the border is brighter than medium gray.

    Returns:
        uint8 ``(H, W)``, inverted if the ink was dark.

    Raises:
        ValueError: If the file is no readable picture.
    """
    try:
        with Image.open(path) as opened:
            gray = to_gray(ImageOps.exif_transpose(opened))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable picture ({' '.join(str(error).split())})") from error
    border = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    dark = ink == "dark" or (ink == "auto" and float(np.median(border)) > 127)
    return 255 - gray if dark else gray


def to_gray(picture: Image.Image) -> Bytes:
    """The brightness of a picture of any mode, ``(H, W)``; see-through parts are ground."""
    if picture.mode.startswith("I"):  # 16 bits, which Pillow's own conversion cuts off at 255
        deep = np.asarray(picture).astype(np.int64)
        return (deep // 257 if deep.max() > 255 else deep).clip(0, 255).astype(np.uint8)
    if not picture.has_transparency_data:
        return np.array(picture.convert("L"))
    gray, alpha = (np.asarray(band, np.float64) for band in picture.convert("LA").split())
    # The ground takes the shade that the visible parts stand out from; the small number: if nothing is visible.
    ground = 255 if np.average(gray, weights=alpha + 1e-9) < 128 else 0
    return np.round(ground + (gray - ground) * alpha / 255).astype(np.uint8)


def read_idx(path: Path) -> Bytes:
    """Read an IDX file of unsigned bytes, the format of MNIST's files.

    Args:
        path: The file, gzipped or not.

    Returns:
        uint8, of the shape that the file's head gives.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no IDX file of unsigned bytes, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such IDX file")
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip file ({error})") from error
    # Head: two zeros, the type (8: unsigned byte), the number of axes, and each axis as a big-endian 32-bit number.
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    shape = tuple(np.frombuffer(content, ">u4", content[3], offset=4).tolist())
    body = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    if len(body) != math.prod(shape):
        raise ValueError(f"{path}: shape {shape} needs {math.prod(shape)} bytes, {len(body)} found")
    return body.reshape(shape)
