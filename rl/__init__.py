"""Reinforcement learning with and without coordinates: policies for Stable-Baselines3, and their training.

Importing this package makes its policies known to Stable-Baselines3 by name, and the game ``CoordConv/Catch-v0`` to
Gymnasium; it loads neither Lightning nor emulators.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

from rl.envs.threads import share_cores

if sys.argv[0] == "-m":  # `python -m rl` is being found, and torch is not loaded yet
    share_cores()

from coordconv_apps.utils.extras import required_extra

with required_extra("rl") if sys.argv[0] == "-m" else nullcontext():
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
