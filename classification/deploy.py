"""What ``export`` makes of a classifier: pixels in, probabilities out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DeployedClassifier(nn.Module):
    """A classifier that takes images as they come, and normalises them itself.

    Args:
        network: Normalised images ``(B, 3, H, W)`` to logits ``(B, C)``.
        mean: ``(3,)``: of red, green and blue, in [0, 1], taken out of images.
        std: ``(3,)``: standard deviations that images are divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.detach().clone().view(3, 1, 1))
        self.register_buffer("std", std.detach().clone().view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Classifies images.

        Args:
            images: ``(B, 3, H, W)``: red, green and blue in [0, 1].

        Returns:
            ``(B, C)``: the probability of each class; each row adds up to 1.
        """
        return torch.softmax(self.network((images - self.mean) / self.std), dim=1)
