"""Object detection with and without coordinates: Faster R-CNN on canvases of scattered digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detection.tasks import FasterRCNN, RegionProposals

__all__ = ["FasterRCNN", "RegionProposals"]


def __getattr__(name: str) -> object:
    """Import the tasks, and Lightning with them, only when they are used."""
    if name in __all__:
        from detection import tasks

        return getattr(tasks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
