"""Cross-entropy over the pixels of a canvas: over all of them, or estimated from a sample."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from coordconv_apps.coordinates.models.pixel_networks import HALO, PixelClassifier, PixelRenderer
from coordconv_apps.coordinates.not_so_clevr import pixel_index


def full_cross_entropy(logits: Tensor, centers: Tensor) -> Tensor:
    """Return the softmax cross-entropy over all pixels, as in the paper: the mean over batch and objects, a scalar.

    Args:
        logits: ``(B, H, W)``.
        centers: int64 ``(B, objects, 2)``, x and y of the true pixels.

    >>> full_cross_entropy(torch.zeros(1, 8, 8), torch.tensor([[[3, 5]]]))  # log(64)
    tensor(4.1589)
    """
    true = pixel_index(centers, logits.shape[-1])
    return -logits.flatten(1).log_softmax(1).gather(1, true).mean()


class SampledPixels(NamedTuple):
    """Logits around each sample's centre, and an estimate of the softmax's denominator."""

    corner: Tensor  # int64 (B, 2), x and y of the first pixel of the square around the centre
    side: int  # of that square, in pixels
    logits: Tensor  # (B, side^2), those of the square row by row
    log_sum: Tensor  # (B,), estimated logarithm of the sum of exponentials of all logits of the canvas


def sample_pixels(
    network: PixelClassifier, centers: Tensor, reach: int, others: int, others_weight: float = 1.0
) -> SampledPixels:
    """Compute logits around the centres, and estimate the softmax's denominator from random other pixels.

    Args:
        network: Gives logits of chosen pixels.
        centers: int64 ``(B, 1, 2)``, x and y of the true pixel.
        reach: How many pixels the square around it extends to each side; it is shifted where it would leave the canvas.
        others: Number of random pixels per sample; those that fall into the square are ignored.
        others_weight: Exponent of the weight of a random pixel in the sum: with 1 it stands for all the pixels that
            were not drawn, and the sum is unbiased; with 0 it counts as one pixel.
    """
    size = network.canvas_size
    side = min(2 * reach + 1, size)
    corner = (centers - reach).clamp(0, size - side)  # (B, 1, 2)
    axis = torch.arange(side, device=centers.device)
    square = corner + torch.cartesian_prod(axis, axis).flip(1)  # (B, side^2, 2), row by row
    drawn = torch.randint(size, (len(centers), others, 2), device=centers.device)
    counted = ((drawn < corner) | (drawn >= corner + side)).any(2)
    pixels = pixel_index(torch.cat([square, drawn], dim=1), size)
    logits = network.at(centers.flatten(1).to(network.first.weight.dtype), pixels)
    weight = logits.new_full((), others_weight * math.log(size**2 / others))
    log_weights = torch.where(counted, weight, -torch.inf)
    log_sum = torch.cat([logits[:, : side**2], logits[:, side**2 :] + log_weights], dim=1).logsumexp(1)
    return SampledPixels(corner[:, 0], side, logits[:, : side**2], log_sum)


def sampled_cross_entropy(
    network: PixelClassifier, centers: Tensor, near: int, others: int, others_weight: float = 1.0
) -> Tensor:
    """Return the softmax cross-entropy over the pixels around the true one and a random sample of all others.

    It is the mean over the batch, a scalar. `near` is the `reach` of `sample_pixels`, which describes the others.
    """
    return _cross_entropy(sample_pixels(network, centers, near, others, others_weight), centers)


def _cross_entropy(sample: SampledPixels, centers: Tensor) -> Tensor:
    true = pixel_index(centers[:, 0] - sample.corner, sample.side)
    return (sample.log_sum - sample.logits.gather(1, true[:, None])[:, 0]).mean()


def sampled_rendering_loss(
    network: PixelRenderer,
    centers: Tensor,
    square_size: int,
    near: int,
    others: int,
    others_weight: float = 1.0,
    center_weight: float = 0.0,
) -> Tensor:
    """Return the sigmoid cross-entropy of the pixels around the square; pixels far from it are left out.

    Args:
        network: The paper's network.
        centers: int64 ``(B, 1, 2)``, x and y of the centre.
        square_size: Side of the true square, in pixels.
        near: How far from the centre pixels are compared, in pixels; more at the border of the canvas. It must be above
            half a square and `HALO`, or the network hardly sees pixels that must stay black.
        others: Number of random pixels per sample, to estimate the softmax of the canvas.
        others_weight: Exponent of their weight: see `sample_pixels`.
        center_weight: Weight of the cross-entropy of the softmax inside the network, which is added.
    """
    size = network.classifier.canvas_size
    sample = sample_pixels(network.classifier, centers, near + HALO, others, others_weight)
    found = (sample.logits - sample.log_sum[:, None]).exp()
    painted = network.paint_at(found.view(-1, sample.side, sample.side))
    # A convolution pads a part of the canvas with zeros, which is right only where the canvas ends as well.
    place = sample.corner[:, :, None] + torch.arange(sample.side, device=centers.device)  # (B, 2, side)
    first, last = place[..., :1], place[..., -1:]
    right = ((place >= first + HALO) | (first == 0)) & ((place <= last - HALO) | (last == size - 1))
    kept = (right[:, 0, None, :] & right[:, 1, :, None]).to(painted.dtype)
    start = centers[:, 0, :, None] - square_size // 2
    inside = (place >= start) & (place < start + square_size)
    true = (inside[:, 0, None, :] & inside[:, 1, :, None]).to(painted.dtype)
    loss = F.binary_cross_entropy_with_logits(painted, true, weight=kept, reduction="sum") / kept.sum()
    return loss + center_weight * _cross_entropy(sample, centers)
