"""Batches of the detection application: images with their objects, and the user's own images to predict on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor

Images = Tensor | Sequence[Tensor]
"""Images of one size, ``(B, C, H, W)``, or of different sizes, ``(C, H, W)`` each; in [0, 1]."""


class _Objects(TypedDict):
    boxes: Tensor
    labels: Tensor


class DetectionTarget(_Objects, total=False):
    """The objects in an image; n may be 0.

    Attributes:
        boxes: float32 ``(n, 4)``, ``(x1, y1, x2, y2)`` in pixels, not empty; within the image if ``true_boxes="cut"``.
        labels: int64 ``(n,)``, from 1 to the number of classes.
        area: float32 ``(n,)``, area of each object in pixels, for COCO's metrics by size; that of the box if missing.
        iscrowd: int64 ``(n,)``, 1 for a crowd, in which COCO's metrics count no detection as wrong; 0 if missing.
    """

    area: Tensor
    iscrowd: Tensor


class DetectionBatch(TypedDict):
    """Images and their objects.

    Attributes:
        images: float32. Canvases are ``(B, 1, H, W)``, 0 (ground) to 1 (ink). Images of a COCO data set are a list of
            ``(3, H, W)``, RGB in [0, 1], of different sizes.
        targets: The objects in each image.
    """

    images: Images
    targets: list[DetectionTarget]


class ImageBatch(TypedDict):
    """The user's own images.

    Attributes:
        indices: Number of each image: its index among all that can be opened, or its id in the annotation file. Images
            that cannot be decoded are left out.
        paths: The file of each image.
        images: float32 in [0, 1], of different sizes: gray ``(1, H, W)``, 0 (ground) to 1 (ink), or RGB ``(3, H, W)``.
    """

    indices: list[int]
    paths: list[str]
    images: list[Tensor]
