"""List the image files of a folder, check them, and read them on demand; skip unreadable files if asked to."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from coordconv_apps.data.image_decoding import decoded_formats, open_file, read_image
from coordconv_apps.utils.distributed import is_first_here
from coordconv_apps.utils.errors import UserError, abbreviate_names, one_line, printable

OnBadImage = Literal["error", "skip"]
"""Handling of an image file that cannot be read: stop with an error, or continue without it."""

MAX_CHECKED = 20_000
"""Folders with at most this many images are checked completely before a run starts, which takes seconds."""

REPORT_EVERY = 5.0
"""Seconds after which listing a folder is reported."""

_CHECK_THREADS = 8


class ImageFileError(UserError, ValueError):
    """An image file that the user has to repair or remove, also if it is found in the middle of a run."""

    def __init__(self, message: str) -> None:
        # Where a worker process raised this error, the message comes after a traceback.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


def image_suffixes() -> tuple[str, ...]:
    """Return the file name suffixes of all formats that Pillow decodes, in lower case.

    >>> {".avif", ".jfif", ".jpg", ".png", ".ppm", ".tga"} <= set(image_suffixes())
    True
    """
    decoded = {*decoded_formats(), "MPO"}  # MPO, which some cameras write, is opened as JPEG
    return tuple(suffix for suffix, kind in Image.registered_extensions().items() if kind in decoded)


class FoundImages(NamedTuple):
    """The readable images of a folder.

    Attributes:
        names: Paths relative to the folder, without unreadable files.
        left_out: Paths of unreadable files.
        message: Lines that count and name the files that are not used; empty if there are none.
    """

    names: list[str]
    left_out: set[str]
    message: str


def find_images(folder: Path, argument: str, on_bad_image: OnBadImage) -> FoundImages:
    """List the images of a folder and its subfolders, see `list_files`, and open each without decoding it.

    More than `MAX_CHECKED` images are not opened: unreadable ones are then found when they are read.

    Args:
        folder: The folder.
        argument: The argument that names the folder, such as ``data.folder``, for messages.
        on_bad_image: Whether unreadable files are an error or left out.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: ``folder`` is a file, a subfolder cannot be listed, no image is readable, or some are unreadable and
            on_bad_image is "error".
    """
    files = list_files(folder, argument)
    found = _check(folder, files.images, f"{argument}={str(folder)!r}", on_bad_image)
    others = describe_others(folder, argument, files) if files.others else ""
    return found._replace(message="\n".join(filter(None, [others, found.message])))


def _check(folder: Path, names: list[str], where: str, on_bad_image: OnBadImage) -> FoundImages:
    bad = find_unreadable(folder, names) if len(names) <= MAX_CHECKED else {}
    if not bad:
        return FoundImages(names, set(), "")
    first, reason = next(iter(bad.items()))
    if len(bad) == len(names):
        raise ValueError(f"{where}: none of {len(names)} images can be read, the first: {printable(first)} ({reason})")
    message = f"{where}: {len(bad)} of {len(names)} images cannot be read: {abbreviate_names(list(bad))}"
    if on_bad_image == "error":
        raise ValueError(f"{message}; data.on_bad_image=skip continues without them")
    left_out = {str(folder / name) for name in bad}
    return FoundImages([name for name in names if name not in bad], left_out, f"{message}; left out")


class FolderFiles(NamedTuple):
    """The files of a folder and its subfolders: paths relative to the folder, in alphabetical order.

    Attributes:
        images: Files with the suffix of an image format that Pillow decodes, see `image_suffixes`.
        others: All other files.
    """

    images: list[str]
    others: list[str]


def list_files(folder: Path, argument: str) -> FolderFiles:
    """List the images and the other files of a folder and its subfolders, without hidden files and folders.

    Args:
        folder: The folder. Symbolic links are followed, and no folder is entered twice.
        argument: The argument that names the folder, for messages.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: ``folder`` is a file, a subfolder cannot be listed, or there are no images.
    """
    check_folder(folder, argument)

    def stop(error: OSError) -> None:
        raise ValueError(f"{argument}={str(folder)!r}: cannot list {error.filename!r} ({error.strerror})") from error

    found, suffixes = FolderFiles([], []), image_suffixes()
    entered: set[str] = set()
    report_at = time.monotonic() + REPORT_EVERY
    for place, subfolders, files in os.walk(folder, onerror=stop, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:  # through a link, perhaps to a parent folder
            subfolders.clear()
            continue
        entered.add(real)
        if time.monotonic() > report_at:
            report_at = time.monotonic() + REPORT_EVERY
            if is_first_here():  # the folder may be a wrong one, such as the root of the file system
                number = len(found.images) + len(found.others)
                print(f"{argument}={str(folder)!r}: listing its files, {number:,} so far", file=sys.stderr, flush=True)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        relative = os.path.relpath(place, folder)
        prefix = "" if relative == os.curdir else relative + os.sep
        for name in files:
            if not name.startswith("."):
                (found.images if name.lower().endswith(suffixes) else found.others).append(prefix + name)
    if not found.images:
        others = f", only {abbreviate_names(sorted(found.others))}" if found.others else ""
        raise ValueError(f"{argument}={str(folder)!r}: no images there in a format that Pillow reads{others}")
    return FolderFiles(sorted(found.images), sorted(found.others))


def describe_others(folder: Path, argument: str, files: FolderFiles) -> str:
    """Return a line that counts and names the files of a folder that are not images."""
    count = f"{len(files.others)} of {len(files.images) + len(files.others)} files are not images that Pillow reads"
    return f"{argument}={str(folder)!r}: {count}: {abbreviate_names(files.others)}; left out"


def check_folder(folder: Path, argument: str) -> None:
    """Raise `FileNotFoundError` or `ValueError`, which name the argument, unless a folder exists."""
    if not folder.exists():
        raise FileNotFoundError(f"{argument}={str(folder)!r}: no such folder")
    if not folder.is_dir():
        raise ValueError(f"{argument}={str(folder)!r}: must be a folder, not a file")


def list_class_folders(folder: Path, argument: str) -> list[str]:
    """Return the names of the subfolders of a folder, one for each class, sorted and without hidden ones.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: It is a file, or has no subfolder.
    """
    check_folder(folder, argument)
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(f"{argument}={str(folder)!r}: must have a folder of images for each class, has none")
    return names


def find_unreadable(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the reason for each image that cannot be opened. Images are not decoded: only headers are checked."""

    def try_open(name: str) -> str | None:
        try:
            with open_file(folder / name):
                return None
        except Exception as error:  # see `decode_image`
            return one_line(error)

    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        reasons = pool.map(try_open, names)
        return {name: reason for name, reason in zip(names, reasons, strict=True) if reason is not None}


