"""Image classification (Liu et al., 2018, section 5): networks of torchvision or timm, with or without coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from classification.tasks import Classifier

__all__ = ["Classifier"]


def __getattr__(name: str) -> object:
    """Import the task when it is first used, so that importing the package does not import Lightning."""
    if name == "Classifier":
        from classification.tasks import Classifier

        return Classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
