"""MixUp and CutMix on batches of training images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2


class MixedBatch(NamedTuple):
    """A batch of mixed images.

    Attributes:
        images: float ``(B, 3, H, W)``.
        targets: float32 ``(B, num_classes)``: the fraction of each class in each image; each row sums to 1.
    """

    images: Tensor
    targets: Tensor


class Mixing:
    """MixUp (Zhang et al., 2018), CutMix (Yun et al., 2019), or one of both with equal probability for each batch.

    Args:
        mixup: Both parameters of MixUp's beta distribution; 0 turns it off.
        cutmix: Both parameters of CutMix's beta distribution; 0 turns it off.
        repeats: Number of copies of each image, which stand side by side and are not mixed with each other.

    >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    >>> Mixing(mixup=0.2, cutmix=1.0)(images, labels, num_classes=3, seed=0).targets.sum(1)
    tensor([1., 1., 1., 1.])
    """

    def __init__(self, mixup: float = 0.0, cutmix: float = 0.0, repeats: int = 1) -> None:
        # Made here, not for each batch: under the precision bf16-true, their distributions would be bfloat16 there.
        kinds = [kind(alpha=alpha) for kind, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if alpha]
        self._mix = v2.RandomChoice(kinds) if kinds else None
        self.repeats = repeats

    def __call__(self, images: Tensor, labels: Tensor, num_classes: int, seed: int) -> MixedBatch:
        """Mix every image of a batch, float ``(B, 3, H, W)``, with another.

        The global random generators are not changed: ``seed``, at least 0, determines what is drawn. The mixed images
        are in another order if there are repeats. Without MixUp and CutMix, they are the same images.
        """
        targets = F.one_hot(labels, num_classes).to(torch.float32)
        if self._mix is None:
            return MixedBatch(images, targets)
        if self.repeats > 1:  # torchvision mixes each image with its neighbour: let that be another image
            order = torch.arange(len(images), device=images.device).view(-1, self.repeats).T.flatten()
            images, targets = images[order], targets[order]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return MixedBatch(*self._mix(images, targets))
