"""Write files atomically: first to a temporary file, which is then renamed.

A temporary file or folder is locked by the process that writes it. The operating system releases the lock when the
process ends in any way, so that the next one to write in the same folder finds and removes what a killed one left.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

TEMPORARY_SUFFIX = ".aside"  # not .tmp: temporary files of other programs stay
"""End of the name of a temporary file or folder, whose name begins with a dot."""

try:
    import fcntl
except ImportError:  # on Windows, temporary files of killed processes stay
    fcntl = None  # type: ignore[assignment]

TEMPORARY = re.compile(rf"\..+\.[a-z0-9_]{{8}}{re.escape(TEMPORARY_SUFFIX)}")
"""Names of the temporary files and folders of this module."""

LONGEST_NAME = 60  # characters of a value in the name of a file

_FOLDER = ".folder."  # beginning of the name of a temporary folder
_swept: set[str] = set()  # folders whose leftovers this process has removed


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file next to ``path`` for writing, and rename it to ``path`` if no exception is raised.

    The folder is created if needed. ``mode`` is ``"w"`` for text and ``"wb"`` for bytes.
    """
    encoding = None if "b" in mode else "utf-8"
    with named_in_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        handle, temporary, lock = _new_file(path)
        try:
            with open(handle, mode, encoding=encoding) as file:
                yield file
            os.umask(umask := os.umask(0))  # the only way to read it
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        finally:
            os.close(lock)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Create a temporary folder in ``parent``, and remove it at the end, with ``parent`` if that is new and empty."""
    absent = absent_folders(parent)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        folder, lock = _new_folder(parent)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                os.close(lock)
    finally:
        remove_empty_folders(absent)


def check_regular_file(path: Path) -> None:
    """Raise `ValueError` if a path is no regular file: reading a pipe or a device might wait or go on forever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path}: not a regular file")


def absent_folders(path: Path) -> list[Path]:
    """Return a path and the folders above it that do not exist yet, the deepest first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def remove_empty_folders(folders: Sequence[Path]) -> None:
    """Remove folders that exist and are empty, the deepest first."""
    for folder in folders:
        with suppress(OSError):  # such as a folder that another command uses by now
            folder.rmdir()


def _new_file(path: Path) -> tuple[int, str, int]:
    """Create and lock a temporary file next to ``path``; return its descriptor, its name, and one that holds the lock.

    The second descriptor keeps the lock until the file is renamed.
    """
    while True:
        # A file's name may be as long as the file system allows, and the temporary name is longer.
        prefix = f".{cut_file_name(path.name, 100)}."
        handle, temporary = tempfile.mkstemp(prefix=prefix, suffix=TEMPORARY_SUFFIX, dir=path.parent)
        lock = os.dup(handle)
        # Another process may have taken the file for a leftover before it was locked.
        if try_lock(lock) and os.fstat(lock).st_nlink:
            return handle, temporary, lock
        os.close(handle)
        os.close(lock)


def _new_folder(parent: Path) -> tuple[Path, int | None]:
    """Create and lock a temporary folder; return it, and a descriptor that holds the lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_FOLDER, suffix=TEMPORARY_SUFFIX, dir=parent))
        if fcntl is None:
            return folder, None
        # Another process may have taken the folder for a leftover before it was locked.
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            if try_lock(lock) and folder.exists():
                return folder, lock
            os.close(lock)


def try_lock(descriptor: int) -> bool:
    """Lock a file or a folder; return False if another process has locked it. Some file systems have no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left in a folder, once for each folder."""
    if (place := os.path.abspath(folder)) not in _swept:
        _swept.add(place)
        remove_temporary_files(folder)


def remove_temporary_files(folder: Path, names: re.Pattern[str] = TEMPORARY) -> None:
    """Remove the temporary files and folders that killed processes have left: those that no process has locked.

    Args:
        folder: The folder that they are in.
        names: Their names. Files with other names than `TEMPORARY` must not be in use: they are not locked.
    """
    if fcntl is None:
        return
    try:
        paths = [path for path in folder.iterdir() if names.fullmatch(path.name)]
    except OSError:  # no folder, or one that may be written but not listed
        return
    for path in paths:
        if path.is_symlink() or not (path.is_file() or (path.is_dir() and path.name.startswith(_FOLDER))):
            continue
        with suppress(OSError):  # locked, or removed by another process
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Name the file that is written in each `OSError` of a full disk, which names none, or a temporary file."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            error.filename = str(path)
        raise


def file_name(value: str) -> str:
    """Return any value as part of a file name: unchanged if possible, else cleaned and with a checksum.

    >>> file_name("pong"), file_name("ALE/Pong-v5")
    ('pong', 'ALE-Pong-v5-d3b6e4aa')
    """
    kept = re.sub(r"[^\w.-]+", "-", value, flags=re.ASCII).strip("-.")[:LONGEST_NAME]
    if kept == value and kept:
        return kept
    return f"{kept}-{hashlib.sha256(value.encode()).hexdigest()[:8]}".lstrip("-")  # no two values share a name


def cut_file_name(name: str, length: int) -> str:
    """Return the beginning of a file name that has at most ``length`` bytes; file systems allow 255.

    >>> cut_file_name("zwölf.png", 3)
    'zw'
    """
    return os.fsencode(name)[:length].decode(errors="ignore")
