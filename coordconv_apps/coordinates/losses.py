"""Cross-entropy over all pixels of a canvas, whole or estimated from a sample of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from coordconv_apps.coordinates.squares import pixel_index

if TYPE_CHECKING:
    from coordconv_apps.coordinates.models import PixelClassifier


def full_cross_entropy(logits: Tensor, centers: Tensor) -> Tensor:
    """Softmax cross-entropy over all pixels, as in the paper.

    Args:
        logits: ``(B, H, W)``.
        centers: int64 ``(B, 1, 2)``, x and y of the true pixel.

    Returns:
        The mean over the batch, a scalar.
    """
    return F.cross_entropy(logits.flatten(1), pixel_index(centers[:, 0], logits.shape[-1]))


def sampled_cross_entropy(
    network: PixelClassifier, centers: Tensor, near: int, others: int, others_weight: float = 1.0
) -> Tensor:
    """Softmax cross-entropy over the pixels around the true one and a random sample of all others.

    Args:
        network: Gives logits of chosen pixels.
        centers: int64 ``(B, 1, 2)``, x and y of the true pixel.
        near: The pixels around the true one are a square that reaches so many pixels to each side, shifted where it
            would leave the canvas.
        others: Number of random pixels for each sample; one of them that is in the square is not counted.
        others_weight: Exponent of what a random pixel counts in the sum below the softmax: with 1 it stands for all the
            pixels that were not drawn, and the sum is unbiased; with 0 it counts as one pixel.

    Returns:
        The mean over the batch, a scalar.
    """
    size = network.canvas_size
    side = min(2 * near + 1, size)
    center = centers[:, 0]
    corner = (center - near).clamp(0, size - side).unsqueeze(1)  # (B, 1, 2)
    axis = torch.arange(side, device=centers.device)
    square = corner + torch.cartesian_prod(axis, axis).flip(1)  # (B, side^2, 2), row by row
    drawn = torch.randint(size, (len(center), others, 2), device=centers.device)
    counted = ((drawn < corner) | (drawn >= corner + side)).any(2)
    pixels = pixel_index(torch.cat([square, drawn], dim=1), size)
    logits = network.at(centers.flatten(1).float(), pixels)
    weight = logits.new_full((), others_weight * math.log(size**2 / others))
    log_weights = torch.where(counted, weight, -torch.inf)
    logits = torch.cat([logits[:, : side**2], logits[:, side**2 :] + log_weights], dim=1)
    return F.cross_entropy(logits, pixel_index(center - corner[:, 0], side))
