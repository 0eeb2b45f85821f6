"""Refuse values that jsonargparse accepts for any argument: null, infinity, NaN and integers of more than 64 bits."""

from __future__ import annotations

import math
from argparse import ArgumentError
from collections.abc import Iterator
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from coordconv_apps.utils.errors import UserError

LARGEST = 2**63 - 1
"""Largest integer that torch and NumPy can hold."""

MAX_NAMED = 3


def check_nulls(parser: ArgumentParser, task_parser: ArgumentParser, config: Namespace) -> None:
    """Raise `ArgumentError` if an argument is null whose type does not allow null.

    Args:
        parser: The parser of the command.
        task_parser: A parser of the task's arguments alone, which the other one does not look at.
        config: The parsed arguments of the command.
    """
    try:
        parser.validate(config, skip_unset=False)
        arguments = Namespace(model=config.model.init_args)  # type: ignore[no-untyped-call]  # its constructor
        task_parser.validate(arguments, skip_unset=False)
    except TypeError as error:
        raise ArgumentError(None, str(error)) from error


def check_numbers(config: Namespace) -> None:
    """Raise `UserError` for a number that is infinite, NaN, or too large for any library."""
    for key, value in numbers(config):
        if not math.isfinite(value):
            raise UserError(f"--{key}={value}: must be a finite number")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise UserError(f"--{key}={value}: must be between -{LARGEST} and {LARGEST}")


def largest_sizes(config: Namespace) -> str:
    """Return the largest integers among the arguments of task and data, for a message about missing memory."""
    sizes = [(value, key) for key, value in numbers(config) if isinstance(value, int) and not key.endswith("seed")]
    sizes = [(value, key) for value, key in sizes if key.startswith(("model.", "data."))]
    return ", ".join(f"{key}={value}" for value, key in sorted(sizes, reverse=True)[:MAX_NAMED])


def numbers(config: Namespace) -> Iterator[tuple[str, int | float]]:
    """Yield all numbers of a command's arguments, also those in lists, with the names of their flags."""
    for key, value in config.items():
        yield from _numbers(key.replace("model.init_args.", "model."), value)


def _numbers(key: str, value: Any) -> Iterator[tuple[str, int | float]]:  # noqa: ANN401  # any argument's
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(key, item)
