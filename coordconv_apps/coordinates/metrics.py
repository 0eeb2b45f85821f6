"""The paper's figures: hits, distances in pixels, intersection over union. All add up over processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchmetrics import Metric

if TYPE_CHECKING:
    from collections.abc import Mapping


class MeanFigures(Metric):
    """Means of several figures over all samples; a subclass says what a sample's figures are.

    Args:
        names: Names of the figures.
    """

    sums: Tensor
    count: Tensor

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.add_state("sums", torch.zeros(len(names)), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, figures: Mapping[str, Tensor]) -> None:
        """Adds each figure ``(B,)`` of a batch's samples."""
        stacked = torch.stack([figures[name].float() for name in self.names])
        self.sums += stacked.sum(1)
        self.count += stacked.shape[1]

    def compute(self) -> dict[str, Tensor]:
        """The means by name, scalars; not a number before the first sample."""
        means = self.sums / self.count
        return dict(zip(self.names, means, strict=True))


class PixelHits(MeanFigures):
    """How often the most probable pixel is the true one, and how far from it it is.

    - ``accuracy``: share of hits, in [0, 1].
    - ``euclidean_distance``, ``manhattan_distance``: of the most probable pixel from the true one, in pixels.
    """

    def __init__(self) -> None:
        super().__init__("accuracy", "euclidean_distance", "manhattan_distance")

    def update(self, logits: Tensor, centers: Tensor) -> None:
        """Adds samples.

        Args:
            logits: ``(B, H, W)``.
            centers: int64 ``(B, 1, 2)``, x and y of the true pixel.
        """
        best = logits.flatten(1).argmax(1)
        width = logits.shape[-1]
        offset = torch.stack([best % width, best // width], dim=1) - centers[:, 0]
        self._add(
            {
                "accuracy": (offset == 0).all(1),
                "euclidean_distance": offset.float().norm(dim=1),
                "manhattan_distance": offset.abs().sum(1),
            }
        )


class PositionErrors(MeanFigures):
    """How far a position is from the true one: ``euclidean_distance``, in pixels."""

    def __init__(self) -> None:
        super().__init__("euclidean_distance")

    def update(self, positions: Tensor, centers: Tensor) -> None:
        """Adds samples.

        Args:
            positions: ``(B, 2)``, x and y in pixels.
            centers: ``(B, 1, 2)``, the true ones.
        """
        self._add({"euclidean_distance": (positions - centers[:, 0]).norm(dim=1)})


class PixelOverlap(MeanFigures):
    """Intersection over union of pixels, ``iou`` in [0, 1], as the mean over images.

    An image without any such pixel, found or true, counts as 1.
    """

    def __init__(self) -> None:
        super().__init__("iou")

    def update(self, logits: Tensor, images: Tensor) -> None:
        """Adds samples.

        Args:
            logits: ``(B, H, W)``; a pixel is found if its probability is above 0.5.
            images: ``(B, H, W)``, 1 where a pixel is true and 0 elsewhere.
        """
        self._add({"iou": overlaps(logits, images)})


def overlaps(logits: Tensor, images: Tensor) -> Tensor:
    """Intersection over union of each image's pixels; 1 for an image without any, found or true.

    Args:
        logits: ``(B, H, W)``; a pixel is found if its probability is above 0.5.
        images: ``(B, H, W)``, 1 where a pixel is true and 0 elsewhere.

    Returns:
        float32 ``(B,)``, in [0, 1].
    """
    found, true = logits.flatten(1) > 0, images.flatten(1) > 0.5
    either = (found | true).sum(1)
    return torch.where(either == 0, 1.0, (found & true).sum(1) / either.clamp(min=1))
