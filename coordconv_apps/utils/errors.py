"""A user's mistakes in one line: what is wrong, and what is allowed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lightning.fabric.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    pass

DEBUG_VARIABLE = "COORDCONV_DEBUG"


class UserError(Exception):
    """A mistake of the user's, described by a message of one line."""


def debugging() -> bool:
    """Whether the user wants to see tracebacks and everything that is printed (``COORDCONV_DEBUG=1``)."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def is_user_error(error: Exception, running: bool) -> bool:
    """Whether an error is a user's mistake, to be told in one line, and no defect of the program.

    Args:
        error: The error.
        running: Whether everything was set up, and training or evaluation had begun. Mistakes show before that.
    """
    if isinstance(error, UserError):
        return True
    if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
        return True
    # torch and Lightning raise their own kinds for impossible values and missing packages.
    kinds = (ValueError, TypeError, OSError, ImportError, MisconfigurationException)
    return not running and isinstance(error, kinds)


def one_line(error: BaseException | str) -> str:
    """An error's message on one line; its type if it has no message."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split()) or type(error).__name__