class ImageFiles:
    """Image files that are read on demand.

    Args:
        folder: The folder of the images.
        names: Their paths relative to the folder.
        argument: The argument that names the folder, for messages.
        on_bad_image: Whether an unreadable file is an error or skipped.
        read_file: Reads one file; raises `ValueError` if it cannot.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        argument: str,
        on_bad_image: OnBadImage = "error",
        read_file: Callable[[Path], Tensor] = read_image,
    ) -> None:
        self.folder = folder
        # One array, not an object for each name: worker processes share its memory as long as nobody writes to it.
        self._names = np.array([os.fsencode(name) for name in names])
        self.argument = argument
        self.on_bad_image: OnBadImage = on_bad_image
        self.read_file = read_file
        # In shared memory: this process and all workers know which files any of them could not read.
        self._is_bad = torch.zeros(len(names), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self._names)

    @property
    def bad(self) -> set[str]:
        """Paths of the files that could not be read so far, by this process and its workers."""
        return {str(self.path(index)) for index in self._is_bad.nonzero().flatten().tolist()}

    def path(self, index: int) -> Path:
        """Return the path of a file."""
        return self.folder / os.fsdecode(self._names[index])

    def decode(self, index: int) -> Tensor:
        """Read a file; raise `ValueError` if it cannot be read. Subclasses may override it."""
        return self.read_file(self.path(index))

    def read_batch(self, indices: Sequence[int], transform: Callable[[Tensor], Tensor]) -> dict[int, Tensor]:
        """Read files, and return them by index without those that `try_read` leaves out.

        Each image is transformed before the next one is read: a batch of large images may not fit into memory.
        """
        return {index: transform(image) for index in indices if (image := self.try_read(index)) is not None}

    def read(self, index: int) -> Tensor:
        """Read a file, or the next readable one, see `read_this_or_next`."""
        return self.read_this_or_next(index)[0]

    def read_this_or_next(self, index: int) -> tuple[Tensor, int]:
        """Read a file, or with on_bad_image="skip" the next readable one; return the result and the index of the file.

        Raises:
            ImageFileError: The file is unreadable and on_bad_image is "error", or no file is readable.
        """
        for candidate in (i % len(self) for i in range(index, index + len(self))):
            image = self.try_read(candidate, "replaced by the next one")
            if image is not None:
                return image, candidate
        raise ImageFileError(f"{self.argument}={str(self.folder)!r}: none of {len(self)} images can be read")

    def try_read(self, index: int, consequence: str = "left out") -> Tensor | None:
        """Read a file; return None, and warn of the ``consequence``, if it is unreadable and on_bad_image is "skip".

        Raises:
            ImageFileError: The file is unreadable and on_bad_image is "error".
        """
        if self._is_bad[index]:
            return None
        try:
            return self.decode(index)
        except ValueError as error:
            if self.on_bad_image == "error":
                raise ImageFileError(f"{error}; data.on_bad_image=skip continues without such images") from error
            self._is_bad[index] = True
            warnings.warn(f"{error}: {consequence}", stacklevel=2)
            return None


def open_images(
    place: Path, argument: str, on_bad_image: OnBadImage, read_file: Callable[[Path], Tensor] = read_image
) -> tuple[ImageFiles, FoundImages]:
    """Open an image file, or the images of a folder and its subfolders, see `find_images` and `ImageFiles`."""
    if not place.exists():
        raise FileNotFoundError(f"{argument}={str(place)!r}: no such file or folder")
    if place.is_file():
        folder, found = place.parent, _check(place.parent, [place.name], f"{argument}={str(place)!r}", on_bad_image)
    else:
        folder, found = place, find_images(place, argument, on_bad_image)
    return ImageFiles(folder, found.names, argument, on_bad_image, read_file), found
