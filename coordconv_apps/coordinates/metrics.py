"""The paper's metrics: accuracy, distances in pixels, intersection over union. All are exact over processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class SampleMeans(Metric):
    """Means over all samples of the values with these names; a subclass computes the values of a sample."""

    sums: Tensor
    count: Tensor

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.add_state("sums", torch.zeros(len(names)), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, *values: Tensor) -> None:
        """Add the values of a batch's samples, each ``(B,)``, in the order of the names."""
        stacked = torch.stack([value.float() for value in values])
        self.sums += stacked.sum(1)
        self.count += stacked.shape[1]

    def compute(self) -> dict[str, Tensor]:
        """Return the means by name, scalars; NaN without samples."""
        return dict(zip(self.names, self.sums / self.count, strict=True))


class PixelAccuracy(SampleMeans):
    """Accuracy of the most probable pixel, and its distance from the true one.

    - ``accuracy``: fraction of samples whose most probable pixel is the true one, in [0, 1].
    - ``euclidean_distance``, ``manhattan_distance``: between the two pixels, in pixels.

    >>> metric = PixelAccuracy()
    >>> logits = torch.zeros(1, 4, 4)
    >>> logits[0, 1, 2] = 5.0  # row y = 1, column x = 2
    >>> metric.update(logits, torch.tensor([[[0, 3]]]))
    >>> metric.compute()["manhattan_distance"]
    tensor(4.)
    """

    def __init__(self) -> None:
        super().__init__("accuracy", "euclidean_distance", "manhattan_distance")

    def update(self, logits: Tensor, centers: Tensor) -> None:
        """Add logits ``(B, H, W)`` and their true pixels, int64 ``(B, 1, 2)``."""
        best = logits.flatten(1).argmax(1)
        width = logits.shape[-1]
        offset = torch.stack([best % width, best // width], dim=1) - centers[:, 0]
        self._add((offset == 0).all(1), offset.float().norm(dim=1), offset.abs().sum(1))


class PositionError(SampleMeans):
    """Distance of a position from the true one: ``euclidean_distance``, in pixels.

    >>> metric = PositionError()
    >>> metric.update(torch.tensor([[3.0, 4.0]]), torch.tensor([[[0, 0]]]))
    >>> metric.compute()
    {'euclidean_distance': tensor(5.)}
    """

    def __init__(self) -> None:
        super().__init__("euclidean_distance")

    def update(self, positions: Tensor, centers: Tensor) -> None:
        """Add positions ``(B, 2)`` and the true ones, ``(B, 1, 2)``, x and y in pixels."""
        self._add((positions - centers[:, 0]).norm(dim=1))


class PixelIoU(SampleMeans):
    """Intersection over union of pixels, ``iou`` in [0, 1], as the mean over images.

    An image without any pixel, predicted or true, counts as 1.

    >>> metric = PixelIoU()
    >>> metric.update(torch.tensor([[[5.0, 5.0, -5.0]]]), torch.tensor([[[0.0, 1.0, 1.0]]]))
    >>> metric.compute()
    {'iou': tensor(0.3333)}
    """

    def __init__(self) -> None:
        super().__init__("iou")

    def update(self, logits: Tensor, images: Tensor) -> None:
        """Add samples: see `pixel_iou`."""
        self._add(pixel_iou(logits, images))


def pixel_iou(logits: Tensor, images: Tensor) -> Tensor:
    """Return the intersection over union of each image's pixels, float32 ``(B,)``; 1 for an image without any.

    Args:
        logits: ``(B, H, W)``; pixels with a probability above 0.5 are predicted.
        images: ``(B, H, W)``, 1 at true pixels and 0 elsewhere.
    """
    predicted, true = logits.flatten(1) > 0, images.flatten(1) > 0.5
    union = (predicted | true).sum(1)
    return torch.where(union == 0, 1.0, (predicted & true).sum(1) / union.clamp(min=1))
