"""The coordinate-transform tasks (Liu et al., 2018, section 4): where convolution fails and CoordConv does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordconv_apps.utils.imports import lazy_attributes

if TYPE_CHECKING:
    from coordconv_apps.coordinates.tasks import (
        CoordinateClassification,
        CoordinateRegression,
        CoordinateRendering,
    )

__all__ = ["CoordinateClassification", "CoordinateRegression", "CoordinateRendering"]

__getattr__ = lazy_attributes(__name__, "coordconv_apps.coordinates.tasks", __all__)
