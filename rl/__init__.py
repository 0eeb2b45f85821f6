"""Reinforcement learning with and without coordinates: policies for Stable-Baselines3, and their training.

Importing this package makes its policies known to Stable-Baselines3 by name; it loads neither Lightning nor emulators.
"""

from __future__ import annotations

from rl.extractors import CoordConvCombinedExtractor, CoordConvNatureCNN
from rl.policies import (
    CoordConvCnnPolicy,
    CoordConvDQNMultiInputPolicy,
    CoordConvDQNPolicy,
    CoordConvMultiInputPolicy,
    register_policies,
)

__all__ = [
    "CoordConvCnnPolicy",
    "CoordConvCombinedExtractor",
    "CoordConvDQNMultiInputPolicy",
    "CoordConvDQNPolicy",
    "CoordConvMultiInputPolicy",
    "CoordConvNatureCNN",
]

register_policies()
