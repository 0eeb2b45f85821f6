"""The generator as it is exported."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImageGenerator(nn.Module):
    """A generator followed by tanh, as it is exported: latents ``(B, latent_size)`` to images in [-1, 1]."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latents: Tensor) -> Tensor:
        """Generate images ``(B, 3, H, W)``."""
        return torch.tanh(self.generator(latents))
