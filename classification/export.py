"""The module that ``export`` saves: pixels in, probabilities out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ExportedClassifier(nn.Module):
    """A classifier with normalisation and softmax inside.

    Args:
        network: Normalised images ``(B, 3, H, W)`` to logits ``(B, C)``.
        mean: ``(3,)``: mean of red, green and blue, in [0, 1], subtracted from images.
        std: ``(3,)``: standard deviation, which images are divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.detach().clone().view(3, 1, 1))
        self.register_buffer("std", std.detach().clone().view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return class probabilities.

        Args:
            images: ``(B, 3, H, W)``: RGB in [0, 1].

        Returns:
            ``(B, C)``: the probability of each class; each row sums to 1.
        """
        return torch.softmax(self.network((images - self.mean) / self.std), dim=1)
