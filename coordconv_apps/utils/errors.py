"""A user's mistakes in one line: what is wrong, and what is allowed."""

from __future__ import annotations

import os
import sys
from typing import ClassVar

USER_ERRORS = ("loading state_dict", "conditioned on metric", "could not find the monitored key")
"""Parts of messages about users' mistakes that torch and Lightning raise during a run as errors of general types."""


class UserError(Exception):
    """A user's mistake, described in one line.

    Attributes:
        exit_status: The status with which the program ends.
    """

    exit_status: ClassVar[int] = 2


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
    r"""Return an error's message on one line; its type if it has no message.

    >>> one_line(ValueError("lr=-1: must be\n  above 0"))
    'lr=-1: must be above 0'
    """
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split()) or type(error).__name__


def printable(text: object) -> str:
    r"""Return ``str(text)`` with escapes for what a terminal cannot print, as in file names that are not UTF-8.

    >>> printable("new\nline, \udcff, é")
    'new\\nline, \\udcff, é'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
