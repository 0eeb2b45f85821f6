"""The encoder of the variational autoencoder (Kingma & Welling, 2014) and the posterior that it predicts."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from coordconv_apps import to_coordconv
from coordconv_apps.nn.coords import Coords
from coordconv_apps.nn.init import he_normal_
from generative.models.discriminator import downsampling_channels


class Posterior(NamedTuple):
    """Normal distributions of latents, one for each image: ``(B, latent_size)``."""

    mean: Tensor
    log_variance: Tensor

    def sample(self) -> Tensor:
        """Draw latents from torch's global random numbers; gradients flow through them (reparametrisation)."""
        return self.mean + torch.randn_like(self.mean) * (self.log_variance / 2).exp()

    def kl_divergence(self) -> Tensor:
        """Compute the Kullback-Leibler divergence from the standard normal distribution, in nats, ``(B,)``.

        Example:
            >>> Posterior(mean=torch.ones(1, 3), log_variance=torch.zeros(1, 3)).kl_divergence()
            tensor([1.5000])
        """
        mean, log_variance = self.mean.float(), self.log_variance.float()  # a small difference of large numbers
        return (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2


class Encoder(nn.Module):
    """Strided convolutions, as in the discriminator but without batch norm, to the posterior of an image."""

    def __init__(self, latent_size: int, image_size: int, width: int) -> None:
        super().__init__()
        channels = downsampling_channels(image_size, width)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((3, *channels)):
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.last = nn.Linear(16 * channels[-1], 2 * latent_size)

    def forward(self, images: Tensor) -> Posterior:
        """Predict the posterior of images ``(B, 3, H, W)`` in [-1, 1]."""
        mean, log_variance = self.last(self.features(images).flatten(1)).chunk(2, dim=1)
        return Posterior(mean, log_variance)


def build_encoder(coords: Coords, *, latent_size: int, image_size: int, width: int) -> Encoder:
    """Build an `Encoder` with ``coords`` at its input, and weights from torch's global random numbers."""
    network = Encoder(latent_size, image_size, width)
    if coords != "none":
        to_coordconv(network, "first", coords)
    he_normal_(network, coords_last=True)
    return network.to(memory_format=torch.channels_last)
