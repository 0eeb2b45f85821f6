"""Image classification (Liu et al., 2018, section 5): networks of torchvision or timm, with or without coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordconv_apps.utils.imports import lazy_attributes

if TYPE_CHECKING:
    from classification.tasks import Classifier

__all__ = ["Classifier"]

__getattr__ = lazy_attributes(__name__, "classification.tasks", __all__)
