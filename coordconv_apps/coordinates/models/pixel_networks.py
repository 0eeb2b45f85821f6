"""Networks from positions to the logits of all pixels (classification and rendering).

All take centres ``(B, inputs)`` in pixels: x and y of each object.
"""

from __future__ import annotations

import itertools
import math

import torch.nn.functional as F
from torch import Tensor, nn

from coordconv_apps import CoordConv2d
from coordconv_apps.nn.coords import Coords

CLASSIFIER_CHANNELS = (32, 32, 64, 64, 1)  # of the 1x1 convolutions of the paper's classification network
PAINT_CHANNELS = (8, 8, 16, 16)  # of the 3x3 convolutions between softmax and last layer, for rendering
HALO = len(PAINT_CHANNELS) + 1  # how far a pixel of that softmax influences the image, in pixels


class PixelClassifier(nn.Module):
    """1x1 convolutions over (x, y), repeated over the canvas, and the coordinates: the paper's CoordConv network.

    The first layer is never computed on the repeated input. By linearity its output is the sum of a part that depends
    on the sample and a part that depends on the pixel: they are computed once per sample and once per canvas.

    Args:
        canvas_size: Height and width of the canvas, in pixels.
        coords: Coordinates in the first layer.
        inputs: Numbers per sample, 2 for each object.
        scale_inputs: Whether to scale positions to [-1, 1], or to keep them in pixels.
    """

    def __init__(self, canvas_size: int, coords: Coords, inputs: int = 2, *, scale_inputs: bool = True) -> None:
        super().__init__()
        self.canvas_size = canvas_size
        self.scale_inputs = scale_inputs
        width = CLASSIFIER_CHANNELS[0]
        self.first: nn.Conv2d = (
            nn.Conv2d(inputs, width, 1) if coords == "none" else CoordConv2d(inputs, width, 1, coords=coords)
        )
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(CLASSIFIER_CHANNELS):
            # In place: the canvas is so large that allocating memory takes longer than computing.
            layers += [nn.ReLU(inplace=True), nn.Conv2d(before, after, 1)]
        self.rest = nn.Sequential(*layers)

    def forward(self, centers: Tensor) -> Tensor:
        """Return the logits of all pixels, ``(B, H, W)``, for centres ``(B, inputs)`` in pixels."""
        if isinstance(self.first, nn.Conv2d):
            hidden = self._sample_part(centers) + self._canvas_part()
        else:  # folded for export: a layer of fixed size
            image = _as_image(centers, self.canvas_size, scale=self.scale_inputs)
            hidden = self.first(image.expand(-1, -1, self.canvas_size, self.canvas_size))
        logits: Tensor = self.rest(hidden)
        return logits.squeeze(1)

    def at(self, centers: Tensor, pixels: Tensor) -> Tensor:
        """Return the logits ``(B, S)`` of chosen pixels: those of `forward`, without the cost of the other pixels.

        Args:
            centers: ``(B, inputs)`` in pixels.
            pixels: int64 ``(B, S)``, pixel indices counted row by row.
        """
        canvas = self._canvas_part().flatten(2)[0].t()  # (canvas_size^2, channels)
        hidden = canvas[pixels].permute(0, 2, 1).unsqueeze(3) + self._sample_part(centers)
        logits: Tensor = self.rest(hidden)
        return logits[:, 0, :, 0]

    def _sample_part(self, centers: Tensor) -> Tensor:
        return F.conv2d(_as_image(centers, self.canvas_size, scale=self.scale_inputs), self.first.weight)

    def _canvas_part(self) -> Tensor:
        size = self.canvas_size
        canvas: Tensor = self.first(self.first.weight.new_zeros(1, self.first.in_channels, size, size))
        return canvas


