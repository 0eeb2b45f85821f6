"""Ranges of the arguments that several tasks of RL have."""

from __future__ import annotations

from coordconv_apps.utils.argument_checks import Allowed

NON_NEGATIVE: Allowed = (lambda value: value >= 0, "at least 0")
POSITIVE: Allowed = (lambda value: value > 0, "above 0")
POSITIVE_INT: Allowed = (lambda value: value >= 1, "an integer of at least 1")
FRACTION: Allowed = (lambda value: 0 <= value <= 1, "in [0, 1]")
POSITIVE_FRACTION: Allowed = (lambda value: 0 < value <= 1, "above 0 and at most 1")
