"""Find the folder of the data sets, and download their files."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from coordconv_apps.utils.argument_checks import given_path
from coordconv_apps.utils.errors import one_line
from coordconv_apps.utils.files import temporary_folder

DOWNLOAD_TIMEOUT = 20.0
"""Seconds that a download waits for an answer."""


def data_root(root: str | None = None) -> Path:
    """Return the folder that holds the data sets: ``root`` if given, else ``$COORDCONV_DATA``, else ``./data``."""
    # A variable that is set to nothing counts as not set.
    return given_path(os.environ.get("COORDCONV_DATA") or "data" if root is None else root, "data.root")


def download_files(folder: Path, names: Sequence[str], download: Callable[[Path], Path], missing: str) -> None:
    """Download files to a temporary folder, and move each into place once all are complete.

    Several processes may call this at once: a file is either complete or absent. The temporary folder is in
    ``folder``, where there is space for the files; if the process is killed, the next download there removes it.

    Args:
        folder: The folder that the files go to; it is created if needed.
        names: Names of the files.
        download: Downloads to the folder that it is given, and returns the folder in it that has the files.
        missing: The start of the error message: which files are missing, and where the user can put them.

    Raises:
        FileNotFoundError: The download failed, or the folder cannot be written.
    """
    try:
        with temporary_folder(folder) as temporary, _download_timeout():
            downloaded = download(temporary)
            for name in names:
                os.replace(downloaded / name, folder / name)
    except (OSError, RuntimeError) as error:  # torchvision raises RuntimeError when all mirrors fail
        raise FileNotFoundError(f"{missing} (downloading failed: {one_line(error)})") from error


@contextmanager
def _download_timeout() -> Iterator[None]:
    """Stop downloads that get no answer: torchvision would wait without limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
