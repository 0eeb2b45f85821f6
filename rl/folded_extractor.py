"""Stable-Baselines3's NatureCNN and CombinedExtractor with constant maps in place of coordinates.

`rl.plain_policy` stores the classes themselves in the files that it writes, so that they open without this package.
This module must import nothing else of it.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
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


class FoldedCombinedExtractor(CombinedExtractor):
    """CombinedExtractor with a `FoldedNatureCNN` for each image.

    Args:
        observation_space: Dict, whose images have their channels first.
        cnn_output_dim: Number of features of each image.
        normalized_image: As for CombinedExtractor.
        maps: Arguments ``maps`` of `FoldedNatureCNN` by the key of the image.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        cnn_output_dim: int = 256,
        normalized_image: bool = False,
        maps: dict[str, dict[int, tuple[int, int, int]]] | None = None,
    ) -> None:
        super().__init__(observation_space, cnn_output_dim, normalized_image)
        for key, own in (maps or {}).items():
            self.extractors[key] = FoldedNatureCNN(observation_space[key], cnn_output_dim, normalized_image, own)
