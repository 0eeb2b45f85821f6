"""The generators of the two-shape experiment (Liu et al., 2018, section 5 and supplement)."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coordconv_apps import CoordConv2d, to_coordconv
from coordconv_apps.nn.coords import Coords, as_coordinates
from coordconv_apps.nn.init import he_normal_, narrow_normal_
from coordconv_apps.nn.parameter_budget import parameter_count, widest_within_budget
from generative.models.discriminator import downsampling_channels

Network = Literal["coordconv", "conv", "budget"]  # names of the generators
COORDCONV_CHANNELS = (8, 4, 4, 2, 1)
"""Channels of the 1x1 convolutions of the CoordConv generator, in multiples of its width (paper: 64)."""


class ConvGenerator(nn.Module):
    """The paper's baseline: a linear layer to 4 x 4 pixels, then transposed convolutions that double height and width.

    Args:
        latent_size: Number of latents.
        image_size: Height and width, 4 times a power of two, at least 8.
        width: Channels of the last hidden layer (paper: 64). Each earlier layer has twice as many as the next.
    """

    def __init__(self, latent_size: int, image_size: int, width: int) -> None:
        super().__init__()
        channels = downsampling_channels(image_size, width)[::-1]
        self.first = nn.Linear(latent_size, 16 * channels[0])
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True)]
        for before, after in itertools.pairwise(channels):
            layers += [_upsample(before, after), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.rest = nn.Sequential(*layers, _upsample(channels[-1], 3))

    def forward(self, latents: Tensor) -> Tensor:
        """Generate images before the tanh, ``(B, 3, H, W)``, from latents ``(B, latent_size)``."""
        images: Tensor = self.rest(self.first(latents).unflatten(1, (-1, 4, 4)))
        return images


def _upsample(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 5, stride=2, padding=2, output_padding=1)


class CoordConvGenerator(nn.Module):
    """The paper's generator: latents repeated over the image and coordinates, then 1x1 and 3x3 convolutions.

    The first layer is linear, so it is never computed on the repeated input: its output for the latents (once per
    image) and for the coordinates (once per batch) are added.

    Args:
        latent_size: Number of latents.
        image_size: Height and width.
        width: Channels of the last 1x1 convolution and of the 3x3 convolutions (paper: 64).
        coords: Coordinates in the first layer. Without coordinates, all pixels away from the border are equal.
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
        layers[0] = nn.Identity()  # `forward` applies this ReLU
        self.rest = nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Conv2d(width, 3, 1))

    def forward(self, latents: Tensor) -> Tensor:
        """Generate images before the tanh, ``(B, 3, H, W)``, from latents ``(B, latent_size)``."""
        size = self.image_size
        if isinstance(self.first, nn.Conv2d):
            latent_part = F.linear(latents, self.first.weight.flatten(1))
            coord_part = self._coord_part() if self.training else self._cached_coord_part()
            # Channels last, because autograd then sums over images and pixels at memory speed. The tensor that relu_
            # changes must not be a view, because autograd would copy it.
            pixels = (latent_part[:, None] + coord_part.to(latent_part.dtype)).relu_()
            hidden = pixels.expand(-1, size**2, -1).unflatten(1, (size, size)).permute(0, 3, 1, 2)
        else:  # folded for export: a layer for this image size
            hidden = self.first(latents[:, :, None, None].expand(-1, -1, size, size)).relu()
        images: Tensor = self.rest(hidden)
        return images

    def _coord_part(self) -> Tensor:
        """Compute the first layer's output for the coordinates, with bias: ``(H * W, channels)`` or ``(channels,)``."""
        assert self.first.bias is not None
        if not isinstance(self.first, CoordConv2d):
            return self.first.bias
        weight, size = self.first.coord_weight.flatten(1), self.image_size
        # Half precision would shift coordinates by pixels. Autocast does not round elementwise products.
        dtype = torch.promote_types(weight.dtype, torch.float32)
        grid = as_coordinates(self.first.coords).grid((size, size), dtype=dtype, device=weight.device)
        coord_channels = grid.flatten(1)
        products = [channel[:, None] * weights for channel, weights in zip(coord_channels, weight.T, strict=True)]
        return sum(products, self.first.bias)

    def _cached_coord_part(self) -> Tensor:
        """Compute `_coord_part` by calling the layer, which caches it in evaluation mode and which `fold` replaces."""
        canvas = self.first.weight.new_zeros(1, self.first.in_channels, self.image_size, self.image_size)
        images: Tensor = self.first(canvas.contiguous(memory_format=torch.channels_last))
        return images[0].flatten(1).T


def build_generator(
    network: Network, coords: Coords, *, latent_size: int, image_size: int, width: int, gain: float = 1.0
) -> nn.Module:
    """Build a generator or decoder with initial weights from torch's global random numbers.

    Args:
        network: "coordconv": the paper's CoordConv generator. "conv": the paper's baseline of transposed convolutions.
            "budget": "conv" with as many channels as fit into the parameter count of "coordconv" with x and y.
        coords: Coordinates in the first layer of "coordconv", or in every transposed convolution of the others.
        latent_size: Number of latents.
        image_size: Height and width, in pixels.
        width: Channels of the last hidden layer; the other layers have multiples of it (paper: 64).
        gain: Factor of the He-normal initial weights of "coordconv".
    """
    generator: nn.Module
    if network == "coordconv":
        generator = CoordConvGenerator(latent_size, image_size, width, coords)
        he_normal_(generator, gain, coords_last=True)
    else:
        if network == "budget":
            with torch.device("meta"):
                budget = parameter_count(CoordConvGenerator(latent_size, image_size, width, "xy"))
            width = widest_within_budget(lambda channels: ConvGenerator(latent_size, image_size, channels), budget)
        generator = ConvGenerator(latent_size, image_size, width)
        if coords != "none":
            to_coordconv(generator, "all", coords)
        narrow_normal_(generator)
    # CPUs and GPUs compute convolutions fastest in this memory format.
    return generator.to(memory_format=torch.channels_last)
