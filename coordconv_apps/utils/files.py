"""Write files atomically: first to a temporary file, which is then renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ASIDE = ".aside"
"""End of the name of a temporary file, whose name begins with a dot."""


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file next to ``path`` for writing, and rename it to ``path`` if no exception is raised.

    The folder is created if needed. ``mode`` is ``"w"`` for text and ``"wb"`` for bytes.
    """
    encoding = None if "b" in mode else "utf-8"
    with named_in_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file's name may be as long as the file system allows, and the temporary name is longer.
        handle, aside = tempfile.mkstemp(ASIDE, f".{cut_file_name(path.name, 100)}.", path.parent)
        try:
            with open(handle, mode, encoding=encoding) as file:
                yield file
            os.umask(umask := os.umask(0))  # the only way to read it
            os.chmod(aside, 0o666 & ~umask)
            os.replace(aside, path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise


def remove_asides(folder: Path) -> None:
    """Remove the temporary files that killed processes have left in a folder. No other process may write there."""
    for aside in folder.glob(f".*{ASIDE}"):
        aside.unlink(missing_ok=True)


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Name the file that is written in each `OSError` of a full disk, which names none, or a temporary file."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            error.filename = str(path)
        raise


def cut_file_name(name: str, length: int) -> str:
    """Return the beginning of a file name that has at most ``length`` bytes; file systems allow 255.

    >>> cut_file_name("zwölf.png", 3)
    'zw'
    """
    return os.fsencode(name)[:length].decode(errors="ignore")
