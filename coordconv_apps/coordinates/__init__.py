"""The coordinate-transform tasks (Liu et al., 2018, section 4): where convolution fails and CoordConv does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordconv_apps.coordinates.tasks import (
        CoordinateClassification,
        CoordinateRegression,
        CoordinateRendering,
    )

__all__ = ["CoordinateClassification", "CoordinateRegression", "CoordinateRendering"]


def __getattr__(name: str) -> object:
    """Import a task when it is first used, so that importing this package does not import Lightning."""
    if name in __all__:
        from coordconv_apps.coordinates import tasks

        return getattr(tasks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
