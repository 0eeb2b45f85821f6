"""Reinforcement learning with CoordConv: policies for plain Stable-Baselines3, and their training with Lightning.

Importing this package registers its policies with Stable-Baselines3 by name and the game ``CoordConv/Catch-v0`` with
Gymnasium. It imports neither Lightning nor emulators; the Lightning tasks `A2C`, `PPO` and `DQN` do so when they are
first used.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import nullcontext

from rl.envs.threads import share_cores

if sys.argv[0] == "-m":  # `python -m rl` has just started, and torch is not imported yet
    share_cores()

from coordconv_apps.utils.extras import required_extra

with required_extra("rl") if sys.argv[0] == "-m" else nullcontext():  # one line without the packages of the extra
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

_TASKS = ("A2C", "DQN", "PPO")


def __getattr__(name: str) -> object:
    """Import a Lightning task when it is first used."""
    if name in _TASKS:
        return getattr(importlib.import_module("rl.tasks"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_policies()
if "CoordConv/Catch-v0" not in gymnasium.registry:
    gymnasium.register("CoordConv/Catch-v0", entry_point="rl.envs.catch:Catch")
