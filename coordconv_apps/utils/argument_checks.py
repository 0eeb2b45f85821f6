"""Arguments of tasks: which values are allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Allowed = tuple[Callable[[Any], bool], str]
"""Whether a value is allowed, and words for those that are."""


def check_ranges(arguments: Mapping[str, Any], allowed: Mapping[str, Allowed]) -> None:
    """Raises `ValueError` for the first argument of a task that is out of its range.

    Args:
        arguments: Values by name. None is allowed everywhere.
        allowed: What is allowed, by name; others may be anything.
    """
    for name, (is_allowed, words) in allowed.items():
        value = arguments[name]
        if value is not None and not is_allowed(value):
            raise ValueError(f"model.{name}={value}: must be {words}")
