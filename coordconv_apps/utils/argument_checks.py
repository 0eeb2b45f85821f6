"""Check the ranges of a task's arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

Allowed = tuple[Callable[[Any], bool], str]
"""A test of a value, and a description of the allowed ones."""


def one_of(literal: object) -> Allowed:
    """Allow the values of a ``Literal`` type."""
    words = get_args(literal)
    return (lambda value: value in words), " or ".join([", ".join(words[:-1]), words[-1]])


def check_ranges(arguments: Mapping[str, Any], allowed: Mapping[str, Allowed], prefix: str = "model") -> None:
    """Raise `ValueError` for the first argument that is out of its range; None is always allowed.

    >>> check_ranges({"lr": -1.0}, {"lr": (lambda value: value > 0, "above 0")})
    Traceback (most recent call last):
        ...
    ValueError: model.lr=-1.0: must be above 0
    """
    for name, (is_allowed, words) in allowed.items():
        value = arguments[name]
        if value is not None and not is_allowed(value):
            raise ValueError(f"{prefix}.{name}={value}: must be {words}")
