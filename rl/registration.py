"""Register the policies with Stable-Baselines3 by name, and Catch with Gymnasium, when this module is imported."""

from __future__ import annotations

import gymnasium

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
if "CoordConv/Catch-v0" not in gymnasium.registry:
    gymnasium.register("CoordConv/Catch-v0", entry_point="rl.envs.catch:Catch")
