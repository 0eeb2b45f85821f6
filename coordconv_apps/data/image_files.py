"""Pictures in folders: which there are, which of them can be read, and reading them whatever their format."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from coordconv_apps.utils.errors import UserError

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

OnBadImage = Literal["error", "skip"]
"""What to do with a picture that cannot be read: end the run, or go on without it."""

OPENED = 20_000
"""Up to so many pictures are all opened before a run starts, which takes seconds."""

_THREADS = 8
"""Files opened at a time: most of it is waiting for the disk."""

_NAMED = 5
"""Names in a message."""


class PictureError(UserError, ValueError):
    """A picture cannot be used as it is: the user's to repair, also where that shows in the middle of a run.

    Args:
        message: What is wrong; of one that a worker process has raised, behind its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


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


def find_pictures(folder: Path, argument: str, on_bad_image: OnBadImage) -> FoundPictures:
    """Finds the pictures in a folder and its sub-folders, and those among them that cannot be opened.

    In a folder of more than `OPENED` pictures none is opened: those that cannot be read are met when they are read.

    Args:
        folder: Where to look, see `list_pictures`.
        argument: What the user calls the folder, such as ``data.folder``, for messages.
        on_bad_image: Whether to go on without pictures that cannot be opened.

    Returns:
        The pictures, and what to tell.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There are no pictures that can be opened, or some that cannot and on_bad_image is "error".
    """
    names = list_pictures(folder, argument)
    bad = find_unreadable(folder, names) if len(names) <= OPENED else {}
    if not bad:
        return FoundPictures(names, 0, "")
    where, (first, why) = f"{argument}={str(folder)!r}", next(iter(bad.items()))
    if len(bad) == len(names):
        raise ValueError(f"{where}: none of {len(names)} pictures can be read, the first: {first} ({why})")
    told = f"{where}: {len(bad)} of {len(names)} pictures cannot be read: {name_some(list(bad))}"
    if on_bad_image == "error":
        raise ValueError(f"{told}; data.on_bad_image=skip goes on without them")
    return FoundPictures([name for name in names if name not in bad], len(bad), f"{told}; left out")


