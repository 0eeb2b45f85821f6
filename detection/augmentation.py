"""Augmentation of images with boxes: the presets of torchvision's detection references, as transforms (v2)."""

from __future__ import annotations

from typing import Literal

import torch
from torchvision.transforms import v2

Augmentation = Literal["none", "hflip", "multiscale", "ssd", "ssdlite"]
"""Presets of torchvision's detection references, see `train_transforms`."""

_SHORT_SIDES = tuple(range(480, 801, 32))
_GROUND = (123.0, 117.0, 104.0)  # the mean of ImageNet


def train_transforms(augmentation: Augmentation) -> v2.Compose:
    """Return the transforms of a training sample ``(tv_tensors.Image, target)``.

    All presets but "none" flip half of the images, left to right.

    Args:
        augmentation: "none"; "hflip" for the flip alone; "multiscale" also resizes to a shorter side of 480 to 800
            pixels; "ssd" also changes the colours, puts the image on a larger ground and crops it; "ssdlite" also crops
            it.

    Example:
        >>> [type(each).__name__ for each in train_transforms("hflip").transforms]
        ['RandomHorizontalFlip', 'ToDtype', 'ClampBoundingBoxes', 'SanitizeBoundingBoxes']
    """
    before: dict[Augmentation, list[v2.Transform]] = {
        "none": [],
        "hflip": [],
        "multiscale": [v2.RandomShortestSize(_SHORT_SIDES, max_size=1333)],
        "ssd": [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=_GROUND), v2.RandomIoUCrop()],
        "ssdlite": [v2.RandomIoUCrop()],
    }
    flip = [] if augmentation == "none" else [v2.RandomHorizontalFlip(p=0.5)]
    after = [v2.ToDtype(torch.float32, scale=True), v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()]
    return v2.Compose([*before[augmentation], *flip, *after])
