"""Adversarial losses of the GAN, and the reconstruction loss of the VAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from generative.models import Discriminator

Reconstruction = Literal["bernoulli", "squared"]


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Compute the cross-entropy of classifying real and generated images in nats, from their logits ``(B,)`` each.

    It is the sum of both terms (Goodfellow et al., 2014).

    Example:
        >>> discriminator_loss(torch.zeros(4), torch.zeros(4))  # 2 log 2
        tensor(1.3863)
    """
    return F.softplus(-real).mean() + F.softplus(generated).mean()


def generator_loss(generated: Tensor) -> Tensor:
    """Compute the non-saturating loss in nats from logits of generated images ``(B,)`` (Goodfellow et al., 2014)."""
    return F.softplus(-generated).mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Compute the R1 gradient penalty at real images (Mescheder et al., 2018).

    It is half the squared norm of the gradient of the logits ``(B,)`` with respect to the images ``(B, 3, H, W)``,
    which require gradients, averaged over the batch.

    Example:
        >>> images = torch.zeros(2, 3, 4, 4, requires_grad=True)
        >>> logits = images.sum((1, 2, 3))  # 48 partial derivatives of 1
        >>> float(gradient_penalty(logits, images))
        24.0
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().sum((1, 2, 3)).mean() / 2


def feature_matching_loss(discriminator: Discriminator, features: Tensor, real: Tensor) -> Tensor:
    """Compute the squared distance between mean features of generated and real images (Salimans et al., 2016).

    The code of Liu et al. (2018) averages the absolute differences between features of pairs of images instead.

    Args:
        discriminator: Computes the features of the real images, without gradients.
        features: Features of generated images ``(B, F)``.
        real: Real images ``(B, 3, H, W)``.
    """
    with torch.no_grad():
        _, target = discriminator(real)
    # Not in half precision: this is a small difference of large numbers.
    return F.mse_loss(features.float().mean(0), target.float().mean(0))


def reconstruction_loss(
    kind: Reconstruction, outputs: Tensor, images: Tensor, channel_weights: Sequence[float] = (1.0, 1.0, 1.0)
) -> Tensor:
    """Compute the reconstruction loss of each image, a sum over pixels and channels, in nats: ``(B,)``.

    Args:
        kind: "bernoulli": cross-entropy of each channel of each pixel, with the brightness as a probability.
            "squared": half the squared difference, for images in [-1, 1].
        outputs: Reconstructions before the tanh, ``(B, 3, H, W)``.
        images: ``(B, 3, H, W)`` in [-1, 1].
        channel_weights: Weights of red, green and blue.

    Example:
        >>> images = torch.ones(1, 3, 2, 2)
        >>> reconstruction_loss("squared", torch.zeros(1, 3, 2, 2), images)  # 12 values, half of 1 each
        tensor([6.])
    """
    outputs, images = outputs.float(), images.float()
    if kind == "squared":
        losses = (torch.tanh(outputs) - images).square() / 2
    else:  # sigmoid(2 x) = (tanh(x) + 1) / 2: the brightness of the reconstruction, from 0 to 1
        losses = F.binary_cross_entropy_with_logits(2 * outputs, (images + 1) / 2, reduction="none")
    return (losses.sum((2, 3)) * losses.new_tensor(channel_weights)).sum(1)
