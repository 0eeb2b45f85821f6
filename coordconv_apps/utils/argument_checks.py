"""Check the arguments of tasks, data modules and commands: ranges and paths."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

Allowed = tuple[Callable[[Any], bool], str]
"""A test of a value, and a description of the allowed ones."""

NON_NEGATIVE: Allowed = (lambda value: value >= 0, "at least 0")
POSITIVE: Allowed = (lambda value: value > 0, "above 0")
FRACTION: Allowed = (lambda value: 0 <= value <= 1, "in [0, 1]")
BELOW_ONE: Allowed = (lambda value: 0 <= value < 1, "in [0, 1)")
TEXTS: Allowed = (lambda value: _is_list(value, str), "a list of texts")
INTS: Allowed = (lambda value: _is_list(value, int), "a list of integers")
COUNT: Allowed = (lambda value: isinstance(value, int) and value >= 0, "an integer of at least 0")
POSITIVE_FRACTION: Allowed = (lambda value: 0 < value <= 1, "above 0 and at most 1")


def at_least(least: int) -> Allowed:
    """Allow integers of at least ``least``."""
    return (lambda value: value >= least), f"an integer of at least {least}"


POSITIVE_INT = at_least(1)


def int_up_to(largest: int) -> Allowed:
    """Allow integers from 1 to ``largest``.

    >>> check_ranges({"steps": 10**12}, {"steps": int_up_to(1000)})
    Traceback (most recent call last):
        ...
    ValueError: model.steps=1000000000000: must be an integer from 1 to 1000
    """
    return (lambda value: 1 <= value <= largest), f"an integer from 1 to {largest}"


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, kind) for item in value)


def one_of(literal: object) -> Allowed:
    """Allow the values of a ``Literal`` type."""
    words = get_args(literal)
    return (lambda value: value in words), " or ".join([", ".join(words[:-1]), words[-1]])


def check_ranges(arguments: Mapping[str, Any], allowed: Mapping[str, Allowed], prefix: str = "model") -> None:
    """Raise `ValueError` for the first argument that is out of its range; None is always allowed.

    >>> check_ranges({"lr": -1.0}, {"lr": POSITIVE})
    Traceback (most recent call last):
        ...
    ValueError: model.lr=-1.0: must be above 0
    """
    for name, (is_allowed, words) in allowed.items():
        value = arguments[name]
        if value is not None and not is_allowed(value):
            raise ValueError(f"{prefix}.{name}={value}: must be {words}")


def check_at_least(least: int, prefix: str = "", /, **values: int) -> None:
    """Raise `ValueError` for the first value that is None or below ``least``.

    ``prefix`` stands before its name in the message.

    >>> check_at_least(1, "data.", batch_size=0)
    Traceback (most recent call last):
        ...
    ValueError: data.batch_size=0: must be an integer of at least 1
    """
    for name, value in values.items():
        if value is None or value < least:  # null in a config, or None in Python
            raise ValueError(f"{prefix}{name}={value}: must be an integer of at least {least}")


def check_saved(saved: Mapping[str, Any], allowed: Mapping[str, Allowed]) -> None:
    """Raise `ValueError` for the first entry of a checkpoint that is not allowed; an entry may be missing.

    >>> check_saved({"class_names": [1, {}]}, {"class_names": TEXTS})
    Traceback (most recent call last):
        ...
    ValueError: checkpoint.class_names=[1, {}]: must be a list of texts
    """
    check_ranges({name: saved.get(name) for name in allowed}, allowed, "checkpoint")


def given_path(value: str | os.PathLike[str], argument: str) -> Path:
    """Return the path that a user means by the value of an argument: ``~`` is the home folder.

    Raises:
        ValueError: The value is empty, or there is no such home folder. An empty value often comes from a variable that
            is not set; without this check it would mean the working folder.

    >>> given_path("~/runs", "--runs_dir") == Path.home() / "runs"
    True
    """
    if not str(value).strip():
        raise ValueError(f"{argument}={value}: must be a path, it is empty")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{argument}={value}: must be a path; this home folder does not exist") from error


def optional_path(value: str | os.PathLike[str] | None, argument: str) -> Path | None:
    """Return the path that a user means as `given_path` does, or None for None."""
    return None if value is None else given_path(value, argument)