def name_some(names: Sequence[str]) -> str:
    """The first five names, and how many more there are, for a message of one line."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def list_pictures(folder: Path, argument: str) -> list[str]:
    """Lists the pictures in a folder and its sub-folders, known by their suffix.

    Args:
        folder: The folder. Links are followed, and no folder is entered twice.
        argument: What the user calls the folder, for messages.

    Returns:
        Paths relative to ``folder`` in alphabetical order, without what is hidden or in a hidden folder.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is no folder, a folder in it cannot be listed, or there are no pictures.
    """
    check_folder(folder, argument)

    def refuse(error: OSError) -> None:
        raise ValueError(f"{argument}={str(folder)!r}: cannot list {error.filename!r} ({error.strerror})") from error

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
        raise ValueError(f"{argument}={str(folder)!r}: no pictures there ({', '.join(PICTURE_SUFFIXES)})")
    return sorted(found)


def check_folder(folder: Path, argument: str) -> None:
    """Checks that a folder is there.

    Args:
        folder: The folder.
        argument: What the user calls it, for messages.

    Raises:
        FileNotFoundError: There is nothing of this name.
        ValueError: It is no folder.
    """
    if not folder.exists():
        raise FileNotFoundError(f"{argument}={str(folder)!r}: no such folder")
    if not folder.is_dir():
        raise ValueError(f"{argument}={str(folder)!r}: must be a folder, not a file")


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
        except Exception as error:  # as in `open_picture`
            return _one_line(error)

    with ThreadPoolExecutor(_THREADS) as pool:
        reasons = pool.map(why, names)
        return {name: reason for name, reason in zip(names, reasons, strict=True) if reason is not None}


def open_picture(path: Path, draft: int | None = None) -> Image.Image:
    """Opens and decodes a picture of any format, size and colour mode.

    What is transparent is laid over white; a camera's orientation is applied; of a moving picture the first frame
    counts. A gray picture with values above 255 is taken as one of 16 bits, one of fractions as one of values up to 1.

    Args:
        path: The picture.
        draft: If given, a JPEG picture may come at a half, a quarter or an eighth of its size, as long as both sides
            have so many pixels. That is several times as fast.

    Returns:
        The picture in mode RGB.

    Raises:
        ValueError: The file is no readable picture.
    """
    try:
        with Image.open(path) as opened:
            if draft is not None:
                opened.draft(None, (draft, draft))
            return _as_rgb(ImageOps.exif_transpose(opened))
    except Exception as error:  # at a damaged file, the decoders of formats raise almost anything
        raise ValueError(f"{path}: not a readable picture ({_one_line(error)})") from error


def read_picture(path: Path) -> Tensor:
    """Reads a whole picture, see `open_picture`.

    Args:
        path: The picture.

    Returns:
        uint8 ``(3, H, W)``, red, green and blue.

    Raises:
        ValueError: The file is no readable picture.
    """
    return as_tensor(open_picture(path))


def as_tensor(picture: Image.Image) -> Tensor:
    """The pixels of a picture of mode RGB: uint8 ``(3, H, W)``."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


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
        argument: What the user calls the folder, for messages.
        on_bad_image: Whether a picture that cannot be read is an error, or passed over.
        read_file: Reads one; raises `ValueError` if it cannot.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        argument: str,
        on_bad_image: OnBadImage = "error",
        read_file: Callable[[Path], Tensor] = read_picture,
    ) -> None:
        self.folder = folder
        # One array instead of an object for each: worker processes share it, as long as none writes to it.
        self._names = np.array([os.fsencode(name) for name in names])
        self.argument = argument
        self.on_bad_image: OnBadImage = on_bad_image
        self.read_file = read_file
        # What a worker process finds, this process and the other workers know too.
        self._is_bad = torch.zeros(len(names), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self._names)

    @property
    def bad(self) -> set[int]:
        """Numbers of the pictures that could not be read so far, by this process and its workers."""
        return set(self._is_bad.nonzero().flatten().tolist())

    def path(self, number: int) -> Path:
        """The file of a picture."""
        return self.folder / os.fsdecode(self._names[number])

    def read(self, number: int) -> Tensor:
        """Reads a picture, or what stands in for it.

        Args:
            number: Of the picture, from 0.

        Returns:
            What ``read_file`` gives for it; with on_bad_image="skip", if it cannot be read, for the next that can.

        Raises:
            ValueError: It cannot be read, and on_bad_image is "error" or there is none that can.
        """
        return self.read_this_or_next(number)[0]

    def read_this_or_next(self, number: int) -> tuple[Tensor, int]:
        """Reads a picture, or what stands in for it, as `read` does, and tells which it is.

        Args:
            number: Of the picture, from 0.

        Returns:
            What ``read_file`` gives, and the number of the picture that it is of.

        Raises:
            ValueError: As in `read`.
        """
        for candidate in (i % len(self) for i in range(number, number + len(self))):
            picture = self.try_read(candidate, "replaced by the next one")
            if picture is not None:
                return picture, candidate
        raise ValueError(f"{self.argument}={str(self.folder)!r}: none of {len(self)} pictures can be read")

    def try_read(self, number: int, otherwise: str = "left out") -> Tensor | None:
        """Reads a picture.

        Args:
            number: Of the picture, from 0.
            otherwise: What is done about a picture that cannot be read, for the warning.

        Returns:
            What ``read_file`` gives; None, with on_bad_image="skip", if it cannot be read.

        Raises:
            PictureError: It cannot be read, and on_bad_image is "error".
        """
        if self._is_bad[number]:
            return None
        try:
            return self.read_file(self.path(number))
        except ValueError as error:
            if self.on_bad_image == "error":
                raise PictureError(f"{error}; data.on_bad_image=skip goes on without such pictures") from error
            self._is_bad[number] = True
            warnings.warn(f"{error}: {otherwise}", stacklevel=2)
            return None
