"""Register the policies with Stable-Baselines3 by name, and Catch with Gymnasium, when this module is imported."""

from __future__ import annotations

import gymnasium

from rl.extractors import CoordConvCombinedExtractor as CoordConvCombinedExtractor
from rl.extractors import CoordConvNatureCNN as CoordConvNatureCNN
from rl.policies import CoordConvCnnPolicy as CoordConvCnnPolicy
from rl.policies import CoordConvDQNMultiInputPolicy as CoordConvDQNMultiInputPolicy
from rl.policies import CoordConvDQNPolicy as CoordConvDQNPolicy
from rl.policies import CoordConvMultiInputPolicy as CoordConvMultiInputPolicy
from rl.policies import register_policies

register_policies()
if "CoordConv/Catch-v0" not in gymnasium.registry:
    gymnasium.register("CoordConv/Catch-v0", entry_point="rl.envs.catch:Catch")
