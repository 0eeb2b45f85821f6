"""A variational autoencoder (Kingma & Welling, 2014) with the generators of the two-shape experiment as decoders."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from generative.dcgan import halving_channels


class Posterior(NamedTuple):
    """Normal distributions of latents, one for each image.

    Attributes:
        mean: ``(B, latent_size)``.
        log_variance: ``(B, latent_size)``.
    """

    mean: Tensor
    log_variance: Tensor

    def draw(self) -> Tensor:
        """One latent for each image, ``(B, latent_size)``, from torch's generator; gradients flow through."""
        return self.mean + torch.randn_like(self.mean) * (self.log_variance / 2).exp()

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence from the standard normal distribution, in nats, ``(B,)``."""
        mean, log_variance = self.mean.float(), self.log_variance.float()  # a small difference of large numbers
        return (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2


class Encoder(nn.Module):
    """Strided convolutions, as in the discriminator but without batch norm, to the posterior of an image.

    Args:
        latent_size: Numbers that an image is made of.
        image_size: Height and width, 4 times a power of two, at least 8.
        width: Channels of the first layer; each one after it has twice as many.
    """

    def __init__(self, latent_size: int, image_size: int, width: int) -> None:
        super().__init__()
        channels = halving_channels(image_size, width)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((3, *channels)):
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.last = nn.Linear(16 * channels[-1], 2 * latent_size)

    def forward(self, images: Tensor) -> Posterior:
        """The posterior of each image.

        Args:
            images: ``(B, 3, H, W)`` in [-1, 1].
        """
        mean, log_variance = self.last(self.features(images).flatten(1)).chunk(2, dim=1)
        return Posterior(mean, log_variance)
