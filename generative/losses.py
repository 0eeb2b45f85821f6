"""What the networks are trained with: adversarial losses and the evidence bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generative.dcgan import Discriminator

Reconstruction = Literal["bernoulli", "squared"]


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Cross-entropy of telling real from generated images (Goodfellow et al., 2014).

    Args:
        real: Logits of real images ``(B,)``.
        generated: Logits of generated ones ``(B,)``.

    Returns:
        A scalar, in nats; the sum of both parts.
    """
    return F.softplus(-real).mean() + F.softplus(generated).mean()


def generator_loss(generated: Tensor) -> Tensor:
    """The loss of a generator that is not to be told apart, in its form that does not saturate.

    Args:
        generated: Logits of generated images ``(B,)``.

    Returns:
        A scalar, in nats.
    """
    return F.softplus(-generated).mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Squared length of the gradient of the discriminator at real images (R1; Mescheder et al., 2018).

    Args:
        logits: Of real images ``(B,)``.
        images: These images, which want gradients, ``(B, 3, H, W)``.

    Returns:
        Half of its mean over the batch, a scalar.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().sum((1, 2, 3)).mean() / 2


def feature_distance(discriminator: Discriminator, features: Tensor, real: Tensor) -> Tensor:
    """Squared distance between mean features of generated and of real images (Salimans et al., 2016).

    Args:
        discriminator: Makes the features.
        features: Of generated images ``(B, F)``.
        real: Real images ``(B, 3, H, W)``.

    Returns:
        The mean over features, a scalar.
    """
    with torch.no_grad():
        _, aim = discriminator(real)
    # A small difference of large numbers: not in half precision.
    return F.mse_loss(features.float().mean(0), aim.float().mean(0))


def reconstruction_loss(
    kind: Reconstruction, outputs: Tensor, images: Tensor, channel_weights: Sequence[float] = (1.0, 1.0, 1.0)
) -> Tensor:
    """How far reconstructions are from images.

    Args:
        kind: "bernoulli": cross-entropy of each channel of each pixel, as if its brightness were a probability.
            "squared": half of the squared distance, of images in [-1, 1].
        outputs: Reconstructions before the tanh, ``(B, 3, H, W)``.
        images: ``(B, 3, H, W)`` in [-1, 1].
        channel_weights: What red, green and blue count.

    Returns:
        Sums over pixels and channels, in nats, ``(B,)``.
    """
    outputs, images = outputs.float(), images.float()
    if kind == "squared":
        losses = (torch.tanh(outputs) - images).square() / 2
    else:  # sigmoid(2 x) = (tanh(x) + 1) / 2: the brightness that is drawn, from 0 to 1
        losses = F.binary_cross_entropy_with_logits(2 * outputs, (images + 1) / 2, reduction="none")
    return (losses.sum((2, 3)) * losses.new_tensor(channel_weights)).sum(1)
