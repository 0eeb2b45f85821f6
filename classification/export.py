"""The module that ``export`` saves: pixels in, probabilities out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ExportedClassifier(nn.Module):
    """A classifier with normalisation by ``mean`` and ``std``, each ``(3,)``, and softmax inside."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.detach().clone().view(3, 1, 1))
        self.register_buffer("std", std.detach().clone().view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the class probabilities ``(B, C)`` of RGB images ``(B, 3, H, W)`` in [0, 1]."""
        return torch.softmax(self.network((images - self.mean) / self.std), dim=1)
