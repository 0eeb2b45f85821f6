"""Networks from an image to a position (regression).

All take images ``(B, 1, H, W)`` and return positions ``(B, 2)``: x and y as fractions of the canvas.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coordconv_apps import CoordConv2d
from coordconv_apps.nn.coords import Coords


class PositionNet(nn.Module):
    """The paper's CoordConv network for regression: linear convolutions, then the maximum over the canvas."""

    def __init__(self, coords: Coords) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 1) if coords == "none" else CoordConv2d(1, 8, 1, coords=coords),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 2, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return positions ``(B, 2)``, as fractions of the canvas, for images ``(B, 1, H, W)``."""
        marks: Tensor = self.layers(images)
        return marks.flatten(2).max(2).values

    def forward_collapsed(self, images: Tensor) -> Tensor:
        """Return the same as `forward` for images whose outermost pixels are 0, at a fraction of the cost.

        The network is linear up to the maximum. So its layers equal one 5x5 convolution of the image plus their output
        for an empty canvas, which is the same for all images.
        """
        kernel = images.new_zeros(1, 1, 9, 9)
        kernel[..., 4, 4] = 1  # the response to an impulse is the mirrored kernel
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d)
            kernel = F.conv2d(kernel, layer.weight, padding=layer.padding)
        kernel = kernel[..., 2:7, 2:7].flip(2, 3).transpose(0, 1)
        marks: Tensor = F.conv2d(images, kernel, padding=2) + self.layers(torch.zeros_like(images[:1]))
        return marks.flatten(2).max(2).values


class ConvRegressor(nn.Sequential):
    """The paper's regression baseline for the uniform split: convolutions, pooling, and dense layers.

    Args:
        canvas_size: Height and width of the images, at least 8 pixels.
        channels: Channels of the convolutions; 16, 32 or 48 in the paper.
    """

    def __init__(self, canvas_size: int, channels: int = 16) -> None:
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(itertools.pairwise([1, *[channels] * 4])):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            if number < 3:
                layers.append(nn.MaxPool2d(2))
        features = channels * (canvas_size // 8) ** 2
        super().__init__(*layers, nn.Flatten(), nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 2))


class StridedRegressor(nn.Sequential):
    """The paper's regression baseline for the quadrant split: strided convolutions, then the mean over the canvas.

    ReLU follows every convolution but the last; batch norm comes before the ReLU of the second and the fifth. In the
    authors' code, the second one's batch norm comes after its ReLU, and a ReLU follows the last convolution, too.

    Args:
        channels: Channels of the convolutions; 16, 32 or 48 in the paper.
    """

    def __init__(self, channels: int = 16) -> None:
        kernels = ((5, 2), (1, 1), (3, 1), (3, 2), (3, 2), (3, 2), (1, 1), (3, 2), (3, 1))
        layers: list[nn.Module] = []
        for number, (kernel, stride) in enumerate(kernels, start=1):
            before = 1 if number == 1 else channels
            after = 2 if number == len(kernels) else channels
            layers.append(nn.Conv2d(before, after, kernel, stride, padding=kernel // 2))
            if number in (2, 5):
                layers.append(nn.BatchNorm2d(after))
            if number < len(kernels):
                layers.append(nn.ReLU())
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