class PixelRenderer(nn.Module):
    """The classification network, a softmax over the canvas, and 3x3 convolutions: the paper's network for rendering.

    Args:
        classifier: The network that finds the centre.
        width: Factor of the channels of the 3x3 convolutions.
    """

    def __init__(self, classifier: PixelClassifier, width: int = 1) -> None:
        super().__init__()
        self.classifier = classifier
        first, *hidden = (width * channels for channels in PAINT_CHANNELS)
        layers: list[nn.Module] = [nn.Conv2d(1, first, 3, padding=1)]
        for before, after in itertools.pairwise([first, *hidden, 1]):
            layers += [nn.ReLU(), nn.Conv2d(before, after, 3, padding=1)]
        self.paint = nn.Sequential(*layers)

    def forward(self, centers: Tensor) -> Tensor:
        """Return the logits of all pixels, ``(B, H, W)``, for centres ``(B, inputs)`` in pixels."""
        return self.render(self.classifier(centers))

    def render(self, logits: Tensor) -> Tensor:
        """Return the logits of the image, ``(B, H, W)``, for those of the centre, ``(B, H, W)``."""
        return self.paint_at(logits.flatten(1).softmax(1).view_as(logits))

    def paint_at(self, found: Tensor) -> Tensor:
        """Return the logits of the image in a crop of the canvas, ``(B, h, w)``, for its softmax, ``(B, h, w)``."""
        painted: Tensor = self.paint(found.unsqueeze(1))
        return painted.squeeze(1)


class GrowingNet(nn.Module):
    """The paper's convolution baseline: a 1x1 image of the positions doubles in size with every layer.

    Batch norm and ReLU follow every layer but the last.

    Args:
        canvas_size: Height and width of the canvas, in pixels; 64 takes six layers. Sizes other than powers of two
            are cropped from the next one.
        inputs: Numbers per sample, 2 for each object.
        channels: Channels of the last two hidden layers; earlier layers have twice as many. The paper's are 32, 64, 96.
        kernel_size: Kernel size.
        upsample: Whether a layer is nearest-neighbour upsampling and a convolution, or a transposed convolution.
        scale_inputs: Whether to scale positions to [-1, 1], or to keep them in pixels.
    """

    def __init__(
        self,
        canvas_size: int,
        inputs: int = 2,
        channels: int = 32,
        kernel_size: int = 3,
        *,
        upsample: bool = False,
        scale_inputs: bool = True,
    ) -> None:
        super().__init__()
        self.canvas_size = canvas_size
        self.scale_inputs = scale_inputs
        steps = max(3, math.ceil(math.log2(canvas_size)))
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise([inputs, *[2 * channels] * (steps - 3), channels, channels, 1]):
            if layers:
                layers += [nn.BatchNorm2d(before), nn.ReLU()]
            if upsample:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, kernel_size, padding="same")]
            else:
                # Twice the size, as TensorFlow's padding "SAME" has it (for kernel 3, its mirror image).
                odd = kernel_size % 2
                layers.append(nn.ConvTranspose2d(before, after, kernel_size, 2, (kernel_size - 2 + odd) // 2, odd))
        self.layers = nn.Sequential(*layers)

    def forward(self, centers: Tensor) -> Tensor:
        """Return the logits of all pixels, ``(B, H, W)``, for centres ``(B, inputs)`` in pixels."""
        logits: Tensor = self.layers(_as_image(centers, self.canvas_size, scale=self.scale_inputs))
        start = (logits.shape[-1] - self.canvas_size) // 2
        return logits[:, 0, start : start + self.canvas_size, start : start + self.canvas_size]


def scaled(centers: Tensor, canvas_size: int) -> Tensor:
    """Scale positions from 0 to ``canvas_size - 1`` pixels to [-1, 1], as coordinate channels are.

    >>> import torch
    >>> scaled(torch.tensor([0.0, 31.5, 63.0]), 64)
    tensor([-1.,  0.,  1.])
    """
    return centers * (2 / (canvas_size - 1)) - 1


def _as_image(centers: Tensor, canvas_size: int, *, scale: bool) -> Tensor:
    """Return positions, in pixels or scaled, as images ``(B, inputs, 1, 1)``."""
    return (scaled(centers, canvas_size) if scale else centers)[:, :, None, None]
