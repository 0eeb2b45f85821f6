"""What mixes the samples of a batch to train on, on the device where it is used."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class Mixed(NamedTuple):
    """A batch of mixed samples.

    Attributes:
        images: float ``(B, 3, H, W)``.
        targets: float32 ``(B, num_classes)``: the share of each class in each image; each row adds up to 1.
    """

    images: Tensor
    targets: Tensor


def mix_batch(
    images: Tensor, labels: Tensor, num_classes: int, mixup: float, cutmix: float, seed: int, shift: int = 1
) -> Mixed:
    """Mixes every image of a batch with another one: MixUp (Zhang et al., 2018) or CutMix (Yun et al., 2019).

    With both, a coin decides for the batch.

    Args:
        images: float ``(B, 3, H, W)``, on any device.
        labels: int64 ``(B,)``.
        num_classes: The number of classes.
        mixup: Both parameters of the beta distribution of the first image's share; 0 is without MixUp.
        cutmix: The same of CutMix.
        seed: Fixes what is drawn, at least 0.
        shift: How many places before an image in the batch the other one is.

    Returns:
        New images, and shares of classes. Without MixUp and CutMix, the same images.
    """
    targets = F.one_hot(labels, num_classes).to(torch.float32)
    if not (mixup or cutmix):
        return Mixed(images, targets)
    rng = np.random.default_rng(seed)
    use_cutmix = cutmix > 0 and (not mixup or rng.random() < 0.5)
    alpha = cutmix if use_cutmix else mixup
    share = float(rng.beta(alpha, alpha))
    others = images.roll(shift, 0)
    if use_cutmix:
        height, width = images.shape[-2:]
        top, bottom, left, right = _draw_box(rng, share, height, width)
        share = 1 - (bottom - top) * (right - left) / (height * width)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    else:
        mixed = others.mul_(1 - share).add_(images, alpha=share)
    return Mixed(mixed, targets * share + targets.roll(shift, 0) * (1 - share))


def _draw_box(rng: np.random.Generator, share: float, height: int, width: int) -> tuple[int, int, int, int]:
    """A box of ``1 - share`` of the area with its centre anywhere, cut off at the border."""
    half = 0.5 * (1 - share) ** 0.5
    y, x, half_y, half_x = int(rng.integers(height)), int(rng.integers(width)), int(half * height), int(half * width)
    return max(y - half_y, 0), min(y + half_y, height), max(x - half_x, 0), min(x + half_x, width)
