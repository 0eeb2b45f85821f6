"""MixUp and CutMix on batches of training images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class MixedBatch(NamedTuple):
    """A batch of mixed images.

    Attributes:
        images: float ``(B, 3, H, W)``.
        targets: float32 ``(B, num_classes)``: the fraction of each class in each image; each row sums to 1.
    """

    images: Tensor
    targets: Tensor


# torchvision's v2.MixUp and v2.CutMix draw from torch's global generator: other mixtures than these from the same seed.
def mix_batch(
    images: Tensor, labels: Tensor, num_classes: int, mixup: float, cutmix: float, seed: int, shift: int = 1
) -> MixedBatch:
    """Mix every image of a batch with another by MixUp (Zhang et al., 2018) or CutMix (Yun et al., 2019).

    With both, each batch gets one of them with equal probability.

    Args:
        images: float ``(B, 3, H, W)``, on any device.
        labels: int64 ``(B,)``.
        num_classes: The number of classes.
        mixup: Both parameters of MixUp's beta distribution; 0 turns it off.
        cutmix: Both parameters of CutMix's beta distribution; 0 turns it off.
        seed: Determines what is drawn, at least 0. The global random generators are not used.
        shift: Distance in the batch from an image to the image that it is mixed with.

    Returns:
        The mixed images. Without MixUp and CutMix, the same images.

    >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    >>> mix_batch(images, labels, num_classes=3, mixup=0.2, cutmix=1.0, seed=0).targets.sum(1)
    tensor([1., 1., 1., 1.])
    """
    targets = F.one_hot(labels, num_classes).to(torch.float32)
    if not (mixup or cutmix):
        return MixedBatch(images, targets)
    rng = np.random.default_rng(seed)
    use_cutmix = cutmix > 0 and (not mixup or rng.random() < 0.5)
    alpha = cutmix if use_cutmix else mixup
    fraction = float(rng.beta(alpha, alpha))
    others = images.roll(shift, 0)
    if use_cutmix:
        height, width = images.shape[-2:]
        top, bottom, left, right = _draw_box(rng, fraction, height, width)
        fraction = 1 - (bottom - top) * (right - left) / (height * width)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    else:
        mixed = others.mul_(1 - fraction).add_(images, alpha=fraction)
    return MixedBatch(mixed, targets * fraction + targets.roll(shift, 0) * (1 - fraction))


def _draw_box(rng: np.random.Generator, fraction: float, height: int, width: int) -> tuple[int, int, int, int]:
    """Draw a box of ``1 - fraction`` of the area with its centre anywhere, clipped at the border."""
    half = 0.5 * (1 - fraction) ** 0.5
    y, x, half_y, half_x = int(rng.integers(height)), int(rng.integers(width)), int(half * height), int(half * width)
    return max(y - half_y, 0), min(y + half_y, height), max(x - half_x, 0), min(x + half_x, width)
