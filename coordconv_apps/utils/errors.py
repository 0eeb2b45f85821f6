"""A user's mistakes in one line: what is wrong, and what is allowed."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from traceback import extract_tb, walk_tb
from typing import ClassVar

USER_ERRORS = ("loading state_dict", "conditioned on metric", "could not find the monitored key")
"""Parts of messages about users' mistakes that torch and Lightning raise during a run as errors of general types."""

MAX_LINE = 1000
"""Characters of a line about an error."""


class UserError(Exception):
    """A user's mistake, described in one line.

    Attributes:
        exit_status: The status with which the program ends.
        raised_by_all: Whether all processes raise it together, so that the first one reports it for all.
    """

    exit_status: ClassVar[int] = 2
    raised_by_all: bool = False


class StorageError(UserError):
    """A file or the output cannot be written: the disk is full, over its quota or read-only, or nobody reads on."""

    exit_status = 3


class MemoryShortage(UserError):
    """A tensor or an array needs more memory than there is."""


_NO_MEMORY = (
    "can't allocate memory",
    "array is too big",
    "Maximum allowed dimension exceeded",
    "Storage size calculation overflowed",
    "invalid buffer size",
)
"""Parts of messages with which torch and NumPy refuse sizes, as errors of general types."""

_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def as_storage_error(error: BaseException, folder: object = None) -> StorageError | None:
    """Return the `StorageError` behind an error, its causes included; None if there is none.

    ``folder`` is named if the error does not name a file.
    """
    where = "" if folder is None else f" in {folder}"
    for cause in causes(error):
        printed = output_failed(cause)
        if isinstance(cause, OSError) and (cause.errno in _STORAGE or (cause.errno == errno.EPIPE and printed)):
            kind = "the events of TensorBoard" if _is_of_tensorboard(cause) else "a file"
            place = cause.filename or ("the output of this command" if printed else f"{kind}{where}")
            reason = os.strerror(cause.errno).lower()
            if cause.errno == errno.EFBIG:
                reason = "larger than the limit on file sizes (ulimit -f) or than the file system allows"
            return StorageError(f"{place}: cannot be written: {reason}")
        if isinstance(cause, RuntimeError) and "PytorchStreamWriter failed" in str(cause):
            return StorageError(f"a file{where}: cannot be written: {one_line(cause)}")
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and, one after the other, what it was raised from; once each, if they are in a circle."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        yield cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__


def output_failed(error: BaseException) -> bool:
    """Return whether ``print`` raised an error, as on a full disk, or where nobody reads the output any more."""
    last = extract_tb(error.__traceback__)[-1:]
    return isinstance(error, OSError) and error.filename is None and bool(last) and "print(" in (last[0].line or "")


def discard_output() -> None:
    """Discard the output from now on: what is left of it would raise another error when the program ends."""
    with suppress(OSError, ValueError):  # such as an output that is no file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _is_of_tensorboard(error: BaseException) -> bool:
    """Return whether TensorBoard's writer raised an error; its errors do not name its file."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return any(module.startswith("tensorboard.") for module in modules)


def as_memory_shortage(error: BaseException, sizes: str) -> MemoryShortage | None:
    """Return the `MemoryShortage` that an error is, which names ``sizes``; None if it is none.

    >>> str(as_memory_shortage(MemoryError("Unable to allocate 400. GiB"), "data.num_val=2147483648"))
    'not enough memory: Unable to allocate 400. GiB; lower one of these: data.num_val=2147483648'
    """
    on_gpu = type(error).__name__ == "OutOfMemoryError"  # torch's, which is not imported for this
    if isinstance(error, MemoryError) or on_gpu or any(text in str(error) for text in _NO_MEMORY):
        advice = f"; lower one of these: {sizes}" if sizes else ""
        return MemoryShortage(f"not enough memory: {one_line(error)}{advice}")
    return None


def debugging() -> bool:
    """Return whether the user wants to see tracebacks and everything that is printed (``COORDCONV_DEBUG=1``)."""
    return os.environ.get("COORDCONV_DEBUG", "") not in ("", "0")


def is_user_error(error: Exception, running: bool) -> bool:
    """Return whether an error is a user's mistake, to be reported in one line, and not a defect of the program.

    ``running`` is whether training or evaluation had begun: wrong arguments are found before that.
    """
    if isinstance(error, UserError) or any(text in str(error) for text in USER_ERRORS):
        return True
    if isinstance(error, OSError) and error.filename is not None:  # the message names the file
        return True
    kinds: tuple[type[Exception], ...] = (ValueError, TypeError, OSError, ImportError)
    if (lightning := sys.modules.get("lightning.fabric.utilities.exceptions")) is not None:  # not imported for this
        kinds += (lightning.MisconfigurationException,)
    return not running and isinstance(error, kinds)


def one_line(error: BaseException | str) -> str:
    r"""Return an error's message on one line that every terminal can print; its type if it has no message.

    >>> one_line(ValueError("lr=-1: must be\n  above 0"))
    'lr=-1: must be above 0'
    >>> one_line("name=\x1b[2J: must be a word")
    'name=\\x1b[2J: must be a word'
    """
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return printable(" ".join(str(message).split())) or type(error).__name__


def shortened(line: str) -> str:
    """Cut the middle out of a line that would fill a terminal, such as one with a value of thousands of characters.

    >>> len(shortened("x" * 5000))
    1000
    """
    end = MAX_LINE // 4
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - end - 5]} ... {line[-end:]}"


def printable(text: object) -> str:
    r"""Return ``str(text)`` with escapes for what a terminal cannot print, as in file names that are not UTF-8.

    >>> printable("new\nline, \udcff, é")
    'new\\nline, \\udcff, é'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def abbreviate_names(names: Sequence[str], most: int = 5) -> str:
    """Join the first names, and count the others.

    >>> abbreviate_names(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(printable(name) for name in names[:most]) + more
