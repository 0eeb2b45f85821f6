"""What a comparison may go over: several values of an argument, such as `--over model.game pong breakout`."""

import difflib
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from coordconv_apps.compare.runs import Plan

_FORM = "must be an argument of the application and its values, such as --over model.game pong breakout"


class Over(NamedTuple):
    """An argument, and the values for it."""

    argument: str | None  # None: the comparison goes over nothing
    values: tuple[str | None, ...]  # at least one; one None for nothing


def parse_over(given: Sequence[Sequence[str]] | None, flags: Sequence[str], reserved: Mapping[str, str]) -> Over:
    """Returns what `--over` says.

    Args:
        given: The words after each `--over`, or None where there is none.
        flags: The flags for the application.
        reserved: Flags that the comparison sets itself, and what to use in place of them.

    Raises:
        ValueError: It is not an argument and different values for it, or the argument is set elsewhere.
    """
    if given is None:
        return Over(None, (None,))
    if len(given) > 1:
        raise ValueError(f"--over {given[1][0]}: given more than once; a comparison goes over one argument")
    argument, *values = given[0]
    flag = f"--{argument}"
    if flag in reserved:
        raise ValueError(f"--over {argument}: is set by the comparison: {reserved[flag]}")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", argument):
        raise ValueError(f"--over {argument}: {_FORM}")
    if not values:
        raise ValueError(f"--over {argument}: no values; {_FORM}")
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"--over {argument} {value}: given more than once")
    if flag in (given_flag.partition("=")[0] for given_flag in flags):
        raise ValueError(f"{flag}: is set by --over {argument}")
    return Over(argument, tuple(values))


def check_known(plan: Plan, app: str) -> None:
    """Makes sure that the application has the argument that a comparison goes over, by its `fit --help`.

    Where that tells no arguments the runs will say what is wrong.

    Args:
        plan: The comparison, which goes over one.
        app: The application as the user named it.

    Raises:
        ValueError: It has no such argument.
    """
    command = [sys.executable, "-m", plan.module, "fit", "--help"]
    shown = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    known = set(re.findall(r"--([A-Za-z_]\w*(?:\.\w+)+)", shown.stdout)) if shown.returncode == 0 else set()
    argument = plan.over or ""
    if not known or any(argument == name or argument.startswith(f"{name}.") for name in known):
        return
    close = difflib.get_close_matches(argument, sorted(known), cutoff=0.5)
    what = f"the closest are {', '.join(close)}" if close else "`fit --help` shows those that it has"
    raise ValueError(f"--over {argument}: {app} has no such argument; {what}")
