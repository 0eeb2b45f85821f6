"""Stable-Baselines3's NatureCNN with constant maps in place of coordinates.

`rl.plain_policy` stores the class itself in the files that it writes, so that they open without this package. This
module must import nothing else of it.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN
from torch import Tensor


class FoldedNatureCNN(NatureCNN):
    """NatureCNN that adds a constant map to the output of some of its convolutions.

    Args:
        observation_space: Images, channels first.
        features_dim: Number of features.
        normalized_image: As for NatureCNN.
        maps: Shape ``(channels, height, width)`` of the map of each folded convolution, by its index in ``cnn``.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 512,
        normalized_image: bool = False,
        maps: dict[int, tuple[int, int, int]] | None = None,
    ) -> None:
        super().__init__(observation_space, features_dim, normalized_image)
        self.folded = sorted(maps or {})
        for index in self.folded:
            self.register_buffer(f"map_{index}", torch.zeros((maps or {})[index]))

    def forward(self, observations: Tensor) -> Tensor:
        """Return the features of a batch of images."""
        for index, layer in enumerate(self.cnn):
            observations = layer(observations)
            if index in self.folded:
                observations = observations + getattr(self, f"map_{index}")
        features: Tensor = self.linear(observations)
        return features
