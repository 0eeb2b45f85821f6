"""RoIAlign for one feature map whose geometry is known."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from detection.boxes import pad_boxes


class CanvasRoIAlign(MultiScaleRoIAlign):  # type: ignore[misc]  # torchvision is untyped
    """RoIAlign at the true positions of the paper's feature map.

    Torchvision infers the scale from the image sizes of the first batch and has no offset, but without padding the map
    starts 6 pixels inside the canvas. The values are those of `torchvision.ops.roi_align` (aligned, one sampling
    point per bin). Bilinear sampling is separable, so two matrix products compute it, in half the time.

    Args:
        output_size: Positions per side of a pooled region.
        first_centre: Pixel at the centre of the map's first position.
        stride: Pixels between neighbouring positions of the map.
    """

    def __init__(self, output_size: int, first_centre: float, stride: int) -> None:
        # One sampling point per bin: a fifth of a 20 pixel box is one position of the map.
        super().__init__(["0"], output_size, sampling_ratio=1)
        self.first_centre, self.stride = first_centre, stride

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool the R boxes of all images from the map "0": ``(R, C, output_size, output_size)``."""
        padded, real = pad_boxes(boxes)
        pooled = self.pool(x["0"], padded)
        # Without any box there is still one of padding in each image.
        return pooled.flatten(0, 1) if all(len(b) == padded.shape[1] for b in boxes) else pooled[real]

    def pool(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Pool boxes ``(B, K, 4)`` from features ``(B, C, h, w)``: ``(B, K, C, output_size, output_size)``."""
        height, width = features.shape[-2:]
        # In float32: in half precision, positions of a wide image would coincide.
        corners = (boxes - self.first_centre) / self.stride
        rows = self._weights(corners[..., 1], corners[..., 3], height).to(features.dtype)
        columns = self._weights(corners[..., 0], corners[..., 2], width).to(features.dtype)
        # (B, K * bins, h) by (B, h, w * C), which is no copy in the network's channels-last format.
        lines = rows.flatten(1, 2) @ features.permute(0, 2, 3, 1).flatten(2)
        lines = lines.unflatten(2, (width, -1)).unflatten(1, rows.shape[1:3])
        pooled: Tensor = columns[:, :, None] @ lines
        return pooled.permute(0, 1, 4, 2, 3)

    def _weights(self, start: Tensor, end: Tensor, size: int) -> Tensor:
        """Return linear weights ``(B, K, bins, size)`` of the positions along one axis for the centres of the bins.

        Regions reach from ``start`` to ``end``, ``(B, K)``, in positions.
        """
        bins = self.output_size[0]
        middle = (torch.arange(bins, device=start.device, dtype=start.dtype) + 0.5) / bins
        at = start[..., None] + (end - start)[..., None] * middle
        beyond = (at < -1) | (at > size)
        distance = at.clamp(0, size - 1)[..., None] - torch.arange(size, device=start.device)
        weights: Tensor = (1 - distance.abs()).clamp(min=0).masked_fill(beyond[..., None], 0)
        return weights
