"""The generators and the discriminator of the two-shape experiment (Liu et al., 2018, section 5 and supplement)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coordconv_apps import CoordConv2d
from coordconv_apps.nn.coords import coord_sample

if TYPE_CHECKING:
    from coordconv_apps.nn.coords import Coords

COORDCONV_CHANNELS = (8, 4, 4, 2, 1)
"""1x1 convolutions of the CoordConv generator, in multiples of its width (paper: 64)."""


class ConvGenerator(nn.Module):
    """Transposed convolutions: the paper's baseline. From 4 x 4 on, each doubles height and width.

    Args:
        latent_size: Numbers that an image is made of.
        image_size: Height and width, 4 times a power of two, at least 8.
        width: Channels of the last hidden layer (paper: 64); each one before it has twice as many.
    """

    def __init__(self, latent_size: int, image_size: int, width: int) -> None:
        super().__init__()
        doublings = (image_size // 4).bit_length() - 1
        channels = [width << step for step in reversed(range(doublings))]
        self.first = nn.Linear(latent_size, 16 * channels[0])
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True)]
        for before, after in itertools.pairwise(channels):
            layers += [_double(before, after), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.rest = nn.Sequential(*layers, _double(channels[-1], 3))

    def forward(self, latents: Tensor) -> Tensor:
        """Images before the tanh.

        Args:
            latents: ``(B, latent_size)``.

        Returns:
            ``(B, 3, H, W)``.
        """
        images: Tensor = self.rest(self.first(latents).unflatten(1, (-1, 4, 4)))
        return images


def _double(channels: int, to: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, to, 5, stride=2, padding=2, output_padding=1)


class CoordConvGenerator(nn.Module):
    """The latent numbers, repeated over the image, and the coordinates; 1x1 convolutions, then 3x3: the paper's.

    Its first layer is never computed on the repeated input: what it makes of the latents and what it makes of the
    coordinates are computed apart, once for an image and once for all of them, and added.

    Args:
        latent_size: Numbers that an image is made of.
        image_size: Height and width.
        width: Channels of the last 1x1 convolution and of the 3x3 ones (paper: 64).
        coords: Coordinates in the first layer; without any, all pixels but those near the border are equal.
    """

    def __init__(self, latent_size: int, image_size: int, width: int, coords: Coords) -> None:
        super().__init__()
        self.image_size = image_size
        channels = [width * factor for factor in COORDCONV_CHANNELS]
        self.first: nn.Conv2d = (
            nn.Conv2d(latent_size, channels[0], 1)
            if coords == "none"
            else CoordConv2d(latent_size, channels[0], 1, coords=coords)
        )
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            layers += [nn.ReLU(inplace=True), nn.Conv2d(before, after, 1)]
        for _ in range(2):
            layers += [nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1)]
        layers[0] = nn.Identity()  # `forward` has done that
        self.rest = nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Conv2d(width, 3, 1))

    def forward(self, latents: Tensor) -> Tensor:
        """Images before the tanh.

        Args:
            latents: ``(B, latent_size)``.

        Returns:
            ``(B, 3, H, W)``.
        """
        size = self.image_size
        if isinstance(self.first, nn.Conv2d):
            of_latents = F.linear(latents, self.first.weight.flatten(1))
            of_positions = self._of_positions() if self.training else self._remembered_of_positions()
            # Channels last, where autograd sums over images and over pixels at the speed of memory; and what changes in
            # place must not be a view, which autograd would copy.
            pixels = (of_latents[:, None] + of_positions.to(of_latents.dtype)).relu_()
            hidden = pixels.expand(-1, size**2, -1).unflatten(1, (size, size)).permute(0, 3, 1, 2)
        else:  # folded, for export: a layer that knows its canvas
            hidden = self.first(latents[:, :, None, None].expand(-1, -1, size, size)).relu()
        images: Tensor = self.rest(hidden)
        return images

    def _of_positions(self) -> Tensor:
        """The first layer's coordinates' part and bias, ``(H * W, channels)``; without coordinates ``(channels,)``."""
        assert self.first.bias is not None
        if not isinstance(self.first, CoordConv2d):
            return self.first.bias
        weight, size = self.first.coord_weight.flatten(1), self.image_size
        # Half precision would shift coordinates by pixels. Products of single numbers stay as they are in autocast.
        dtype, r = torch.promote_types(weight.dtype, torch.float32), self.first.coords.endswith("r")
        places = coord_sample((size, size), r=r, dtype=dtype, device=weight.device)[0].flatten(1)
        products = [place[:, None] * of_place for place, of_place in zip(places, weight.T, strict=True)]
        return sum(products, self.first.bias)

    def _remembered_of_positions(self) -> Tensor:
        """The same by calling the layer, which remembers it in evaluation, and is found by `fold`."""
        canvas = self.first.weight.new_zeros(1, self.first.in_channels, self.image_size, self.image_size)
        images: Tensor = self.first(canvas.contiguous(memory_format=torch.channels_last))
        return images[0].flatten(1).T


class Discriminator(nn.Module):
    """Strided convolutions, batch norm from the second on, leaky ReLU, and one number: the paper's.

    Args:
        image_size: Height and width, 4 times a power of two, at least 8.
        width: Channels of the first layer (paper: 64); each one after it has twice as many.
        norm: Whether there is batch norm.
    """

    def __init__(self, image_size: int, width: int, *, norm: bool = True) -> None:
        super().__init__()
        channels = halving_channels(image_size, width)
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(itertools.pairwise((3, *channels))):
            layers.append(nn.Conv2d(before, after, 5, stride=2, padding=2))
            if norm and number:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.features = nn.Sequential(*layers)
        self.last = nn.Linear(16 * channels[-1], 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """How real images look.

        Args:
            images: ``(B, 3, H, W)`` in [-1, 1].

        Returns:
            Logits ``(B,)``, and the features that they come from, ``(B, F)``.
        """
        features = self.features(images).flatten(1)
        return self.last(features).squeeze(1), features


def halving_channels(image_size: int, width: int) -> list[int]:
    """Channels of the convolutions that halve an image down to 4 x 4, each with twice those of the one before.

    Args:
        image_size: Height and width, 4 times a power of two.
        width: Channels of the first.
    """
    return [width << step for step in range((image_size // 4).bit_length() - 1)]
