"""Folders of pictures: which there are, which of them can be read, and each as a square of one size."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

OnBadImage = Literal["error", "skip"]
"""What to do with a picture that cannot be read: end the run, or go on without it."""

OPENED = 20_000
"""Up to so many pictures are all opened before a run starts, which takes seconds."""

_THREADS = 8
"""Files opened at a time: most of it is waiting for the disk."""

_NAMED = 5
"""Names of unreadable pictures in a message."""


class FoundPictures(NamedTuple):
    """The pictures in a folder.

    Attributes:
        names: Paths relative to the folder, in alphabetical order, of those that can be opened.
        left_out: How many more there are that cannot.
        told: A line that names these; empty if there are none.
    """

    names: list[str]
    left_out: int
    told: str


def find_pictures(folder: Path, on_bad_image: OnBadImage) -> FoundPictures:
    """Finds the pictures in a folder and its sub-folders, and those among them that cannot be opened.

    In a folder of more than `OPENED` pictures none is opened: those that cannot be read are met when they are read.

    Args:
        folder: Where to look, see `list_pictures`.
        on_bad_image: Whether to go on without pictures that cannot be opened.

    Returns:
        The pictures, and what to tell.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There are no pictures that can be opened, or some that cannot and on_bad_image is "error".
    """
    names = list_pictures(folder)
    bad = find_unreadable(folder, names) if len(names) <= OPENED else {}
    if not bad:
        return FoundPictures(names, 0, "")
    where, (first, why) = f"data.folder={str(folder)!r}", next(iter(bad.items()))
    if len(bad) == len(names):
        raise ValueError(f"{where}: none of {len(names)} pictures can be read, the first: {first} ({why})")
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    told = f"{where}: {len(bad)} of {len(names)} pictures cannot be read: {', '.join(list(bad)[:_NAMED])}{more}"
    if on_bad_image == "error":
        raise ValueError(f"{told}; data.on_bad_image=skip goes on without them")
    return FoundPictures([name for name in names if name not in bad], len(bad), f"{told}; left out")


def list_pictures(folder: Path) -> list[str]:
    """Lists the pictures in a folder and its sub-folders, known by their suffix.

    Args:
        folder: The folder. Links are followed, and no folder is entered twice.

    Returns:
        Paths relative to ``folder`` in alphabetical order, without what is hidden or in a hidden folder.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is no folder, a folder in it cannot be listed, or there are no pictures.
    """
    if not folder.exists():
        raise FileNotFoundError(f"data.folder={str(folder)!r}: no such folder")
    if not folder.is_dir():
        raise ValueError(f"data.folder={str(folder)!r}: must be a folder, not a file")

    def refuse(error: OSError) -> None:
        raise ValueError(f"data.folder={str(folder)!r}: cannot list {error.filename!r} ({error.strerror})") from error

    found: list[str] = []
    entered: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:  # by a link, perhaps one to a folder above it
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(place, folder)
        prefix = "" if inside == os.curdir else inside + os.sep
        found += [prefix + n for n in files if n.lower().endswith(PICTURE_SUFFIXES) and not n.startswith(".")]
    if not found:
        raise ValueError(f"data.folder={str(folder)!r}: no pictures there ({', '.join(PICTURE_SUFFIXES)})")
    return sorted(found)


def find_unreadable(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Opens every picture without decoding it.

    Args:
        folder: Where they are.
        names: Their paths in it.

    Returns:
        By name, in the order of ``names``, why a picture cannot be opened: of those alone that cannot. One that is
        damaged behind its head is not found here.
    """

    def why(name: str) -> str | None:
        try:
            with Image.open(folder / name):
                return None
        except Exception as error:  # as in `read_picture`
            return _one_line(error)

    with ThreadPoolExecutor(_THREADS) as pool:
        reasons = pool.map(why, names)
        return {name: reason for name, reason in zip(names, reasons, strict=True) if reason is not None}


def read_picture(path: Path, size: int) -> Tensor:
    """Reads a picture of any format, size and colour mode as the square in its middle.

    The shorter side is resized (bilinear, anti-aliased), the longer one cut off on both sides. What is transparent
    is laid over white; a camera's orientation is applied; of a moving picture the first frame counts. A gray picture
    with values above 255 is taken as one of 16 bits, one of fractions as one of values up to 1.

    Args:
        path: The picture.
        size: Height and width of the result, in pixels.

    Returns:
        uint8 ``(3, size, size)``, red, green and blue.

    Raises:
        ValueError: The file is no readable picture.
    """
    try:
        with Image.open(path) as opened:
            # JPEG files can be decoded at a half, a quarter or an eighth of their size: several times as fast.
            opened.draft(None, (2 * size, 2 * size))
            picture = _as_rgb(ImageOps.exif_transpose(opened))
        square = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    except Exception as error:  # at a damaged file, the decoders of formats raise almost anything
        raise ValueError(f"{path}: not a readable picture ({_one_line(error)})") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode[0] in "IF":  # 16 bits and more, which Pillow's own conversion cuts off at 255
        return Image.fromarray(_to_bytes(np.asarray(picture))).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _to_bytes(deep: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Gray values of up to 65,535, 255 or (fractions) 1, in 0 to 255."""
    values = np.nan_to_num(deep.astype(np.float64))
    highest = values.max()
    if np.issubdtype(deep.dtype, np.floating):
        scale = 1 / 255 if highest <= 1 else 1.0
    else:
        scale = 257.0 if highest > 255 else 1.0
    return np.round(values / scale).clip(0, 255).astype(np.uint8)


class PictureFiles:
    """Some of a folder's pictures, read when they are asked for.

    Args:
        folder: Where they are.
        names: Their paths in it.
        size: Height and width to read them at, in pixels.
        on_bad_image: With "skip" a picture that cannot be read is replaced by the next one that can.

    Attributes:
        bad: Numbers of the pictures that could not be read so far, by this process.
    """

    def __init__(self, folder: Path, names: Sequence[str], size: int, on_bad_image: OnBadImage = "error") -> None:
        self.folder = folder
        # One array instead of an object for each: worker processes share it, as long as none writes to it.
        self._names = np.array([os.fsencode(name) for name in names])
        self.size = size
        self.on_bad_image: OnBadImage = on_bad_image
        self.bad: set[int] = set()

    def __len__(self) -> int:
        return len(self._names)

    def path(self, number: int) -> Path:
        """The file of a picture."""
        return self.folder / os.fsdecode(self._names[number])

    def read(self, number: int) -> Tensor:
        """Reads a picture, or what stands in for it.

        Args:
            number: Of the picture, from 0.

        Returns:
            uint8 ``(3, size, size)``.

        Raises:
            ValueError: It cannot be read, and on_bad_image is "error" or there is none that can.
        """
        for candidate in (i % len(self) for i in range(number, number + len(self))):
            if candidate in self.bad:
                continue
            try:
                return read_picture(self.path(candidate), self.size)
            except ValueError as error:
                if self.on_bad_image == "error":
                    raise ValueError(f"{error}; data.on_bad_image=skip goes on without such pictures") from error
                self.bad.add(candidate)
                warnings.warn(f"{error}: replaced by the next one", stacklevel=2)
        raise ValueError(f"data.folder={str(self.folder)!r}: none of {len(self)} pictures can be read")
