"""Object detection with and without coordinates: Faster R-CNN on canvases of scattered digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordconv_apps.utils.imports import lazy_attributes

if TYPE_CHECKING:
    from detection.tasks import FasterRCNN, RegionProposals

__all__ = ["FasterRCNN", "RegionProposals"]

__getattr__ = lazy_attributes(__name__, "detection.tasks", __all__)
