"""The discriminator of the two-shape experiment (Liu et al., 2018, supplement)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from coordconv_apps import to_coordconv
from coordconv_apps.nn.coords import Coords
from coordconv_apps.nn.init import he_normal_, narrow_normal_


class Discriminator(nn.Module):
    """The paper's discriminator: strided convolutions, batch norm from the second on, leaky ReLU, one linear layer.

    The first layer has ``width`` channels (paper: 64), and each further one twice as many.
    """

    def __init__(self, image_size: int, width: int, *, norm: bool = True) -> None:
        super().__init__()
        channels = downsampling_channels(image_size, width)
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(itertools.pairwise((3, *channels))):
            layers.append(nn.Conv2d(before, after, 5, stride=2, padding=2))
            if norm and number:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.features = nn.Sequential(*layers)
        self.last = nn.Linear(16 * channels[-1], 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(B,)`` of images ``(B, 3, H, W)`` in [-1, 1], and features ``(B, F)`` of the last layer."""
        features = self.features(images).flatten(1)
        return self.last(features).squeeze(1), features


def build_discriminator(coords: Coords, *, image_size: int, width: int, norm: bool) -> Discriminator:
    """Build a `Discriminator` with ``coords`` at its input, and weights from torch's global random numbers."""
    network = Discriminator(image_size, width, norm=norm)
    if coords != "none":
        to_coordconv(network, "first", coords)
    if norm:
        narrow_normal_(network)
    else:
        he_normal_(network, coords_last=True)
    return network.to(memory_format=torch.channels_last)


def downsampling_channels(image_size: int, width: int) -> list[int]:
    """Return the channels of the strided convolutions that reduce an image to 4 x 4; each has twice as many.

    Example:
        >>> downsampling_channels(image_size=64, width=64)
        [64, 128, 256, 512]
    """
    return [width << step for step in range((image_size // 4).bit_length() - 1)]
